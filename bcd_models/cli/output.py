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
MAX_NAMED = 3  # images beside a reason that they share


def print_table_head() -> None:
    """Print the names of the table's columns."""
    typer.echo(f"{'decision':9}  {'P(malignant)':>12}  {'um a pixel':{SCALE_WIDTH}}  image")


def print_table_row(path: str, answer: Prediction) -> None:
    """Print an answer as a row of the table, a large field's with how many tiles are malignant.

    Of an unsuitable image it is why there is no answer, and no probability.
    """
    scale = answer.scale if answer.mpp is None else f"{answer.mpp:.4g}, {answer.scale}"
    probability, after = f"{answer.probability:.4f}", ""
    if answer.is_unsuitable:
        probability, after = "-", f": {answer.unsuitable_words}"
    elif answer.tiles > 1:
        malignant = f"{answer.malignant_tiles:,} of {answer.tiles:,} tiles malignant"
        after = f"{malignant}, {answer.share:.0%}"
        if left_out := sum(finding.tiles for finding in answer.findings):
            after += f", {left_out:,} unsuitable"
        after = f" ({after})"
    typer.echo(
        f"{answer.decision:9}  {probability:>12}  {scale:{SCALE_WIDTH}}  "
        f"{escape_controls(path)}{after}"
    )


def find_reasons(answer: Prediction) -> list[str]:
    """Return why an answer is referred, but for what its row says."""
    from bcd_models.prediction import IN_BAND

    # Where no probability is told, none is the reason.
    known = (answer.unsuitable_words, IN_BAND) if answer.is_unsuitable else ()
    return [reason for reason in answer.reasons if reason not in known]


def print_reasons(referred: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Print on stderr each reason for a referral once, with the images that it is about."""
    paths: dict[str, list[str]] = {}
    for path, reasons in referred:
        for reason in reasons:
            paths.setdefault(reason, []).append(escape_controls(path))
    for reason, some in paths.items():
        more = f" and {len(some) - MAX_NAMED:,} more" if len(some) > MAX_NAMED else ""
        typer.echo(f"refer: {', '.join(some[:MAX_NAMED])}{more}: {reason}", err=True)


def print_ignored(path: str, answer: Prediction) -> None:
    """Print on stderr what an image was answered in spite of; nothing where nothing was found."""
    from bcd_models.prediction import describe_unsuitable

    if answer.ignored:
        why = describe_unsuitable(answer.ignored, answer.judged_tiles)
        typer.echo(f"answered all the same: {escape_controls(f'{path}: {why}')}", err=True)


def describe_point(answer: Prediction) -> list[str]:
    """Return what decided an answer and, of a negative one, what that missed in testing."""
    if answer.is_unsuitable:
        return []
    at = f"Operating point {answer.point}" if answer.point else "No operating point"
    band = f", refer from {answer.refer[0]:.3f} to {answer.refer[1]:.3f}" if answer.refer else ""
    missed = [answer.missed_words] if answer.missed_words else []
    return [f"{at}: malignant from {answer.threshold:.3f}{band}.", *missed]


def print_points(sentences: Iterable[str]) -> None:
    """Print on stderr what ``describe_point`` says of some answers."""
    for sentence in sentences:
        typer.echo(sentence, err=True)


def print_error(reason: str) -> None:
    """Print a reason on one line of stderr."""
    typer.echo(f"error: {escape_controls(reason)}", err=True)


def print_warning(what: str) -> None:
    """Print on one line of stderr what to know before figures are read."""
    typer.echo(f"warning: {escape_controls(what)}", err=True)


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
