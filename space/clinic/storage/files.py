"""Images, heat maps and reports, each a file named after the hash of its bytes."""

from __future__ import annotations

import fcntl
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from bcd_models.errors import BCDError
from bcd_models.hub.atomic import write_files

FILES, LOCK = "files", "files.lock"
HASH = re.compile("[0-9a-f]{64}")  # in hexadecimal, as files are named


def pack_zip(contents: Mapping[str, bytes]) -> bytes:
    """Return files by name as a zip; equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(name), data)  # which dates it to 1980
    return buffer.getvalue()


class StorageError(BCDError):
    """A stored file is missing or damaged, or can't be written."""


class NotStored(StorageError):
    """A file can't be written, for want of room as a rule."""


@contextmanager
def lock_file(path: Path, how: int) -> Iterator[None]:
    """Hold a lock among processes by ``flock``, ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``."""
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield  # closing the file gives the lock back


class Storage:
    """The files below ``files`` in the data folder. Safe to use from threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._files, self._lock = folder / FILES, folder / LOCK

    def put(self, data: bytes) -> str:
        """Store bytes once, damaged ones again; returns their SHA-256, or raises NotStored."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        if _is_stored(path, sha256):
            return sha256
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_files({path: data}, mode=0o600)
        except OSError as error:
            raise NotStored(f"a file can't be stored: {error.strerror}") from None
        return sha256

    def read(self, sha256: str) -> bytes:
        """Return the bytes of a hash; StorageError where they are missing or no longer those."""
        try:
            data = self.path(sha256).read_bytes()
        except OSError as error:
            raise StorageError(
                f"stored file {sha256[:12]} can't be read: {error.strerror}"
            ) from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StorageError(f"stored file {sha256[:12]} is damaged: restore it from a backup")
        return data

    def path(self, sha256: str) -> Path:
        """Return where the bytes of a hash lie, or would."""
        if not HASH.fullmatch(sha256):
            raise StorageError("that is no SHA-256")
        return self._files / sha256[:2] / sha256

    def delete(self, sha256: str) -> None:
        """Delete a file, if it is there."""
        self.path(sha256).unlink(missing_ok=True)

    def list_hashes(self) -> Iterator[str]:
        """Return the hash of each stored file."""
        for path in sorted(self._files.glob("??/*")):
            if HASH.fullmatch(path.name):
                yield path.name

    def list_sizes(self) -> Iterator[int]:
        """Return bytes of each stored file."""
        for sha256 in self.list_hashes():
            with suppress(FileNotFoundError):  # it was deleted meanwhile
                yield self.path(sha256).stat().st_size

    def list_unfinished(self) -> list[Path]:
        """Return what writers that were killed have left."""
        return sorted(path for path in self._files.glob("??/*") if not HASH.fullmatch(path.name))

    @contextmanager
    def lock_for_saving(self) -> Iterator[None]:
        """Hold off deletion from the first ``put`` to the commit of the rows that name the files.

        Any number of savers may hold it together, but no ``forgetting`` beside them: so a file
        that equal bytes were just stored in is never deleted before its row is there.
        """
        with lock_file(self._lock, fcntl.LOCK_SH):
            yield

    @contextmanager
    def lock_for_deleting(self) -> Iterator[None]:
        """Hold off savers while files without rows are looked for and deleted."""
        with lock_file(self._lock, fcntl.LOCK_EX):
            yield


def _is_stored(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False
