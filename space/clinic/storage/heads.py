"""Heads of the audit log: number and MAC of each row, kept outside the database.

A MAC (message authentication code) proves the row, see ``clinic.storage.audit_log``.

``audit.heads`` only ever grows, by a line for each row once its act is committed. A line that a
kill or a full disk tore has no end, and counts as not written.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bcd_models.errors import InputError

HEADS = "audit.heads"
FORMER = "audit.head"  # of earlier releases and their backups: the newest head alone, as JSON
LINE = re.compile(rb"([1-9][0-9]*) ([0-9a-f]{64})\n")
TAIL = 4096  # bytes; many times what one act adds
NO_MAC = ""  # what the first row's MAC is chained to


@dataclass(frozen=True)
class Head:
    """A row as it is known outside the database."""

    number: int = 0  # its number; 0 where there is none yet
    mac: str = NO_MAC  # its message authentication code, in hexadecimal


class Heads:
    """The file in an installation's data folder. Safe to use from threads and processes.

    InputError where it, or the one of an earlier release, can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / HEADS
        former = folder / FORMER
        if self.read_newest() == Head() and former.exists():
            self.append([_read_former(former)])

    def read_newest(self) -> Head:
        """Return the last head, without reading those before; InputError where it's damaged."""
        try:
            with self._file.open("rb") as file:
                return _find_last(file)[0]
        except FileNotFoundError:
            return Head()
        except OSError as error:
            raise InputError(f"{HEADS} can't be read: {error.strerror}") from None

    def read_up_to(self, newest: Head) -> Iterator[Head]:
        """Go through the heads from the first to one of them; InputError where one is damaged."""
        last = Head()
        if newest == last:
            return
        with self._file.open("rb") as file:
            for line in file:
                head = _parse_line(line)
                if head.number <= last.number:
                    raise _damage_error()
                yield head
                if head.number >= newest.number:
                    return
                last = head

    def append(self, heads: Sequence[Head]) -> None:
        """Keep heads durably, those behind the newest left out: a later act was quicker.

        OSError or InputError where they can't be kept.
        """
        opened = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(opened, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            newest, end = _find_last(file)
            file.seek(end)
            file.truncate()  # what was torn would spoil the next line
            new = (head for head in heads if head.number > newest.number)
            file.write(b"".join(map(_format_line, new)))
            file.flush()
            os.fsync(file.fileno())


def _find_last(file: BinaryIO) -> tuple[Head, int]:
    """Return the last whole line's head, and where that line ends."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TAIL))
    tail = file.read()
    whole = tail[: tail.rfind(b"\n") + 1]
    if whole:
        return _parse_line(whole.splitlines(keepends=True)[-1]), size - len(tail) + len(whole)
    if size > TAIL:
        raise _damage_error()
    return Head(), 0


def _format_line(head: Head) -> bytes:
    return b"%d %s\n" % (head.number, head.mac.encode())


def _parse_line(line: bytes) -> Head:
    found = LINE.fullmatch(line)
    if not found:
        raise _damage_error()
    return Head(int(found[1]), found[2].decode())


def _read_former(path: Path) -> Head:
    try:
        return _parse_line(_format_line(Head(**json.loads(path.read_text("utf-8")))))
    except (OSError, ValueError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"{path} can't be read: {error}") from None


def _damage_error() -> InputError:
    return InputError(f"{HEADS} is damaged: restore it from a backup")
