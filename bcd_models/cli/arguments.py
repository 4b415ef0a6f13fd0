"""What several verbs are given: images and models, as they are named on the command line."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd_models.errors import InputError
from bcd_models.images.open import image_paths

if TYPE_CHECKING:
    from bcd_models.models.predictor import Predictor

MODEL_HELP = "Folder of a model or an ensemble, or Hub id (owner/name)."

Images = Annotated[list[str], typer.Argument(help="Image files, folders of them, or patterns.")]
Model = Annotated[str, typer.Option(help=MODEL_HELP)]


def find_images(arguments: list[str]) -> list[Path]:
    """Return the image files that files, folders and patterns name, in their order.

    Raises:
        InputError: An argument names nothing.
    """
    paths: list[Path] = []
    for argument in arguments:
        # An existing file is meant literally, whatever brackets are in its name.
        is_literal = os.path.exists(argument)
        matches = [argument] if is_literal else sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise InputError(f"no such file, folder or pattern: {argument}")
        # A pattern may match a folder and what is in it.
        images = dict.fromkeys(path for match in matches for path in _images_at(Path(match)))
        if not images:
            raise InputError(f"no image in folder {argument}")
        paths += images
    return paths


def load_model(name: str) -> Predictor:
    """Load a classifier or an ensemble, whichever the folder or the Hub repository holds."""
    from bcd_models.hub import folder as model_folder
    from bcd_models.models.classifier import BCDClassifier
    from bcd_models.models.ensemble import BCDEnsemble

    folder = model_folder.locate(name)
    kind = BCDEnsemble if model_folder.read_member_names(folder) else BCDClassifier
    return kind.from_folder(folder)


def _images_at(path: Path) -> list[Path]:
    return image_paths(path) if path.is_dir() else [path]
