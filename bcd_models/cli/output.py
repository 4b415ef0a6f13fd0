"""What several verbs print and write: the table, errors, the notice, files."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from bcd_models.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from bcd_models.prediction import Prediction

Item = TypeVar("Item")
SCALE_WIDTH = len("4, taken as the model's own")


def print_table_head() -> None:
    """Print the names of the table's columns."""
    typer.echo(f"{'P(malignant)':>12}  {'decision':9}  {'um a pixel':{SCALE_WIDTH}}  image")


def print_table_row(path: str, answer: Prediction) -> None:
    """Print an answer as a row of the table, a large field's with how many tiles are malignant."""
    scale = answer.scale if answer.mpp is None else f"{answer.mpp:.4g}, {answer.scale}"
    tiles = f"{answer.malignant_tiles:,} of {answer.tiles:,} tiles malignant, {answer.share:.0%}"
    from bcd_models.prediction import CAMERA

    looks = (finding for finding in answer.findings if finding.name != CAMERA)
    if left_out := sum(finding.tiles for finding in looks):
        tiles += f", {left_out:,} unsuitable"
    typer.echo(
        f"{answer.probability:12.4f}  {answer.decision:9}  {scale:{SCALE_WIDTH}}  "
        f"{escape_controls(path)}{f' ({tiles})' if answer.tiles > 1 else ''}"
    )


def print_reasons(path: str, reasons: Iterable[str]) -> None:
    """Print on stderr why an image is referred; nothing where it isn't."""
    if why := "; ".join(reasons):
        typer.echo(f"refer: {escape_controls(f'{path}: {why}')}", err=True)


def print_ignored(path: str, answer: Prediction) -> None:
    """Print on stderr what an image was answered in spite of; nothing where nothing was found."""
    from bcd_models.prediction import describe_unsuitable

    if answer.ignored:
        why = describe_unsuitable(answer.ignored, answer.judged_tiles)
        typer.echo(f"answered all the same: {escape_controls(f'{path}: {why}')}", err=True)


def print_missed(sentences: Iterable[str]) -> None:
    """Print on stderr what the operating points of negative answers missed in testing."""
    for sentence in filter(None, sentences):
        typer.echo(sentence, err=True)


def print_error(reason: str) -> None:
    """Print a reason on one line of stderr."""
    typer.echo(f"error: {escape_controls(reason)}", err=True)


def print_notice() -> None:
    """Print the research-use notice on stderr."""
    from bcd_models.prediction import NOTICE

    typer.echo(NOTICE, err=True)


def with_progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Pass items on, with a bar on a terminal that waits for many."""
    if total < 2 or not sys.stderr.isatty() or sys.stdout.isatty():
        yield from items
        return
    with typer.progressbar(items, length=total, file=sys.stderr, label=label) as bar:
        yield from bar


def escape_controls(text: str) -> str:
    """Return the text on one line; what a terminal would act upon is written as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def refuse_to_overwrite(images: Iterable[Path], files: Iterable[Path]) -> None:
    """Refuse to write over an image that is read; InputError names it."""
    both = {os.path.realpath(image) for image in images} & {os.path.realpath(f) for f in files}
    if both:
        raise InputError(f"{min(both)} is an image to look at: write somewhere else")


def refuse_existing(file: Path) -> None:
    """Refuse to write over a file that the user named; InputError names it."""
    if file.is_file():
        raise InputError(f"{file} is there already: write somewhere else, or remove it")


def write_png(image: Image, path: Path) -> None:
    """Write an image as PNG; InputError where that can't be done."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_file(path, buffer.getvalue())


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file, its folder too where there is none; InputError where that can't be."""
    from bcd_models.hub.atomic import write_files

    try:
        write_files({path: data})
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from None
