"""The files of a folder or an archive, streamed: nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from bcd_models.errors import InputError


def png_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name (with forward slashes, relative to the root) and bytes of each PNG.

    Raises:
        InputError: No such path, neither a folder nor a zip or tar archive, or a damaged archive.
    """
    if path.is_dir():
        yield from _folder(path)
        return
    if not path.is_file():
        raise InputError(f"no such folder or archive: {path}")
    try:
        if zipfile.is_zipfile(path):
            yield from _zip(path)
        elif tarfile.is_tarfile(path):
            yield from _tar(path)
        else:
            raise InputError(f"{path} is neither a folder nor a zip or tar archive")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise InputError(f"{path} is damaged or cut short ({error}): download it again") from None


def _folder(path: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.rglob("*.png")):
        yield file.relative_to(path).as_posix(), file.read_bytes()


def _zip(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".png"):
                yield entry.filename, archive.read(entry)


def _tar(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r|*") as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isfile() else None
            if file and entry.name.endswith(".png"):
                yield entry.name.removeprefix("./"), file.read()
