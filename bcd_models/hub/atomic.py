"""Writing files whole: never seen half-written, and still there after a loss of power."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

UNFINISHED = ".unfinished-"  # begins the names of files that are being written


def write_files(contents: Mapping[Path, bytes], mode: int = 0o666) -> None:
    """Write files, and the folders they lie in where these are missing: all of them, or none.

    Each is written beside its place under a name of its own and made durable before the first takes
    its place, so that on a full disk all old files stay.

    Args:
        contents: The bytes of each file.
        mode: Permissions of new files, less the process' umask.

    Raises:
        OSError: The disk's refusal, or something other than a file is in a file's place; its
            ``filename`` is one of these files, or a folder that can't be made.

    Example:
        >>> write_files({Path("/tmp/answers.csv"): b"name,label"})
    """
    folders = {path.parent for path in contents}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for path in contents:
        if path.exists() and not path.is_file():
            raise FileExistsError(errno.EEXIST, "something other than a file is there", str(path))
    beside = {path: path.with_name(f"{UNFINISHED}{uuid4().hex}") for path in contents}
    try:
        for path, data in contents.items():
            try:
                _write(beside[path], data, mode)
            except OSError as error:
                error.filename = str(path)
                raise
        for path, temporary in beside.items():
            os.replace(temporary, path)
        if os.name == "posix":  # elsewhere a folder can't be opened
            for folder in folders:
                _fsync_folder(folder)
    finally:
        for temporary in beside.values():
            temporary.unlink(missing_ok=True)


@contextmanager
def open_whole(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a file that is written piece by piece, and takes its place once it is whole.

    For what may be larger than memory; otherwise as ``write_files``.
    """
    beside = path.with_name(f"{UNFINISHED}{uuid4().hex}")
    try:
        with _create(beside, mode) as file:
            yield file
        os.replace(beside, path)
        if os.name == "posix":
            _fsync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _write(path: Path, data: bytes, mode: int) -> None:
    with _create(path, mode) as file:
        file.write(data)


@contextmanager
def _create(path: Path, mode: int) -> Iterator[IO[bytes]]:
    """Open a new file, and write it to the disk itself."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    """Keep renames in a folder across a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
