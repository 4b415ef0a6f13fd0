"""BCDClassifier: logits, calibrated probabilities, decisions and heat maps of images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from bcd_models import folder as model_folder
from bcd_models.backbones import backbone_named, create
from bcd_models.config import ModelConfig
from bcd_models.errors import ModelFolderError
from bcd_models.images import ImageSource, Several, open_image
from bcd_models.one_core import one_core
from bcd_models.predictor import Predictor, as_list
from bcd_models.preprocess import preprocess, symmetry, to_uint8
from bcd_models.runtime import (
    Forward,
    Runtime,
    State,
    checked,
    default_runtime,
    forward_of,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from bcd_models.decision import Label
    from bcd_models.explain import Explanation
    from bcd_models.prediction import Prediction


class BCDClassifier(Predictor):
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
        self._file: tuple[str, State] | None = None  # hash of the file that its weights are of
        self._packed: tuple[str, State] | None = None  # hash of the file they would make
        self._runtime = default_runtime()
        self._forward: Forward | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Load a model folder; ModelFolderError where it can't be used."""
        model = cls(model_folder.read_config(folder))
        tensors, sha256 = model_folder.read_weights(folder)
        _load_strictly(model.network, tensors, where=str(folder / model_folder.WEIGHTS))
        model._file = sha256, State(model.network)
        return model

    @property
    def runtime(self) -> Runtime:
        """What computes the logits of ``predict``: "onnx", "torch", or "auto", the quicker here.

        Setting it takes effect at the next prediction; ``BCD_RUNTIME`` says what it is at first.
        """
        return self._runtime

    @runtime.setter
    def runtime(self, wanted: str) -> None:
        self._runtime, self._forward = checked(wanted), None

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file, or of the file these weights would be saved as."""
        known = _lasting(self._file) or _lasting(self._packed)
        if not known:
            packed = model_folder.pack(self.network.state_dict())
            known = hashlib.sha256(packed).hexdigest()
            self._packed = known, State(self.network)
        return known

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits N x 2 (benign, malignant) of N x 3 x S x S pixels from ``preprocess``."""
        logits: Tensor = self.network(pixels)
        return logits

    def preprocess(self, images: ImageSource | Several) -> Tensor:
        """The network's input, N x 3 x S x S float32, for one image or several."""
        opened = [open_image(image) for image in as_list(images)]
        return self._inputs([self.ready(image) for image in opened])

    def files(self) -> dict[str, bytes]:
        """``config.json`` and ``model.safetensors``, whose values are float16."""
        return model_folder.files_of(self.config, self.network.state_dict())

    def ready(self, image: Image) -> Tensor:
        """The network's input of an opened image, 1 x 3 x S x S float32, on the CPU.

        For a GPU a small image stays as it is, uint8: that is less to send, and resized there.
        """
        pixels = to_uint8(image).unsqueeze(0)
        small = max(image.size) <= self.config.preprocess.input_size
        if small and self._device.type == "cuda":
            return pixels
        with one_core():
            return preprocess(pixels, self.config.preprocess)

    def margins(self, inputs: Sequence[Tensor]) -> list[float]:
        """The logit margins (malignant minus benign), one an image; an input may hold several."""
        with torch.inference_mode():
            pixels = self._inputs(inputs)
            margins = margins_of(self._forward_now(), pixels, self.config.decision.views)
        return list(margins.tolist())

    def _inputs(self, ready: Sequence[Tensor]) -> Tensor:
        """What was made ready as one batch on the device, in order; uint8 is resized now."""
        batches = []
        for (_, kind), alike in groupby(ready, lambda one: (one.shape[1:], one.dtype)):
            pixels = _joined(list(alike)).to(self._device)
            resized = kind is not torch.uint8
            batches.append(pixels if resized else preprocess(pixels, self.config.preprocess))
        return _joined(batches)

    def explained(self, image: Image, prediction: Prediction, label: Label) -> Explanation:
        """Grad-CAM of an opened image, already predicted."""
        from bcd_models.explain import grad_cam

        return grad_cam(self, image, prediction, label)

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _forward_now(self) -> Forward:
        """How logits are computed: chosen at first, and again once the network was changed."""
        forward = self._forward
        if forward is None or not forward.fits():
            size, file_sha256 = self.config.preprocess.input_size, _lasting(self._file)
            forward = forward_of(self.network, size, self.runtime, file_sha256)
            self._forward = forward
        return forward

    def __getstate__(self) -> dict[str, Any]:
        """All but what belongs to these very tensors: a copy has its own."""
        return {**self.__dict__, "_forward": None, "_file": None, "_packed": None}


def _lasting(known: tuple[str, State] | None) -> str:
    """A hash that was taken of a state, while that lasts; "" otherwise."""
    return known[0] if known and known[1].lasts() else ""


def _joined(batches: Sequence[Tensor]) -> Tensor:
    return batches[0] if len(batches) == 1 else torch.cat(tuple(batches))


def margins_of(network: Callable[[Tensor], Tensor], inputs: Tensor, views: int = 1) -> Tensor:
    """Logit margins (malignant minus benign) of N x 3 x S x S inputs, N float32.

    Args:
        network: Gives two logits an input.
        inputs: As ``preprocess`` gives them.
        views: The mean over so many of the square's eight symmetries.
    """
    margins = torch.zeros(len(inputs), device=inputs.device)
    for which in range(views):
        logits = network(symmetry(inputs, which)).float()
        margins += logits[:, 1] - logits[:, 0]
    return margins / views


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
