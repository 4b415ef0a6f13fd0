"""What several verbs are given: images and models, as they are named on the command line."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args

import typer

from bcd_models.errors import BCDError, InputError
from bcd_models.images.image_list import find_listed, read_list
from bcd_models.images.open import image_paths
from bcd_models.images.scale import Scale, compute_scale, give_scale, parse_number
from bcd_models.prediction import Unsuitable
from bcd_models.runtime.device import choose_device

if TYPE_CHECKING:
    from bcd_models.models.predictor import Predictor

MODEL_HELP = "Folder of a model or an ensemble, or Hub id (owner/name)."


def read_number(text: str) -> float:
    """Read an option's number."""
    try:
        return parse_number(text)
    except InputError as error:  # of a ValueError typer would make its own box of many lines
        raise BCDError(str(error)) from None


def read_suitability(text: str) -> Unsuitable:
    """Read what to do with an unsuitable image."""
    for known in get_args(Unsuitable):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise BCDError(f"--suitability is refer or ignore, not {text!r}")


Images = Annotated[
    list[str],
    typer.Argument(help="Image files, folders of them, patterns, or CSV lists with path and mpp."),
]
Model = Annotated[str, typer.Option(help=MODEL_HELP)]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or mps; auto: a GPU where torch finds one.")
]
Point = Annotated[
    str | None,
    typer.Option(help="Operating point, such as screening; bcd info lists those of a model."),
]
Suitability = Annotated[
    Unsuitable,
    typer.Option(
        help="What to do with what is not H&E-stained tissue in focus: refer; or ignore, which "
        "answers all the same and records what was found.",
        parser=read_suitability,
        metavar="refer|ignore",
    ),
]
NUMBER: Any = {"parser": read_number, "metavar": "NUMBER"}
Mpp = Annotated[
    float | None,
    typer.Option(help="Micrometres a pixel, where the file doesn't say or is wrong.", **NUMBER),
]
Objective = Annotated[
    float | None,
    typer.Option(help="Magnification of the objective, with --camera-pixel.", **NUMBER),
]
CameraPixel = Annotated[
    float | None,
    typer.Option(help="Side of a pixel of the camera's sensor in micrometres.", **NUMBER),
]
Adapter = Annotated[
    float | None,
    typer.Option(help="Magnification of the camera's adapter, if it has one.", **NUMBER),
]

LIST_SUFFIX = ".csv"


class Found(NamedTuple):
    """An image to look at.

    Attributes:
        path: Its file.
        scale: Its scale, where a list says so.
    """

    path: Path
    scale: Scale | None = None


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


def choose_scale(
    mpp: float | None, objective: float | None, camera_pixel: float | None, adapter: float | None
) -> Scale | None:
    """Return the scale that is given or follows from a microscope's optics.

    Raises:
        InputError: Both are given, or an objective alone, which says nothing of a camera's image.
    """
    if objective is None and camera_pixel is None and adapter is None:
        return None if mpp is None else give_scale(mpp)
    if objective is None or camera_pixel is None:
        raise InputError("--objective and --camera-pixel go together: one alone gives no scale")
    if mpp is not None:
        raise InputError("choose --mpp or --objective with --camera-pixel")
    return compute_scale(objective, camera_pixel, 1.0 if adapter is None else adapter)


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
    return [_parse_line(cells, path, where) for where, cells in read_list(path, ["path"], ["mpp"])]


def _parse_line(cells: dict[str, str], path: Path, where: str) -> Found:
    name, mpp = cells["path"], cells["mpp"]
    file = find_listed(name, path, where)
    try:
        return Found(file, give_scale(parse_number(mpp)) if mpp else None)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
