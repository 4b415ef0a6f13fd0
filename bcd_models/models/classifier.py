"""BCDClassifier: calibrated probabilities, decisions and heat maps of images, by one network."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from bcd_models.config import Graph, ModelConfig
from bcd_models.errors import InputError, ModelFolderError
from bcd_models.hub import folder as model_folder
from bcd_models.images.open import ImageSource, Several, open_pixels
from bcd_models.images.preprocess import normalise, resize, turn
from bcd_models.models.backbones import create_network, get_backbone, write_config
from bcd_models.models.predictor import MapAsk, Margins, Predictor, as_list
from bcd_models.runtime.choice import (
    Runtime,
    check_runtime,
    default_runtime,
    is_torch_installed,
    require_torch,
)
from bcd_models.runtime.graph import can_export, export_graph
from bcd_models.runtime.onnx_forward import OnnxForward, is_onnxruntime_installed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor, nn

    from bcd_models.config import CameraValidation, SuitabilityConfig
    from bcd_models.explanation import Explanation
    from bcd_models.images.field import TissueField
    from bcd_models.prediction import Prediction
    from bcd_models.runtime.torch_forward import TorchForward

    Forward = OnnxForward | TorchForward

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Stored:
    """What a model's folder holds.

    Attributes:
        weights: The bytes of its weights file.
        sha256: Their SHA-256.
        where: The file, as errors call it.
        graphs: The ONNX graphs that point into them, by file name.
    """

    weights: bytes
    sha256: str
    where: str
    graphs: dict[str, bytes]


class BCDClassifier(Predictor):
    """A breast-histopathology patch classifier: benign or malignant.

    Research use only: an aid to, and no replacement for, a pathologist.

    A model from a folder that carries an export (``model.onnx``) answers by ONNX Runtime and never
    imports torch. ``network`` is the one door to the torch network, also behind ``model(pixels)``,
    ``to``, ``half``, ``train``, ``eval``, ``parameters`` and ``state_dict``: whoever has taken it
    gets the live network, and torch answers from then on. A network in training mode is answered
    for in evaluation mode; predicting changes no weight and no batch-norm statistic.

    Args:
        config: What travels with the weights.
        network: A timm network with two logits; a fresh one with random weights by default.

    Example:
        >>> from bcd_models import BCDClassifier
        >>> model = BCDClassifier.from_pretrained("cards/bcd-mobilenetv2")
        >>> model.predict("space/examples/synthetic-benign-1.png").decision
        'benign'
    """

    config: ModelConfig

    def __init__(self, config: ModelConfig, network: nn.Module | None = None) -> None:
        self._set_up(config, None)
        self.network = (
            network or create_network(config.backbone, config.preprocess.input_size)
        ).eval()

    def _set_up(self, config: ModelConfig, stored: _Stored | None) -> None:
        self.config = config
        self.backbone = get_backbone(config.backbone)
        self._stored = stored
        self._network: nn.Module | None = None
        self._is_taken = False
        self._runtime = default_runtime()
        self._forward: Forward | None = None
        self._lock = RLock()

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Load a model folder; ModelFolderError where it can't be used."""
        config = model_folder.read_config(folder)
        _check_architecture(config, folder)
        weights, sha256 = model_folder.read_weights(folder)
        graphs = model_folder.read_graphs(folder, config, sha256)
        model_folder.check_calibrated(folder, config, sha256)
        model = cls.__new__(cls)
        model._set_up(config, _Stored(weights, sha256, str(folder / model_folder.WEIGHTS), graphs))
        if model_folder.GRAPH not in graphs:
            model._own_network()
        else:  # which was made of these weights, but by whom?
            model_folder.refuse_infinite(weights, str(folder / model_folder.WEIGHTS))
        return model

    @property
    def network(self) -> nn.Module:
        """The torch network, live: from now on torch answers, by whatever becomes of it."""
        with self._lock:
            network = self._own_network()
            if not self._is_taken:
                self._is_taken, self._forward = True, None
            return network

    @network.setter
    def network(self, network: nn.Module) -> None:
        with self._lock:
            self._network, self._is_taken, self._forward = network, True, None

    def __call__(self, pixels: NDArray[np.float32] | Tensor) -> Tensor:
        """Return the live network's logits N x 2 (benign, malignant).

        Args:
            pixels: N x 3 x S x S, as ``preprocess`` gives them.
        """
        import torch

        network = self.network
        first = next(network.parameters())
        inputs = pixels if isinstance(pixels, torch.Tensor) else torch.from_numpy(pixels)
        logits: Tensor = network(inputs.to(first.device, first.dtype))
        return logits

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the network to a device or dtype, as ``torch.nn.Module.to`` does; returns self."""
        self.network.to(*args, **kwargs)
        return self

    def half(self) -> Self:
        """Turn the network's numbers into float16; returns self."""
        return self.to(_torch().float16)

    def train(self, mode: bool = True) -> Self:
        """Put the network into training mode, or out of it; returns self."""
        self.network.train(mode)
        return self

    def eval(self) -> Self:
        """Put the network into evaluation mode; returns self."""
        return self.train(False)

    def parameters(self) -> Any:
        """Return an iterator over the network's parameters."""
        return self.network.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the network's tensors by name."""
        return self.network.state_dict()

    @property
    def runtime(self) -> Runtime:
        """What computes the logits of ``predict``: "onnx", "torch", or "auto".

        "auto" is ONNX Runtime where it is installed, the folder carries an export and nobody has
        taken the network; torch elsewhere. Setting it takes effect at the next prediction;
        ``BCD_RUNTIME`` says what it is at first.
        """
        return self._runtime

    @runtime.setter
    def runtime(self, wanted: str) -> None:
        with self._lock:
            self._runtime, self._forward = check_runtime(wanted), None

    @property
    def has_export(self) -> bool:
        """Whether the folder that it was loaded from carries an ONNX graph of its weights."""
        return self._stored is not None and model_folder.GRAPH in self._stored.graphs

    @property
    def has_gradient_export(self) -> bool:
        """Whether that folder carries a graph of the gradient map, which needs no torch."""
        return self._stored is not None and model_folder.GRADIENT_GRAPH in self._stored.graphs

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file, or of the file that a taken network would be saved as."""
        if self._stored and not self._is_taken:
            return self._stored.sha256
        return hashlib.sha256(model_folder.pack(self._own_network().state_dict())).hexdigest()

    @property
    def parameter_count(self) -> int:
        """How many numbers of the network are learnt."""
        if self._stored and not self._is_taken:
            return model_folder.count_parameters(self._stored.weights)
        return sum(parameter.numel() for parameter in self._own_network().parameters())

    def preprocess(self, images: ImageSource | Several) -> Tensor:
        """Return the network's input, N x 3 x S x S float32 on the CPU, of one image or several.

        Each image is taken as one tile; ``predict`` cuts tiles by scale.
        """
        ready = [self.prepare(open_pixels(image)) for image in as_list(images)]
        inputs: Tensor = _torch().from_numpy(self._inputs(ready))
        return inputs

    def files(self) -> dict[str, bytes]:
        """Return ``config.json``, ``model.safetensors`` and the graphs that can be made.

        These are ``model.onnx`` and, where the gradient can be traced, ``explain.onnx``.
        Weights are float16. Where nobody has taken the network, they are those it came with. A
        local calibration isn't written with other weights than it was fitted with.
        """
        if self._stored and not self._is_taken:
            weights, graphs = self._stored.weights, self._stored.graphs
        else:
            weights, graphs = model_folder.pack(self._own_network().state_dict()), {}
        missing = [name for name in model_folder.GRAPHS if name not in graphs]
        if missing and can_export():
            graphs = graphs | _export(self.config, weights, missing)
        weights_sha256 = hashlib.sha256(weights).hexdigest()
        named = {
            name: Graph(sha256=hashlib.sha256(graph).hexdigest(), weights_sha256=weights_sha256)
            for name, graph in graphs.items()
        }
        config = self.config.drop_other_weights(weights_sha256)
        text = write_config(config.model_copy(update={"graphs": named}))
        return {model_folder.WEIGHTS: weights, **graphs, model_folder.CONFIG: text.encode()}

    def prepare(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image's pixels as the square that the network takes, S x S x 3."""
        return resize(pixels, self.config.preprocess.input_size)

    def compute_margins(
        self, inputs: Sequence[NDArray[np.uint8]], as_tiles: bool = False
    ) -> Margins:
        """Return the logit margins (malignant minus benign) of images that ``prepare`` prepared."""
        forward, config = self._get_forward(), self.config
        views = (config.for_tiles if as_tiles else config.decision).views
        margins = average_margins(forward.logits, self._inputs(inputs), views)
        return Margins(margins.tolist(), forward.name)

    @property
    def tile_views(self) -> int:
        """How many views a tile of a slide or large field gets."""
        return self.config.for_tiles.views

    @property
    def field_um(self) -> float:
        """Side in micrometres of the field that the training patches show."""
        return self.config.preprocess.field_width_um

    @property
    def mpp(self) -> float:
        """Micrometres a pixel of the training patches."""
        return self.config.preprocess.mpp

    @property
    def white_point(self) -> bool:
        """Whether the colour of a slide's or large field's glass is divided out."""
        return self.config.preprocess.white_point

    @property
    def suitability(self) -> SuitabilityConfig | None:
        """What tells tissue from what the model knows nothing of; None: nothing is refused."""
        return self.config.suitability

    @property
    def cameras(self) -> CameraValidation | None:
        """How it does on microscope cameras' fields; None: the folder doesn't say."""
        return self.config.cameras

    def margins_of(self, tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the logit margins of N x H x W x 3 RGB tiles of one size, shape (N,)."""
        ready = [self.prepare(tile) for tile in tiles]
        return np.array(self.compute_margins(ready, as_tiles=True).values)

    def explain_opened(
        self, image: Image, field: TissueField, prediction: Prediction, ask: MapAsk
    ) -> Explanation:
        """Return the heat map of an opened image, already predicted; each tile has its own."""
        from bcd_models.explain.draw import draw_map
        from bcd_models.explain.methods import get_method
        from bcd_models.explanation import Explanation

        forward, method = self.prepare_method(ask.method)
        how, size = get_method(method), (field.layout.tile, field.layout.tile)
        rule = self.config.for_tiles if field.shown.size > 1 else self.config.decision
        rule = rule.at(prediction.point or None)
        maps = (
            draw_map(how, forward, self._inputs([tile]), rule, ask.label, size, ask.views)
            for tile in map(self.prepare, field.tiles)
        )
        heatmap = field.lay_out(maps)
        return Explanation(image, ask.label, heatmap, prediction, field.seen, method=method)

    def prepare_method(self, method: str) -> tuple[Forward, str]:
        """Return what computes a method's maps, and the method: another where that can't be."""
        from bcd_models.explain.methods import FALLBACK, get_method

        forward, asked = self._get_forward(), get_method(method).asks
        if asked in forward.gives:
            return forward, method
        if asked != "network" and not is_torch_installed():
            log.warning("%s needs torch: %s in its place", method, FALLBACK)
            return forward, FALLBACK
        return self._torch_forward(), method

    def _inputs(self, ready: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return normalise(ready, self.config.preprocess)

    def _get_forward(self) -> Forward:
        """Return what computes logits, chosen at the first answer."""
        forward = self._forward
        if forward is None:
            with self._lock:
                forward = self._forward = self._forward or self._choose_forward()
        return forward

    def _choose_forward(self) -> Forward:
        if self._runtime == "torch":
            return self._torch_forward()
        if self._is_taken:
            why = "the network was taken, so torch answers for whatever becomes of it"
        elif self._stored is None or not self.has_export:
            why = f"the model carries no {model_folder.GRAPH}: bcd export writes it"
        elif not is_onnxruntime_installed():
            why = "onnxruntime isn't installed: pip install onnxruntime"
        else:
            try:
                graphs = self._stored.graphs
                return OnnxForward(
                    graphs[model_folder.GRAPH],
                    self._stored.weights,
                    graphs.get(model_folder.GRADIENT_GRAPH),
                )
            except Exception as error:  # whatever the session throws
                why = f"ONNX Runtime can't be used ({type(error).__name__}: {error})"
                log.warning("%s: torch answers in its place", why)
        if self._runtime == "onnx":
            raise InputError(why)
        return self._torch_forward()

    def _torch_forward(self) -> TorchForward:
        network = self._own_network()
        from bcd_models.runtime.torch_forward import TorchForward

        return TorchForward(network)

    def _own_network(self) -> nn.Module:
        """Return the network, made of the stored weights where nobody has asked for it before."""
        with self._lock:
            if self._network is None:
                assert self._stored is not None
                self._network = _load_network(self.config, self._stored.weights, self._stored.where)
            return self._network

    def __copy__(self) -> Self:
        """Return a copy with a network of its own: a shared one could be taken from either."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process: sessions and the lock."""
        return {**self.__dict__, "_forward": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=RLock())


def average_margins(
    logits_of: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    inputs: NDArray[np.float32],
    views: int = 1,
) -> NDArray[np.float32]:
    """Return the logit margins (malignant minus benign) of N x 3 x S x S inputs, shape (N,).

    Args:
        logits_of: Gives two logits an input, N x 2.
        inputs: As ``preprocess`` gives them.
        views: The mean over so many of the square's eight symmetries, the four turns first.
            Those of one input go through the network together, those of several one after the
            other.
    """
    turned = (turn(inputs, which) for which in range(views))
    if len(inputs) == 1:  # all views in one pass
        logits = logits_of(np.concatenate(tuple(turned)))[:, None]
    else:
        logits = np.stack([logits_of(one) for one in turned])
    margins = logits[..., 1] - logits[..., 0]
    exact: NDArray[np.float64] = margins.mean(0, dtype=np.float64)  # company changes no digit
    return exact.astype(np.float32)


def _torch() -> Any:
    require_torch("the network")
    import torch

    return torch


def _check_architecture(config: ModelConfig, folder: Path) -> None:
    """Refuse a config whose backbone is unknown, or another than what timm would load."""
    where = folder / model_folder.CONFIG
    try:
        expected = get_backbone(config.backbone).timm_name
    except InputError as error:
        raise ModelFolderError(f"{where}: {error}") from None
    if model_folder.read_document(folder).get("architecture") != expected:
        raise ModelFolderError(f"{where}: 'architecture' contradicts the 'bcd' object beside it")


def _export(config: ModelConfig, weights: bytes, wanted: Sequence[str]) -> dict[str, bytes]:
    """Return the graphs of a file of weights, as they are stored, in float16."""
    from bcd_models.runtime.gradient_graph import export_gradient_graph

    kinds: dict[str, Callable[[nn.Module, int, bytes], bytes | None]] = {
        model_folder.GRAPH: export_graph,
        model_folder.GRADIENT_GRAPH: export_gradient_graph,
    }
    network = _load_network(config, weights, "the model")
    size = config.preprocess.input_size
    made = {name: kinds[name](network, size, weights) for name in wanted}
    return {name: graph for name, graph in made.items() if graph is not None}


def _load_network(config: ModelConfig, weights: bytes, where: str) -> nn.Module:
    """Make the network of stored weights, in evaluation mode."""
    with _torch().inference_mode(False):  # whatever the caller's mode
        network = create_network(config.backbone, config.preprocess.input_size)
        _load_strictly(network, model_folder.unpack(weights, where), where)
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
