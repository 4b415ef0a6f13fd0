"""The files of a folder or an archive, streamed: nothing is unpacked to disk.

Links are followed, and each folder is read once, so that loops end. What is no file (a named pipe,
a link to nowhere) is never opened. What systems leave beside people's files is passed over.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

from bcd_models.errors import InputError
from training.corpus.sources.zip_view import open_some

_COMPRESSED: dict[bytes, Callable[..., IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_TAR_END = 1024  # bytes of zeros
_ENCRYPTED = 1  # of an entry's flags
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
)

_METHODS = {9: "Deflate64", 93: "Zstandard"}  # those of PKWARE's APPNOTE.TXT that people meet
_LEFTOVER_FOLDERS = frozenset({"__MACOSX", ".ipynb_checkpoints"})
_LEFTOVER_START = "._"

NamedFile = tuple[str, Callable[[], bytes]]


def check(path: Path) -> None:
    """Raise InputError unless this is a folder with a PNG, or a zip or tar archive that opens."""
    if path.is_dir():
        if not any(map(_is_png, _walk(path))):
            raise InputError(f"no PNG file below folder {path}: name the folder the data set is in")
        return
    if not path.is_file():
        what = "a pipe or device, which isn't opened" if path.exists() else "missing"
        raise InputError(f"no such folder or archive: {path} is {what}")
    if not zipfile.is_zipfile(path) and not tarfile.is_tarfile(path):
        raise InputError(
            f"{path} is neither a folder nor a zip or tar archive; if it was one, it is cut short: "
            "download it again"
        )


def stamp(path: Path) -> str:
    """Return what tells a folder or archive from a changed one: names, sizes, times of writing."""
    if path.is_file():
        return repr(_size_and_time(path.stat()))
    stamps = sorted(
        (name, *_size_and_time(os.stat(name, follow_symlinks=os.path.exists(name))))
        for name in _walk(path)
    )
    return hashlib.sha256(repr(stamps).encode(errors="surrogateescape")).hexdigest()


def is_splittable(path: Path) -> bool:
    """Return whether chunks of it can be read without reading the rest: not so of a tar archive."""
    return path.is_dir() or zipfile.is_zipfile(path) or not tarfile.is_tarfile(path)


def list_png_files(path: Path, chunk: int = 0, chunks: int = 1) -> Iterator[NamedFile]:
    """Yield the name of each PNG (forward slashes, from the root) and what reads its bytes.

    Bytes can be read until the next name is asked for; there are none where a name is no file's.

    Args:
        path: A folder, or a zip or tar archive.
        chunk: Which chunk to read, from 0.
        chunks: Into how many chunks files fall, by their own names, wherever they lie.

    Raises:
        InputError: The archive is damaged, or packed as can't be read here.
    """
    kind = _walk_folder if path.is_dir() else _read_zip if zipfile.is_zipfile(path) else _read_tar

    def is_wanted(name: str) -> bool:
        file = name.rpartition("/")[2].encode(errors="surrogateescape")
        return zlib.crc32(file) % chunks == chunk and _is_png(name)

    with _explain_damage(path):
        for name, read in kind(path, is_wanted):
            yield name, partial(_read_checked, path, read)


@contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged or cut short ({error}): download it again") from None


def _read_checked(path: Path, read: Callable[[], bytes]) -> bytes:
    with _explain_damage(path):
        return read()


def _is_png(name: str) -> bool:
    """Return whether a path is a PNG file's by its name, and none that a system left."""
    if not name.lower().endswith(".png"):
        return False
    *folders, file = name.split("/")
    return not file.startswith(_LEFTOVER_START) and _LEFTOVER_FOLDERS.isdisjoint(folders)


def _walk(path: Path) -> Iterator[str]:
    """Yield the path of everything below a folder that is no folder."""
    entered = set()
    for folder, folders, files in os.walk(path, onerror=_refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders.sort()  # so that of two ways to a folder it is always the same one
        yield from (os.path.join(folder, name) for name in files)


def _refuse(error: OSError) -> NoReturn:
    raise InputError(
        f"{error.filename} can't be read ({error.strerror}): make it readable"
    ) from None


def _walk_folder(path: Path, wanted: Callable[[str], bool]) -> Iterator[NamedFile]:
    for file in map(Path, _walk(path)):
        name = file.relative_to(path).as_posix()
        if wanted(name):
            yield name, partial(read_file, file)


def read_file(file: Path) -> bytes:
    """Return a file's bytes, none where it is a pipe or gone; InputError where it is locked."""
    try:
        return file.read_bytes() if file.is_file() else b""  # to open a pipe would be to wait
    except OSError as error:
        _refuse(error)


def _read_zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[NamedFile]:
    with open_some(path, wanted) as archive:
        for entry in archive.infolist():
            yield entry.filename, partial(_read_entry, path, archive, entry)


def _read_entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(entry)
    except RuntimeError as error:  # which NotImplementedError is one of
        if entry.flag_bits & _ENCRYPTED:
            how = "is encrypted, and no password is asked for here: unpack it"
        elif isinstance(error, NotImplementedError):
            method = _METHODS.get(entry.compress_type, f"method {entry.compress_type}")
            how = f"is packed by {method}, which Python can't read: unpack it"
        else:
            raise
        raise InputError(
            f"{path} {how} and name the folder, or pack it anew as a zip by Deflate, unencrypted"
        ) from None


def _read_tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[NamedFile]:
    with _open_tar(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isfile() and wanted(entry.name) else None
                if file:
                    yield entry.name.removeprefix("./"), file.read
        # tarfile takes a damaged header for the end, and leaves checksums at the end unread.
        while rest := stream.read(2**20):
            if any(rest):
                raise tarfile.ReadError("data after the last readable entry")


def _open_tar(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        start = file.read(6)
        for magic, open_compressed in _COMPRESSED.items():
            if start.startswith(magic):
                return open_compressed(path, "rb")
        file.seek(-_TAR_END, os.SEEK_END)
        if any(file.read()):
            raise tarfile.ReadError("no end mark")
    return path.open("rb")


def _size_and_time(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
