"""Which files are given to OpenSlide: it goes by content, and some content names other files.

A Hamamatsu VMS or VMU file and a MIRAX ``Slidedat.ini`` are lists of files, and OpenSlide follows
them wherever they lead; a Sakura file is a SQLite database, whose views it runs. TIFF (SVS, NDPI,
SCN and BIF too) and DICOM hold their pixels themselves.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from bcd_models.errors import ImageError

HEAD_BYTES = 132  # as far as DICOM's magic bytes reach
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
SQLITE, ZEISS_CZI = b"SQLite format 3\0", b"ZISRAWFILE"
MIRAX_INDEX = "Slidedat.ini"
MAX_LIST_BYTES = 1 << 20  # OpenSlide takes no list longer than 64 kB
MAX_SQLITE_STEPS = 10_000_000
VMS_NAMES = r"ImageFile[^=]*|MapFile|MacroImage|OptimisationFile"
MIRAX_NAMES = r"FILE_\d+|INDEXFILE"
PLAIN_TABLE = re.compile(r"CREATE\s+(TABLE|(UNIQUE\s+)?INDEX)\s", re.IGNORECASE)


def is_self_contained(head: bytes) -> bool:
    """Return whether a file's first ``HEAD_BYTES`` are a TIFF's or a DICOM file's.

    A DICOM file may begin with 128 bytes of any content, another format's too: only zeros, or a
    TIFF's beginning, are taken.
    """
    if head.startswith(TIFF):
        return True
    return head[128:132] == b"DICM" and not any(head[:128])


def refuse_unsafe_slide(path: Path) -> None:
    """Refuse what OpenSlide must not open, whatever the file's name says.

    Args:
        path: A slide that the user named.

    Raises:
        ImageError: It names files outside its own folder, is a database with more than tables, or
            is of no format that is known.
        OSError: It can't be read.
    """
    is_mirax = path.suffix.lower() == ".mrxs"
    if is_mirax:  # which OpenSlide goes by first, whatever the file itself holds
        index = path.with_suffix("") / MIRAX_INDEX
        if index.is_file():
            _refuse_names_elsewhere(index, index.read_bytes(), MIRAX_NAMES)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        text = head + file.read(MAX_LIST_BYTES)
    if is_self_contained(head):
        return
    is_list = b"Virtual Microscope Specimen]" in text
    if is_list:
        _refuse_names_elsewhere(path, text, VMS_NAMES)
    if head.startswith(SQLITE):
        _refuse_more_than_tables(path)
    elif not (is_list or is_mirax or head.startswith(ZEISS_CZI)):
        raise ImageError(
            f"{path} is no slide that OpenSlide reads: SVS, NDPI, MRXS, tiled TIFF, DICOM, ..."
        )


def _refuse_names_elsewhere(path: Path, text: bytes, names: str) -> None:
    """Refuse a list of files with a name that leads out of the list's own folder.

    Every line that could be read as such a name counts, whatever section it stands in.
    """
    folder = path.parent
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        match = re.fullmatch(rf"\s*(?:{names})\s*=\s*(.*?)\s*", line, re.S)
        if not match:
            continue
        name = match[1]
        is_plain = name not in (".", "..") and not re.search(r"[/\\\0]", name)
        if not (is_plain and (folder / name).resolve().is_relative_to(folder.resolve())):
            raise ImageError(f"{path} names a file outside its own folder: {name!r}")


def _refuse_more_than_tables(path: Path) -> None:
    """Refuse a SQLite database with views, triggers or virtual tables: OpenSlide would run them."""
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.set_progress_handler(lambda: 1, MAX_SQLITE_STEPS)
            schema = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
            is_safe = all(PLAIN_TABLE.match(str(sql)) for (sql,) in schema)
    except sqlite3.Error:
        is_safe = False
    if not is_safe:
        raise ImageError(f"{path} is a database with more in it than a slide's tables")
