"""The Space as the Hub shall hold it: `space/` with `bcd_models/` beside its `app.py`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import SpaceCard
from yaml import YAMLError

from bcd_models import __version__
from bcd_models.errors import InputError
from training.publish.hub import Content, check_id

ROOT = Path(__file__).resolve().parents[2]
CARD = "README.md"
# Whatever else lies in these folders (a database, an upload, a model) is nobody's to publish.
APP_SUFFIXES = {".css", ".ini", ".js", ".mako", ".md", ".png", ".py", ".svg", ".ttf", ".txt"}
TYPED = "py.typed"


def stage(folder: Path, model_ids: Sequence[str] = (), root: Path = ROOT) -> Content:
    """Copy the Space into an empty folder.

    Args:
        folder: Where to.
        model_ids: Hub ids of the models it offers, the default first; those its card names, if
            none are given.
        root: The checkout to copy from.

    Raises:
        InputError: A file that is no part of an app, a card that is no card, an id that is none.
    """
    for source, target in ((root / "space", folder), (root / "bcd_models", folder / "bcd_models")):
        for path in _list_files(source):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    models = _offer(folder / CARD, model_ids)
    return Content(
        "space", folder, f"App with bcd_models {__version__}, offering {', '.join(models)}"
    )


def _list_files(source: Path) -> list[Path]:
    """Return the files of a folder, hidden ones and Python's caches left out."""
    files = [
        path
        for path in sorted(source.rglob("*"))
        if path.is_file()
        and not any(
            part.startswith(".") or part == "__pycache__" for part in path.relative_to(source).parts
        )
    ]
    for path in files:
        if path.suffix not in APP_SUFFIXES and path.name != TYPED:
            raise InputError(f"{path} is no part of an app: move it away, nothing was published")
    return files


def _offer(path: Path, model_ids: Sequence[str]) -> list[str]:
    """Name the models in the card, from which the app knows them; returns the names."""
    for model_id in model_ids:
        check_id(model_id)
    try:
        card = SpaceCard.load(path)
    except (YAMLError, ValueError) as error:
        raise InputError(f"the Space's {path.name} can't be read: {error}") from None
    if model_ids:
        card.data.models = list(model_ids)
        card.save(path)
    if not card.data.models:
        raise InputError(f"{path.name} names no models: use --model-id")
    return list(card.data.models)
