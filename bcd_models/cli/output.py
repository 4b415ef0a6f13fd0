"""What several verbs print and write: the table, errors, the notice, files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bcd_models.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from bcd_models.prediction import Prediction


def print_table_head() -> None:
    """Print the names of the table's columns."""
    typer.echo(f"{'P(malignant)':>12}  {'decision':9}  image")


def print_table_row(path: str, answer: Prediction) -> None:
    """Print an answer as a row of the table."""
    typer.echo(f"{answer.probability:12.4f}  {answer.decision:9}  {escape_controls(path)}")


def print_reasons(reasons: Mapping[str, int]) -> None:
    """Print on stderr why images are referred, and how many for each reason."""
    for reason, count in reasons.items():
        typer.echo(f"refer: {escape_controls(reason)} ({count} image{'s' * (count > 1)})", err=True)


def print_error(reason: str) -> None:
    """Print a reason on one line of stderr."""
    typer.echo(f"error: {escape_controls(reason)}", err=True)


def print_notice() -> None:
    """Print the research-use notice on stderr."""
    from bcd_models.prediction import NOTICE

    typer.echo(NOTICE, err=True)


def escape_controls(text: str) -> str:
    """Return the text on one line; what a terminal would act upon is written as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def refuse_to_overwrite(images: Iterable[Path], files: Iterable[Path]) -> None:
    """Refuse to write over an image that is read; InputError names it."""
    both = {os.path.realpath(image) for image in images} & {os.path.realpath(f) for f in files}
    if both:
        raise InputError(f"{min(both)} is an image to look at: write somewhere else")


def write_png(image: Image, path: Path) -> None:
    """Write an image as PNG; InputError where that can't be done."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_file(path, buffer.getvalue())


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file, its folder too where there is none; InputError where that can't be."""
    from bcd_models.hub.atomic import write_files

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: data})
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from None
