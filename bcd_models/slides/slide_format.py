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
from stat import S_IFREG

from bcd_models.errors import ImageError
from bcd_models.images.open import SUFFIXES, TIFF_STARTS

DICOM_GROUP = b"\x02\0\0\0UL"  # the first element of a DICOM file: how long its head is
SQLITE, ZEISS_CZI = b"SQLite format 3\0", b"ZISRAWFILE"
MIRAX_SUFFIX, MIRAX_INDEX = ".mrxs", "Slidedat.ini"
LIST_MARK = b"Virtual Microscope Specimen]"
MAX_LIST_BYTES = 1 << 20  # OpenSlide takes no list longer than 64 kB
MAX_SQLITE_STEPS = 10_000_000
VMS_NAMES = r"ImageFile[^=]*|MapFile|MacroImage|OptimisationFile"
MIRAX_NAMES = r"FILE_\d+|INDEXFILE"
PLAIN_TABLE = re.compile(r"CREATE\s+(TABLE|(UNIQUE\s+)?INDEX)\s", re.IGNORECASE)


def is_self_contained(data: bytes) -> bool:
    """Return whether a file is a TIFF's or a DICOM file's, and nothing else.

    A DICOM file may begin with 128 bytes of any content, another format's too: only zeros are
    taken, before the group that each such file begins with. Where OpenSlide can't read either, it
    takes them for a list: for that, a line that begins with zero is a comment.

    Args:
        data: The file's first ``MAX_LIST_BYTES``, or all of it.
    """
    if LIST_MARK in data[:MAX_LIST_BYTES]:
        return False
    is_dicom = data[128:132] == b"DICM" and data[132:138] == DICOM_GROUP
    return data.startswith(TIFF_STARTS) or (is_dicom and not any(data[:128]))


def refuse_unsafe_slide(path: Path) -> None:
    """Refuse what OpenSlide must not open, whatever the file's name says.

    Args:
        path: A slide that the user named.

    Raises:
        ImageError: It is no plain file, names files outside its own folder, is a database with more
            than tables, or is of no format that is known.
        OSError: It can't be read.
    """
    is_mirax = path.name.lower().endswith(MIRAX_SUFFIX)
    if is_mirax:  # which OpenSlide goes by first, whatever the file itself holds
        index = path.parent / path.name[: -len(MIRAX_SUFFIX)] / MIRAX_INDEX
        if index.exists():
            _refuse_names_elsewhere(index, _read_beginning(index), MIRAX_NAMES)
    text = _read_beginning(path)
    if is_self_contained(text):
        return
    is_list = LIST_MARK in text
    if is_list:
        _refuse_names_elsewhere(path, text, VMS_NAMES)
    if text.startswith(SQLITE):
        _refuse_more_than_tables(path)
    elif not (is_list or is_mirax or text.startswith(ZEISS_CZI)):
        raise ImageError(
            f"{path} is no slide that OpenSlide reads: SVS, NDPI, MRXS, tiled TIFF, DICOM, ..."
            f"{suggest_predict(path)}"
        )


def suggest_predict(path: Path) -> str:
    """Return the command for an image of a field, where a file's name is an image's; else ""."""
    is_image = path.suffix.lower() in SUFFIXES
    return f"; for an image of a field: bcd predict {path} --mpp NUMBER" if is_image else ""


def _read_beginning(path: Path) -> bytes:
    """Return as much of a file as a list may have; ImageError where it is a pipe or a device."""
    if not path.stat().st_mode & S_IFREG:
        raise ImageError(f"{path} is no plain file")
    with path.open("rb") as file:
        return file.read(MAX_LIST_BYTES)


def _refuse_names_elsewhere(path: Path, text: bytes, names: str) -> None:
    """Refuse a list of files with a name that leads out of the list's own folder.

    Every line that could be read as such a name counts, whatever section it stands in. A name with
    blanks at its ends is refused: which of them count is the reader's secret.
    """
    folder = path.parent
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        match = re.fullmatch(rf"\s*(?:{names})\s*=[ \t]*(.*?)\r?", line, re.S)
        if not match:
            continue
        name = match[1]
        is_plain = name not in (".", "..") and name == name.strip()
        if not is_plain or re.search(r"[/\\\0]", name):
            raise ImageError(f"{path} names a file outside its own folder: {name!r}")
        named = folder / name
        if not named.resolve().is_relative_to(folder.resolve()):
            raise ImageError(f"{path} names a file outside its own folder: {name!r}")
        if named.exists() and not named.is_file():
            raise ImageError(f"{path} names what is no plain file: {name!r}")


def _refuse_more_than_tables(path: Path) -> None:
    """Refuse a SQLite database with views, triggers or virtual tables: OpenSlide would run them."""
    beside = [path.with_name(f"{path.name}{ending}") for ending in ("-wal", "-journal")]
    if any(map(Path.exists, beside)):  # of which SQLite would make more tables, or views
        raise ImageError(f"{path} is a database that is being written")
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
