"""A zip archive seen through some entries of its directory.

``zipfile`` keeps an object for every entry: the Kaggle archive's 555,048 cost 300 MB in each
process that reads from it. Here ``zipfile`` is shown the archive with only the wanted entries left
in its directory, so that reading, decompressing and checking remain its own.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import IO

# Records of PKWARE's APPNOTE.TXT, sections 4.3.12 and 4.3.14 to 4.3.16.
_ENTRY = Struct("<4s4xH18x3H12x")
_END64 = Struct("<4sQ2H2L4Q")
_LOCATOR = Struct("<4sLQL")
_END = Struct("<4s4H2LH")
_MAX_COMMENT = 2**16
_UTF8 = 0x800


def open_some(path: Path, wanted: Callable[[str], bool]) -> zipfile.ZipFile:
    """Open an archive with only those entries in view whose name is wanted.

    Raises:
        zipfile.BadZipFile: The directory is damaged.
    """
    with path.open("rb") as file:
        start, offset, size = _find_directory(file)
        file.seek(start)
        entries = [entry for name, entry in _read_entries(file, size) if wanted(name)]
    shown = _View(path, start, b"".join(entries) + _close_directory(start, offset, entries))
    return zipfile.ZipFile(io.BufferedReader(shown))


def _find_directory(file: IO[bytes]) -> tuple[int, int, int]:
    """Return where the directory starts, where the archive says it does, and its size in bytes.

    The two starts differ where something was put before the archive.
    """
    length = file.seek(0, io.SEEK_END)
    tail_at = file.seek(max(0, length - _END.size - _MAX_COMMENT))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise zipfile.BadZipFile("no end of the directory")
    *_, size, offset, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    if tail[max(0, at - _LOCATOR.size) : at].startswith(b"PK\6\7"):
        end -= _LOCATOR.size + _END64.size
        file.seek(max(0, end))
        *_, size, offset = _END64.unpack(file.read(_END64.size))
    if size > end:
        raise zipfile.BadZipFile("a directory larger than the file")
    return end - size, offset, size


def _read_entries(file: IO[bytes], size: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and record of each entry of a directory of so many bytes."""
    while size > 0:
        head = file.read(_ENTRY.size)
        if len(head) < _ENTRY.size or not head.startswith(b"PK\1\2"):
            raise zipfile.BadZipFile("a damaged directory")
        _, flags, name, extra, comment = _ENTRY.unpack(head)
        rest = file.read(name + extra + comment)
        size -= len(head) + len(rest)
        yield rest[:name].decode("utf-8" if flags & _UTF8 else "cp437", "replace"), head + rest


def _close_directory(start: int, offset: int, entries: list[bytes]) -> bytes:
    """Return the records that close a directory, in their 64-bit form whatever its size."""
    count, size = len(entries), sum(map(len, entries))
    full16, full32 = 2**16 - 1, 2**32 - 1
    end64 = _END64.pack(b"PK\6\6", _END64.size - 12, 45, 45, 0, 0, count, count, size, offset)
    locator = _LOCATOR.pack(b"PK\6\7", 0, start + size, 1)
    end = _END.pack(b"PK\5\6", 0, 0, full16, full16, full32, full32, 0)
    return end64 + locator + end


class _View(io.RawIOBase):
    """A file up to where its directory starts, then other bytes."""

    def __init__(self, path: Path, start: int, rest: bytes) -> None:
        self._file = path.open("rb", buffering=0)
        self._start, self._rest, self._at = start, rest, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = (0, self._at, self._start + len(self._rest))[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        beyond = self._at - self._start
        if beyond >= 0:
            data = self._rest[beyond : beyond + len(buffer)]
        else:
            self._file.seek(self._at)
            data = self._file.read(min(len(buffer), -beyond))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
