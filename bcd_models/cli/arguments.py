"""What several verbs are given: images and models, as they are named on the command line."""

from __future__ import annotations

import csv
import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from bcd_models.errors import InputError
from bcd_models.images.open import image_paths
from bcd_models.images.scale import compute_mpp, give_scale
from bcd_models.runtime.device import choose_device

if TYPE_CHECKING:
    from bcd_models.models.predictor import Predictor

MODEL_HELP = "Folder of a model or an ensemble, or Hub id (owner/name)."

Images = Annotated[
    list[str],
    typer.Argument(help="Image files, folders of them, patterns, or CSV lists with path and mpp."),
]
Model = Annotated[str, typer.Option(help=MODEL_HELP)]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or mps; auto: a GPU where torch finds one.")
]
Mpp = Annotated[
    float | None, typer.Option(help="Micrometres a pixel, where the file doesn't say or is wrong.")
]
Objective = Annotated[
    float | None,
    typer.Option(help="Magnification of the objective, with --camera-pixel."),
]
CameraPixel = Annotated[
    float | None, typer.Option(help="Side of a pixel of the camera's sensor in micrometres.")
]
Adapter = Annotated[
    float | None, typer.Option(help="Magnification of the camera's adapter, if it has one.")
]

LIST_SUFFIX = ".csv"
SURPLUS = "cells beyond the last column"


class Found(NamedTuple):
    """An image to look at.

    Attributes:
        path: Its file.
        mpp: Micrometres a pixel, where a list says so.
    """

    path: Path
    mpp: float | None = None


def find_images(arguments: list[str]) -> list[Found]:
    """Return the image files that files, folders, patterns and lists name, in their order.

    Raises:
        InputError: An argument names nothing, or a list can't be used.
    """
    found: list[Found] = []
    for argument in arguments:
        # An existing file is meant literally, whatever brackets are in its name.
        is_literal = os.path.exists(argument)
        matches = [argument] if is_literal else sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise InputError(f"no such file, folder or pattern: {argument}")
        # A pattern may match a folder and what is in it.
        images = dict.fromkeys(
            one for match in matches for one in _images_at(Path(match), is_literal)
        )
        if not images:
            kind = "list" if argument.lower().endswith(LIST_SUFFIX) else "folder"
            raise InputError(f"no image in {kind} {argument}")
        found += images
    return found


def choose_mpp(
    mpp: float | None, objective: float | None, camera_pixel: float | None, adapter: float | None
) -> float | None:
    """Return the micrometres a pixel that are given or follow from a microscope's optics.

    Raises:
        InputError: Both are given, or an objective alone, which says nothing of a camera's image.
    """
    if objective is None and camera_pixel is None and adapter is None:
        return None if mpp is None else give_scale(mpp).mpp_x
    if objective is None or camera_pixel is None:
        raise InputError("--objective and --camera-pixel go together: one alone gives no scale")
    if mpp is not None:
        raise InputError("choose --mpp or --objective with --camera-pixel")
    return compute_mpp(objective, camera_pixel, 1.0 if adapter is None else adapter)


def load_model(name: str, device: str = "cpu") -> Predictor:
    """Load a classifier or an ensemble, whichever the folder or the Hub repository holds.

    A GPU that computes is named on stderr.
    """
    from bcd_models.hub import folder as model_folder
    from bcd_models.models.classifier import BCDClassifier
    from bcd_models.models.ensemble import BCDEnsemble

    folder = model_folder.locate(name)
    kind = BCDEnsemble if model_folder.read_member_names(folder) else BCDClassifier
    chosen = choose_device(device)
    model = kind.from_folder(folder)
    if chosen != "cpu":
        model.to(chosen)
        typer.echo(f"computing on {chosen}", err=True)
    return model


def _images_at(path: Path, is_named: bool) -> list[Found]:
    if path.is_dir():
        return [Found(image) for image in image_paths(path)]
    is_list = is_named and path.suffix.lower() == LIST_SUFFIX
    return _read_list(path) if is_list else [Found(path)]


def _read_list(path: Path) -> list[Found]:
    """Return the images that a CSV file lists: path, relative to the file's folder, and mpp."""
    found: list[Found] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey=SURPLUS, strict=True)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            if "path" not in reader.fieldnames:
                raise InputError(f"list {path}, line 1: no column path; it may have mpp, too")
            found.extend(
                _parse_line(row, path, f"list {path}, line {reader.line_num}") for row in reader
            )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"list {path} can't be read: {error}; save it as CSV, in UTF-8") from None
    return found


def _parse_line(row: dict[str, str | None], path: Path, where: str) -> Found:
    if SURPLUS in row:
        raise InputError(f"{where}: more cells than columns: write numbers with a point")
    name, mpp = ((row.get(column) or "").strip() for column in ("path", "mpp"))
    if not name:
        raise InputError(f"{where}: no path")
    try:
        return Found(path.parent / name, give_scale(float(mpp)).mpp_x if mpp else None)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
