"""BCDClassifier: logits, calibrated probabilities, decisions and heat maps of images."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from bcd_models import folder as model_folder
from bcd_models.backbones import backbone_named, create
from bcd_models.config import ModelConfig
from bcd_models.errors import ModelFolderError
from bcd_models.images import ImageSource, Several, open_image
from bcd_models.predictor import Predictor, as_list
from bcd_models.preprocess import preprocess, symmetry, to_uint8

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
        self._sha256: str | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Load a model folder; ModelFolderError where it can't be used."""
        model = cls(model_folder.read_config(folder))
        tensors, sha256 = model_folder.read_weights(folder)
        _load_strictly(model.network, tensors, where=str(folder / model_folder.WEIGHTS))
        model._sha256 = sha256
        return model

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file, or of the file these weights would be saved as."""
        if self._sha256 is None:
            packed = model_folder.pack(self.network.state_dict())
            self._sha256 = hashlib.sha256(packed).hexdigest()
        return self._sha256

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits N x 2 (benign, malignant) of N x 3 x S x S pixels from ``preprocess``."""
        logits: Tensor = self.network(pixels)
        return logits

    def preprocess(self, images: ImageSource | Several) -> Tensor:
        """The network's input, N x 3 x S x S float32, for one image or several."""
        return self._pixels([open_image(image) for image in as_list(images)])

    def files(self) -> dict[str, bytes]:
        """``config.json`` and ``model.safetensors``, whose values are float16."""
        return model_folder.files_of(self.config, self.network.state_dict())

    def margins(self, images: list[Image]) -> list[float]:
        """The logit margins (malignant minus benign), one an opened image."""
        with torch.inference_mode():
            margins = margins_of(self.network, self._pixels(images), self.config.decision.views)
        return list(margins.tolist())

    def explained(self, image: Image, prediction: Prediction, label: Label) -> Explanation:
        """Grad-CAM of an opened image, already predicted."""
        from bcd_models.explain import grad_cam

        return grad_cam(self, image, prediction, label)

    def _pixels(self, images: list[Image]) -> Tensor:
        device = next(self.network.parameters()).device
        config = self.config.preprocess
        ready = [preprocess(to_uint8(image).unsqueeze(0).to(device), config) for image in images]
        return torch.cat(ready)


def margins_of(network: nn.Module, inputs: Tensor, views: int = 1) -> Tensor:
    """Logit margins (malignant minus benign) of N x 3 x S x S inputs, N float32.

    Args:
        network: Two logits.
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
