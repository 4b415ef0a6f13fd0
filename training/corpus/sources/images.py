"""Anybody's own labelled images, named by a list: a CSV file, one line an image."""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bcd_models.config import LABELS
from bcd_models.errors import ImageError, InputError
from bcd_models.images import image_list
from bcd_models.images.scale import Scale, give_scale, parse_number
from training.corpus.sources.files import read_file
from training.corpus.sources.source import Image, Refused, Source

NAME = "images"  # of the source where a list names none
COLUMNS = ("path", "label", "case")
OPTIONAL = ("source", "mpp", "split")
PARTS = ("train", "validation", "test")
# A source's name becomes part of file names and case ids.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Line:
    """One line of a list.

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


def read_list(path: Path) -> Iterator[Line]:
    """Yield the lines of a list.

    Raises:
        InputError: The list can't be read, or a line says what it may not.
    """
    for where, cells in image_list.read_list(path, COLUMNS, OPTIONAL):
        yield _parse(cells, path, where)


def list_sources(lists: Iterable[Path], taken: Container[str]) -> dict[str, list[Path]]:
    """Return the names of sources that lists give, each with its lists.

    Raises:
        InputError: A list can't be used, or gives a name that is taken.
    """
    named: dict[str, list[Path]] = {}
    for path in dict.fromkeys(lists):
        lines = list(read_list(path))
        if not lines:
            raise InputError(f"list {path} names no image: write a line for each below the first")
        for line in lines:
            if line.source.lower() in taken:
                raise InputError(f"{line.where}: {line.source} is a data set: choose another name")
            if path not in named.setdefault(line.source, []):
                named[line.source].append(path)
    return named


def list_parts(lists: Iterable[Path]) -> dict[str, str]:
    """Return the part of each case of which lists state one.

    Raises:
        InputError: A case is in two parts, or an image is at two scales.
    """
    images: dict[Path, Line] = {}
    first: dict[str, Line] = {}
    for line in (line for path in lists for line in read_list(path)):
        again = images.setdefault(line.file, line)
        if again.scale != line.scale:
            raise InputError(
                f"{line.where}: {line.name} has {_name_scale(line)}, and {_name_scale(again)} by "
                f"{again.where}: an image has one scale"
            )
        before = first.setdefault(line.case_id, line) if line.part else line
        if before.part != line.part:
            raise InputError(
                f"{line.where}: case {line.case_id} is in {line.part}, and in {before.part} by "
                f"{before.where}: a case is in one part"
            )
    return {case: line.part for case, line in first.items()}


def describe(name: str) -> Source:
    """Return the source of a name that lists give."""
    return Source(
        name=name,
        short=name,
        title=name,
        licence="as stated by whoever handed it in",
        citation="images handed in, of which no publication is stated",
        url="",
        expected={},
        expected_cases=0,
        labels_mean="what whoever handed the images in calls benign and malignant",
        case_is="what whoever handed the images in takes for one",
        one_label_a_case=False,
        size=None,
        mpp={},
        jpeg_quality=None,
        read=partial(read, source=name),
        check=check,
        stamp=stamp,
    )


def check(path: Path) -> None:
    """Raise InputError unless every line of a list can be used and its image is there."""
    for line in read_list(path):
        if not os.path.isfile(line.file):  # unlike Path's, it bears a name that is too long
            what = "is no file" if os.path.exists(line.file) else "is missing"
            raise InputError(f"{line.where}: {line.file} {what}")


def stamp(path: Path) -> str:
    """Return what tells a list and its images from changed ones."""
    files = [path, *(line.file for line in read_list(path))]
    stamps = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stamps).encode(errors="surrogateescape")).hexdigest()


def read(path: Path, chunk: int = 0, chunks: int = 1, *, source: str) -> Iterator[Image | Refused]:
    """Yield a list's images, which are cut into tiles as those of a data set are."""
    for line in read_list(path):
        if line.source == source and zlib.crc32(line.name.encode()) % chunks == chunk:
            try:
                data = read_file(line.file)
            except ImageError as error:
                yield Refused(line.name, f"unreadable: {error}")
            else:
                yield Image(line.name, data, line.label, line.case_id, scale=line.scale)


def _name_scale(line: Line) -> str:
    return f"mpp {line.scale.mpp_x:g}" if line.scale else "no mpp"


def _parse(cells: dict[str, str], path: Path, where: str) -> Line:
    name, label, case, source, mpp, part = (cells[column] for column in (*COLUMNS, *OPTIONAL))
    if not name:
        raise InputError(f"{where}: no path")
    if label not in LABELS:
        raise InputError(f"{where}: label {label!r} is neither {' nor '.join(LABELS)}")
    if not case:
        raise InputError(f"{where}: no case: name what images belong together by, as a patient")
    source = source or NAME
    if not _NAME.fullmatch(source):
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
    file = path.parent / name
    if Path(name).is_absolute():  # where it lies on this machine is nobody's to publish
        name = f"{case}/{file.name}"
    return Line(where, name, file, label, f"{source}/{case}", source, scale, part)
