"""CSV lists of images: a line an image, columns by their names."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bcd_models.config import LABELS
from bcd_models.errors import InputError
from bcd_models.images.scale import Scale, give_scale, parse_number

REMEDY = "separate columns by commas, and write decimals with a point"
_OTHER_SEPARATORS = (";", "\t", "|")
_SURPLUS = "cells beyond the last column"

COLUMNS, OPTIONAL = ("path", "label", "case"), ("source", "mpp", "split")  # of labelled images
PARTS = ("train", "validation", "test")
SOURCE = "images"  # where a list names none
# A source's name becomes part of file names and case ids.
_SOURCE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True)
class LabelledImage:
    """One line of a list of labelled images.

    Attributes:
        where: The list and the line's number, in words.
        name: The image's path as the list has it.
        file: The image.
        label: "benign" or "malignant".
        case_id: "source/case".
        source: The source's name.
        scale: As stated, or None.
        part: Of the grouped split, or "" where it states none.
    """

    where: str
    name: str
    file: Path
    label: str
    case_id: str
    source: str
    scale: Scale | None
    part: str


def read_list(
    path: Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each line stands, in words, and its cells by column; "" where there is none.

    Args:
        path: A CSV file in UTF-8 whose first line names the columns; capitals don't matter.
        needed: The columns that it must have.
        optional: Those that it may have; others are passed over.

    Raises:
        InputError: The list can't be read, lacks a column, or a line has more cells than columns or
            separates them otherwise than the first.
    """
    if not path.is_file():  # to open a pipe would be to wait
        raise InputError(f"list {path} can't be read: there is no file of that name")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey=_SURPLUS, strict=True)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            if missing := [name for name in needed if name not in reader.fieldnames]:
                raise InputError(
                    f"list {path}, line 1: no column {missing[0]}; a list has {', '.join(needed)} "
                    f"and may have {', '.join(optional)}: {REMEDY}"
                )
            known = [name for name in reader.fieldnames if name in (*needed, *optional)]
            if twice := sorted({name for name in known if known.count(name) > 1}):
                raise InputError(f"list {path}, line 1: two columns {twice[0]}: keep one")
            for row in reader:
                where = f"list {path}, line {reader.line_num}"
                if _SURPLUS in row:
                    raise InputError(
                        f"{where}: more cells than columns: {REMEDY}; put text with commas in "
                        "quotes"
                    )
                written = [cell for cell in row.values() if cell is not None]
                if len(written) < len(row) and _is_separated_otherwise(written, len(row)):
                    raise InputError(f"{where}: its columns aren't separated as line 1's: {REMEDY}")
                yield where, {name: (row.get(name) or "").strip() for name in (*needed, *optional)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"list {path} can't be read: {why}; save it as CSV, in UTF-8") from None


def _is_separated_otherwise(cells: Sequence[str], columns: int) -> bool:
    """Whether a line that is short of cells has them all where another character separates."""
    return any(",".join(cells).count(other) >= columns - 1 for other in _OTHER_SEPARATORS)


def read_labelled(
    path: Path, needed: Sequence[str] = COLUMNS
) -> tuple[list[LabelledImage], list[str]]:
    """Read a list of labelled images: path, label, case, perhaps mpp, source and split too.

    Args:
        path: A CSV file, as ``read_list`` reads.
        needed: The columns that it must have, and fill in each line.

    Returns:
        The images of its good lines, and what is wrong with each of the others.

    Raises:
        InputError: The list can't be read, or lacks a column.

    Example:
        >>> images, faults = read_labelled(Path("my-images.csv"))  # doctest: +SKIP
    """
    images, faults = [], []
    optional = [name for name in (*COLUMNS, *OPTIONAL) if name not in needed]
    for where, cells in read_list(path, needed, optional):
        try:
            if "split" in needed and not cells["split"]:
                raise InputError(f"{where}: no split: name one of {', '.join(PARTS)}")
            images.append(parse_labelled(cells, path, where))
        except InputError as error:
            faults.append(str(error))
    return images, faults


def find_listed(name: str, path: Path, where: str) -> Path:
    """Return the file that a line names, relative to its list.

    Raises:
        InputError: It names none; or a pipe or device, which may never end.
    """
    if not name:
        raise InputError(f"{where}: no path")
    file = path.parent / name
    if os.path.exists(file) and not (os.path.isfile(file) or os.path.isdir(file)):
        raise InputError(f"{where}: {file} is a pipe or device, not an image")
    return file


def parse_labelled(cells: Mapping[str, str], path: Path, where: str) -> LabelledImage:
    """Parse a line of a list of labelled images.

    Args:
        cells: By column, as ``read_list`` gives those of ``COLUMNS`` and ``OPTIONAL``.
        path: The list.
        where: The list and the line's number, in words.

    Raises:
        InputError: The line says what it may not.
    """
    name, label, case, source, mpp, part = (cells[column] for column in (*COLUMNS, *OPTIONAL))
    file = find_listed(name, path, where)
    if label not in LABELS:
        raise InputError(f"{where}: label {label!r} is neither {' nor '.join(LABELS)}")
    if not case:
        raise InputError(f"{where}: no case: name what images belong together by, as a patient")
    source = source or SOURCE
    if not _SOURCE_NAME.fullmatch(source):
        raise InputError(
            f"{where}: source {source!r} is no name of at most 40 letters, digits, hyphens and "
            "underscores that begins with a letter"
        )
    if part and part not in PARTS:
        raise InputError(f"{where}: split {part!r} is none of {', '.join(PARTS)}")
    try:
        scale = give_scale(parse_number(mpp)) if mpp else None
    except InputError as error:
        raise InputError(f"{where}: mpp {mpp!r}: {error}") from None
    if Path(name).is_absolute():  # where it lies on this machine is nobody's to publish
        name = f"{case}/{file.name}"
    return LabelledImage(where, name, file, label, f"{source}/{case}", source, scale, part)
