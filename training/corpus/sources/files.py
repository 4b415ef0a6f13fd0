"""The files of a folder or an archive, streamed: nothing is unpacked to disk."""

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
from typing import IO

from bcd_models.errors import InputError
from training.corpus.sources.zip_view import open_some

_COMPRESSED: dict[bytes, Callable[..., IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_TAR_END = 1024  # bytes of zeros
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
)

NamedFile = tuple[str, Callable[[], bytes]]


def check(path: Path) -> None:
    """Raise InputError unless this is a folder with a PNG, or a zip or tar archive that opens."""
    if path.is_dir():
        if not any(file.endswith(".png") for _, _, files in os.walk(path) for file in files):
            raise InputError(f"no PNG file below folder {path}: name the folder the data set is in")
        return
    if not path.is_file():
        raise InputError(f"no such folder or archive: {path}")
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
        (os.path.join(folder, name), *_size_and_time(os.stat(os.path.join(folder, name))))
        for folder, _, files in os.walk(path)
        for name in files
    )
    return hashlib.sha256(repr(stamps).encode(errors="surrogateescape")).hexdigest()


def is_splittable(path: Path) -> bool:
    """Return whether chunks of it can be read without reading the rest."""
    return path.is_dir() or zipfile.is_zipfile(path)


def list_png_files(path: Path, chunk: int = 0, chunks: int = 1) -> Iterator[NamedFile]:
    """Yield the name of each PNG (forward slashes, from the root) and what reads its bytes.

    Bytes can be read until the next name is asked for.

    Args:
        path: A folder, or a zip or tar archive.
        chunk: Which chunk to read, from 0.
        chunks: Into how many chunks files fall, by their own names, wherever they lie.

    Raises:
        InputError: The archive is damaged.
    """
    kind = _walk_folder if path.is_dir() else _read_zip if zipfile.is_zipfile(path) else _read_tar

    def is_wanted(name: str) -> bool:
        file = name.rpartition("/")[2]
        return file.endswith(".png") and zlib.crc32(file.encode()) % chunks == chunk

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


def _walk_folder(path: Path, wanted: Callable[[str], bool]) -> Iterator[NamedFile]:
    for folder, _, files in os.walk(path):
        for name in filter(wanted, files):
            file = Path(folder, name)
            yield file.relative_to(path).as_posix(), file.read_bytes


def _read_zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[NamedFile]:
    with open_some(path, wanted) as archive:
        for entry in archive.infolist():
            yield entry.filename, partial(archive.read, entry)


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
