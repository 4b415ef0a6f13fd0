"""BCDClassifier: logits, calibrated probabilities, decisions and heat maps of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self, overload

import torch
from torch import Tensor, nn

from bcd_models import folder as model_folder
from bcd_models.backbones import backbone_named, create
from bcd_models.config import ModelConfig
from bcd_models.decision import Label, calibrate, label_of, referred
from bcd_models.errors import ImageError, ModelFolderError
from bcd_models.images import ImageLimits, ImageSource, Several, open_image
from bcd_models.prediction import Prediction
from bcd_models.preprocess import preprocess, symmetry, to_uint8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from bcd_models.explain import Explanation

BATCH = 32


class BCDClassifier(nn.Module):
    """A breast-histopathology patch classifier: benign or malignant.

    Research use only: an aid to, and no replacement for, a pathologist.

    Args:
        config: What travels with the weights.
        network: A timm network with two logits; a fresh one with random weights by default.
    """

    def __init__(self, config: ModelConfig, network: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone_named(config.backbone)
        self.network = (network or create(config.backbone)).eval()
        self._sha256: str | None = None

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Load a model folder, or a Hub repository of the same files.

        Args:
            folder_or_id: An existing folder wins; anything else is a Hub id, "owner/name".
            revision: Branch, tag or commit on the Hub.
            token: Hub token, for private repositories.
            cache_dir: Where downloads are kept.
            local_files_only: Never reach for the network.
            force_download: Download even what is in the cache.

        Raises:
            ModelFolderError: Missing, incomplete, of another format, or newer than this release.
        """
        options = model_folder.HubOptions(
            revision, token, cache_dir, local_files_only, force_download
        )
        folder = model_folder.locate(folder_or_id, options)
        model = cls(model_folder.read_config(folder))
        tensors, sha256 = model_folder.read_weights(folder)
        _load_strictly(model.network, tensors, where=str(folder / model_folder.WEIGHTS))
        model._sha256 = sha256
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` (float16) into a folder."""
        model_folder.write(Path(folder), self.config, self.network.state_dict())

    def push_to_hub(
        self, repo_id: str, *, token: str | None = None, private: bool | None = None
    ) -> str:
        """Publish the model's folder on the Hub; returns the commit's address."""
        import tempfile

        with tempfile.TemporaryDirectory() as temporary:
            self.save_pretrained(temporary)
            return model_folder.push(Path(temporary), repo_id, token, private)

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
        return self._pixels([open_image(image) for image in _as_list(images)])

    @overload
    def predict(self, images: Several, limits: ImageLimits = ...) -> list[Prediction]: ...

    @overload
    def predict(self, images: ImageSource, limits: ImageLimits = ...) -> Prediction: ...

    def predict(
        self,
        images: ImageSource | Several,
        limits: ImageLimits = ImageLimits(),
    ) -> Prediction | list[Prediction]:
        """Answer for one image, or for each of a list or tuple.

        Raises:
            ImageError: An image can't be used; the message says which and why.
        """
        answers = []
        for _, answer in self.stream(_as_list(images), limits):
            if isinstance(answer, ImageError):
                raise answer
            answers.append(answer)
        return answers if isinstance(images, (list, tuple)) else answers[0]

    def stream(
        self, images: Iterable[ImageSource], limits: ImageLimits = ImageLimits()
    ) -> Iterator[tuple[ImageSource, Prediction | ImageError]]:
        """Answer for each of any number of images, in order; a bad image costs itself only."""
        rest = iter(images)
        while sources := list(islice(rest, BATCH)):
            opened = [_open_or_error(source, limits) for source in sources]
            margins = iter(self._margins([i for i in opened if not isinstance(i, ImageError)]))
            for source, image in zip(sources, opened, strict=True):
                if isinstance(image, ImageError):
                    yield source, image
                else:
                    yield source, self.answer(image, next(margins), _name_of(source))

    def predict_proba(self, images: Several) -> NDArray[np.float64]:
        """Calibrated P(malignant) of each image, shape (N,), in [0, 1]."""
        import numpy as np

        return np.array([answer.probability for answer in self.predict(images)])

    def explain(
        self,
        image: ImageSource,
        label: Label | None = None,
        limits: ImageLimits = ImageLimits(),
    ) -> Explanation:
        """Show which regions speak for a label, as a Grad-CAM heat map.

        Args:
            image: One image.
            label: The label to explain; the predicted one by default.
            limits: What is refused by size.

        Raises:
            ImageError: The image can't be used; the message says why.
        """
        from bcd_models.explain import grad_cam

        opened = open_image(image, limits)
        prediction = self.answer(opened, self._margins([opened])[0], _name_of(image))
        return grad_cam(self, opened, prediction, label or prediction.label)

    def answer(self, image: Image, margin: float, name: str) -> Prediction:
        """The prediction that follows from a logit margin (malignant minus benign)."""
        decision = self.config.decision
        probability = float(calibrate(margin, decision))
        label = label_of(probability, decision)
        refer = referred(probability, decision)
        return Prediction(
            name=name,
            label=label,
            probability=probability,
            decision="refer" if refer else label,
            reasons=("the probability lies within the referral band",) if refer else (),
            threshold=decision.threshold,
            refer=decision.refer,
            model=self.config.name,
            model_version=self.config.version,
            weights_sha256=self.weights_sha256,
            width=image.width,
            height=image.height,
        )

    def _margins(self, images: list[Image]) -> list[float]:
        if not images:
            return []
        with torch.inference_mode():
            margins = margins_of(self.network, self._pixels(images), self.config.decision.views)
        return list(margins.tolist())

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


def _as_list(images: ImageSource | Several) -> Several:
    return images if isinstance(images, (list, tuple)) else [images]


def _open_or_error(source: ImageSource, limits: ImageLimits) -> Image | ImageError:
    try:
        return open_image(source, limits)
    except ImageError as error:
        return error


def _name_of(source: ImageSource) -> str:
    return Path(source).name if isinstance(source, (str, Path)) else "image"


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
