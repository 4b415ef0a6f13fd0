"""A model folder, or an ensemble's, as the Hub shall hold it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import metadata_load
from yaml import YAMLError

from bcd_models import BCDClassifier, BCDEnsemble
from bcd_models.errors import HubError, InputError
from bcd_models.hub import folder as model_folder
from training.card import write as card
from training.publish.hub import Content

CARD, ONNX = "README.md", "model.onnx"


def stage(folder: Path, beside: Path) -> Content:
    """Check a folder, and copy it to where it gets its ``model.onnx``, an ensemble's each member.

    Args:
        folder: The model's, which stays as it is.
        beside: An empty folder.

    Raises:
        InputError: It can't be loaded, or its card is missing or not what its figures make.
    """
    model = _load(folder)
    name = f"{model.config.name} {model.config.version}"
    if not _has_its_card(folder):
        raise InputError(
            f"{folder / CARD} is not what the folder's other files make: "
            f"run python -m training.card --model {folder}"
        )
    copied = shutil.copytree(folder, beside / "model")
    if isinstance(model, BCDEnsemble):
        members = "; ".join(_describe_origin(member) for member in model.members)
        return Content("model", copied, f"{name}: ensemble of {members}")
    return Content("model", copied, f"{name}: {_describe_origin(model)}")


def check_logits(published: Path, downloaded: Path) -> None:
    """Raise HubError where the downloaded model answers otherwise than the published one."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 50, 50, 3), np.uint8)
    ours, theirs = (_compute_logits(folder, list(noise)) for folder in (published, downloaded))
    if not torch.equal(ours, theirs):
        raise HubError("the downloaded model gives other logits than the published one")


def _load(folder: Path) -> BCDClassifier | BCDEnsemble:
    if model_folder.members_of(folder):
        return BCDEnsemble.from_pretrained(folder)
    return BCDClassifier.from_pretrained(folder)


def _has_its_card(folder: Path) -> bool:
    """Return whether the card is what the figures make, with a published corpus named or not."""
    path = folder / CARD
    if not path.is_file():
        return False
    try:
        named = (metadata_load(path) or {}).get("datasets") or []
    except (YAMLError, ValueError):
        return False
    text = path.read_text("utf-8")
    return any(text == card.render(folder, dataset) for dataset in ("", *named))


def _describe_origin(model: BCDClassifier) -> str:
    """Return what recipe made it, and from what."""
    provenance = model.config.provenance
    return (
        f"recipe {provenance.recipe.get('arm', 'plain')} of {model.config.backbone}, "
        f"corpus {provenance.corpus_fingerprint[:16]}"
    )


def _compute_logits(folder: Path, images: list[np.ndarray]) -> torch.Tensor:
    model: Any = _load(folder)  # an ensemble takes an input for each member
    with torch.inference_mode():
        logits: torch.Tensor = model(model.preprocess(images))
    return logits
