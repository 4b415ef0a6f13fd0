"""The files of a folder or an archive, streamed: nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from bcd_models.errors import InputError


def check(path: Path) -> None:
    """Raise InputError unless this is a folder, or a zip or tar archive that opens."""
    if path.is_dir():
        return
    if not path.is_file():
        raise InputError(f"no such folder or archive: {path}")
    if not zipfile.is_zipfile(path) and not tarfile.is_tarfile(path):
        raise InputError(
            f"{path} is neither a folder nor a zip or tar archive; if it was one, it is cut short: "
            "download it again"
        )


def splittable(path: Path) -> bool:
    """Whether parts of it can be read without reading the rest."""
    return path.is_dir() or zipfile.is_zipfile(path)


def png_files(path: Path, part: int = 0, parts: int = 1) -> Iterator[tuple[str, bytes]]:
    """Name (with forward slashes, relative to the root) and bytes of each PNG.

    Args:
        path: A folder, or a zip or tar archive.
        part: Which part to read, from 0.
        parts: Into how many parts files fall, by their own names, wherever they lie.

    Raises:
        InputError: The archive is damaged.
    """
    kind = _folder if path.is_dir() else _zip if zipfile.is_zipfile(path) else _tar

    def wanted(name: str) -> bool:
        file = name.rpartition("/")[2]
        return file.endswith(".png") and zlib.crc32(file.encode()) % parts == part

    try:
        yield from kind(path, wanted)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise InputError(f"{path} is damaged or cut short ({error}): download it again") from None


def _folder(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    for file in path.rglob("*.png"):
        if wanted(file.name):
            yield file.relative_to(path).as_posix(), file.read_bytes()


def _zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if wanted(entry.filename):
                yield entry.filename, archive.read(entry)


def _tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r|*") as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isfile() and wanted(entry.name) else None
            if file:
                yield entry.name.removeprefix("./"), file.read()
