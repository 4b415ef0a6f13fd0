"""BCDClassifier: logits, calibrated probabilities, decisions and heat maps of images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from bcd_models.config import ModelConfig
from bcd_models.errors import ModelFolderError
from bcd_models.hub import folder as model_folder
from bcd_models.images.open import ImageSource, Several, open_pixels
from bcd_models.images.preprocess import preprocess, resize, symmetry, to_uint8
from bcd_models.models.backbones import backbone_named, create
from bcd_models.models.lending import Later, Lending
from bcd_models.models.predictor import Margins, Predictor, as_list
from bcd_models.runtime.forward import (
    Forward,
    Runtime,
    State,
    checked,
    default_runtime,
    forward_of,
    kept_forward,
)
from bcd_models.runtime.one_core import one_core

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from bcd_models.decision import Label
    from bcd_models.explain.gradcam import Explanation
    from bcd_models.prediction import Prediction

SPLIT = 32_768  # values: torch shares an act upon so many among its threads, none upon fewer


class BCDClassifier(Lending, Predictor):
    """A breast-histopathology patch classifier: benign or malignant.

    Research use only: an aid to, and no replacement for, a pathologist.

    Args:
        config: What travels with the weights.
        network: A timm network with two logits; a fresh one with random weights by default.
    """

    config: ModelConfig

    def __init__(self, config: ModelConfig, network: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone_named(config.backbone)
        self.network = (network or create(config.backbone)).eval()
        self._runtime = default_runtime()
        self._weights: _Weights | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Load a model folder; ModelFolderError where it can't be used.

        Where an export of these very weights is kept, they were checked when it was made, and the
        network is made when somebody asks for it.
        """
        config, where = model_folder.read_config(folder), str(folder / model_folder.WEIGHTS)
        tensors, sha256 = model_folder.read_weights(folder)
        model = cls(config, Later(partial(_network_of, config.backbone, tensors, where)))
        model._weights = _Weights(file_sha256=sha256)
        model._lent = False
        model._weights.forward = kept_forward(model.runtime, model._kept_as(model._weights))
        if model._weights.forward is None:
            model._own("network")
        return model

    @property
    def runtime(self) -> Runtime:
        """What computes the logits of ``predict``: "onnx", "torch", or "auto", the quicker here.

        Setting it takes effect at the next prediction; ``BCD_RUNTIME`` says what it is at first.
        """
        return self._runtime

    @runtime.setter
    def runtime(self, wanted: str) -> None:
        self._runtime = checked(wanted)
        self._weights_now().forward = None

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file, or of the file these weights would be saved as."""
        return self._sha256_of(self._weights_now())

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits N x 2 (benign, malignant) of N x 3 x S x S pixels from ``preprocess``."""
        logits: Tensor = self._own("network")(pixels)
        return logits

    def preprocess(self, images: ImageSource | Several) -> Tensor:
        """The network's input, N x 3 x S x S float32, for one image or several."""
        return self._inputs_of([open_pixels(image) for image in as_list(images)])

    def files(self) -> dict[str, bytes]:
        """``config.json`` and ``model.safetensors``, whose values are float16."""
        return model_folder.files_of(self.config, self._own("network").state_dict())

    def ready(self, pixels: NDArray[np.uint8]) -> Tensor:
        """An image's pixels as 1 x 3 x H x W uint8 on the CPU, no larger than the network's input.

        What is smaller stays so: it is enlarged together with others, on a GPU where there is one.
        """
        image, size = to_uint8(pixels[None]), self.config.preprocess.input_size
        if max(image.shape) <= size:
            return image
        with one_core():
            return resize(image, size).to(torch.uint8)

    def margins(self, inputs: Sequence[Tensor]) -> Margins:
        """The logit margins (malignant minus benign), one an image; an input may hold several."""
        weights = self._weights_now()
        forward, pixels = self._forward_of(weights), self._inputs(inputs, weights.device)
        margins = margins_of(forward, pixels, self.config.decision.views)
        return Margins(margins.tolist(), self._sha256_of(weights))

    @property
    def field_um(self) -> float:
        """Side in micrometres of the field that the training patches show."""
        return self.config.preprocess.field_width_um

    def margins_of(self, tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the logit margins of N x H x W x 3 RGB tiles of one size, shape (N,)."""
        return np.array(self.margins([to_uint8(tiles)]).values)

    def _inputs_of(self, opened: Sequence[NDArray[np.uint8]]) -> Tensor:
        """The network's inputs, where the network is, of opened images."""
        return self._inputs([self.ready(one) for one in opened], self._weights_now().device)

    def _inputs(self, ready: Sequence[Tensor], device: torch.device) -> Tensor:
        """What was made ready as one batch of the network's inputs on a device, in order."""
        if len(ready) == 1:
            return self._input(ready[0].to(device))
        alike = groupby(ready, lambda one: one.shape[1:])
        return torch.cat([self._input(torch.cat(list(some)).to(device)) for _, some in alike])

    def _input(self, pixels: Tensor) -> Tensor:
        config = self.config.preprocess
        if 3 * pixels.shape[0] * config.input_size**2 < SPLIT:
            return preprocess(pixels, config)
        with one_core():
            return preprocess(pixels, config)

    def explained(self, image: Image, prediction: Prediction, label: Label) -> Explanation:
        """Grad-CAM of an opened image, already predicted."""
        from bcd_models.explain.gradcam import grad_cam

        return grad_cam(self, image, prediction, label)

    def _lend(self) -> None:
        if not self._lent and self._weights:
            self._weights.state = State(self._own("network"))
        super()._lend()

    def _weights_now(self) -> _Weights:
        """What is known of the weights as they are: nothing, once they were changed."""
        weights = self._weights
        if weights is None or (self._lent and not weights.last(self._own("network"))):
            weights = self._weights = _Weights(State(self._own("network")))
        return weights

    def _sha256_of(self, weights: _Weights) -> str:
        return weights.file_sha256 or self._packed_sha256(weights)

    def _packed_sha256(self, weights: _Weights) -> str:
        if not weights.packed_sha256:
            packed = model_folder.pack(self._own("network").state_dict())
            weights.packed_sha256 = hashlib.sha256(packed).hexdigest()
        return weights.packed_sha256

    def _forward_of(self, weights: _Weights) -> Forward:
        """How logits are computed: chosen at first, and again where it has come not to fit."""
        forward = weights.forward
        if forward is None or (self._lent and not forward.fits(self._own("network"))):
            network, size = self._own("network"), self.config.preprocess.input_size
            kept_as = self._kept_as(weights)
            forward = weights.forward = forward_of(network, size, self.runtime, kept_as)
        return forward

    def _kept_as(self, weights: _Weights) -> str:
        """What the export of a file's weights is kept as; "": they are, or may be, of no file.

        Others are never taken for a file's: those that somebody got hold of are compared by value.
        """
        sha256 = weights.file_sha256
        if not sha256 or (self._lent and sha256 != self._packed_sha256(weights)):
            return ""
        return f"{sha256}-{self.config.backbone}-{self.config.preprocess.input_size}"

    def __getstate__(self) -> dict[str, Any]:
        """All but what belongs to these very tensors: a copy has its own."""
        return {**self.__dict__, "_weights": None}


@dataclass
class _Weights:
    """What is known of a network's weights while they stay as they are.

    Attributes:
        state: As they are; None: nobody got at them since they were read from a file.
        file_sha256: Of the file that they were read from; "": of none.
        packed_sha256: Of the file that they would make; "": not computed yet.
        forward: How their logits are computed; None: not chosen yet.
    """

    state: State | None = None
    file_sha256: str = ""
    packed_sha256: str = ""
    forward: Forward | None = None

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.state.device if self.state else torch.device("cpu")

    def last(self, network: nn.Module) -> bool:
        """Whether a network, which somebody got hold of, still has them."""
        return self.state is not None and self.state.lasts(network)


def margins_of(
    forward: Callable[[Tensor], NDArray[np.float32]], inputs: Tensor, views: int = 1
) -> NDArray[np.float32]:
    """Logit margins (malignant minus benign) of N x 3 x S x S inputs, shape (N,).

    Args:
        forward: Gives two logits an input, N x 2.
        inputs: As ``preprocess`` gives them.
        views: The mean over so many of the square's eight symmetries. Those of one input go
            through the network together, those of several one after the other.
    """
    if views == 1:
        return _margins(forward(inputs))
    turned = (symmetry(inputs, which) for which in range(views))
    if len(inputs) == 1:
        margins = _margins(forward(torch.cat(tuple(turned))))[:, None]
    else:
        margins = np.stack([_margins(forward(one)) for one in turned])
    exact: NDArray[np.float64] = margins.mean(0, dtype=np.float64)  # company changes no digit
    return exact.astype(np.float32)


def _margins(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    margins: NDArray[np.float32] = logits[:, 1] - logits[:, 0]
    return margins


def _network_of(backbone: str, tensors: dict[str, Tensor], where: str) -> nn.Module:
    network = create(backbone)
    _load_strictly(network, tensors, where)
    return network.eval()


def _load_strictly(network: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    wanted = network.state_dict()
    missing, surplus = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys()
    for kind, names in (("lacks", missing), ("holds surplus", surplus)):
        if names:
            raise ModelFolderError(
                f"{where} {kind} {len(names)} tensors, {min(names)} first: {model_folder.REMEDY}"
            )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ModelFolderError(
                f"{where}: {name} has shape {tuple(tensor.shape)}, "
                f"the network needs {tuple(wanted[name].shape)}: {model_folder.REMEDY}"
            )
        if not tensor.float().isfinite().all():
            raise ModelFolderError(
                f"{where}: {name} holds NaN or infinite values: {model_folder.REMEDY}"
            )
    network.load_state_dict(tensors)
