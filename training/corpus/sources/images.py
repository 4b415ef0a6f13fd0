"""Anybody's own labelled images, named by a list: a CSV file, one line an image."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Container, Iterable, Iterator
from functools import partial
from pathlib import Path

from bcd_models.errors import ImageError, InputError
from bcd_models.images import image_list
from bcd_models.images.image_list import COLUMNS, OPTIONAL, LabelledImage, parse_labelled
from training.corpus.sources.files import read_file
from training.corpus.sources.source import Image, Refused, Source


def read_list(path: Path) -> Iterator[LabelledImage]:
    """Yield the lines of a list.

    Raises:
        InputError: The list can't be read, or a line says what it may not.
    """
    for where, cells in image_list.read_list(path, COLUMNS, OPTIONAL):
        yield parse_labelled(cells, path, where)


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
    images: dict[Path, LabelledImage] = {}
    first: dict[str, LabelledImage] = {}
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
        caution="",
        one_label_a_case=False,
        size=None,
        mpp={},
        jpeg_quality=None,
        is_by_camera=False,
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


def _name_scale(line: LabelledImage) -> str:
    return f"mpp {line.scale.mpp_x:g}" if line.scale else "no mpp"
