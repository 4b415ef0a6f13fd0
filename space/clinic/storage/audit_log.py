"""The audit log: rows that only ever grow, chained with a key that is not in the database.

Each row's code is an HMAC over its own content and the code of the row before. Number and code of
the newest row are kept outside the database too, in ``audit.head``. So a row that was changed,
moved, taken out or cut off shows. A process killed between the commit and the head, or a full disk,
leaves the head behind by what was committed; such rows count as sound where their codes are, for
which it takes the key.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from clinic.storage import clock
from clinic.storage.actor import Actor
from clinic.storage.database import POSTGRESQL
from clinic.storage.tables import AuditEntry

KEY, HEAD, LOCK = "audit.key", "audit.head", "audit.lock"
KEY_BYTES = 32
PRIVATE = 0o600  # only its owner reads a file
ADVISORY = 0x6263_6401  # any number, the same in every process
FIRST = ""  # what stands before the first row's code

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """The newest row known outside the database.

    Attributes:
        number: Its number; 0 where there is none yet.
        mac: Its code.
    """

    number: int = 0
    mac: str = FIRST


class AuditLog:
    """Writes and checks the rows. Safe to use from threads and processes.

    Args:
        folder: The installation's data folder: holds key and head.

    Raises:
        InputError: Key or head can't be read or made.
    """

    def __init__(self, folder: Path) -> None:
        self._head_file, self._lock_file = folder / HEAD, folder / LOCK
        with self._locked():
            self._key = _key(folder / KEY)
        self.head()

    def write(
        self,
        session: Session,
        action: str,
        *,
        actor: Actor | None,
        subject: str = "",
        address: str = "",
        **detail: Any,
    ) -> None:
        """Add a row within the act's own transaction: it stays if and only if the act does.

        Args:
            session: The act's.
            action: What was done, such as "patient_made".
            actor: Who did it; None: a stranger.
            subject: To what, such as "patient P-7K3QX9MDAT".
            address: Where a stranger's request came from.
            detail: Ids, counts, hashes and names of fields; never a user's words.
        """
        before = self._newest(session)
        entry = AuditEntry(
            number=before.number + 1,
            at=clock.now(),
            account_id=actor.account_id if actor else None,
            account_name=actor.name if actor else "",
            action=action,
            subject=subject,
            address=actor.address if actor else address,
            detail=detail,
        )
        entry.mac = self._mac(entry, before.mac)
        session.add(entry)
        session.flush()
        self._advance_after_commit(session, Head(entry.number, entry.mac))

    def problems(self, session: Session) -> list[str]:
        """What is wrong with the rows, in words; empty where nothing is."""
        head, last, found = self.head(), Head(), []
        rows = session.scalars(select(AuditEntry).order_by(AuditEntry.number))
        for entry in rows.yield_per(1000):
            if entry.number != last.number + 1:
                found.append(f"audit rows {last.number + 1} to {entry.number - 1} are missing")
            elif not hmac.compare_digest(entry.mac, self._mac(entry, last.mac)):
                found.append(f"audit row {entry.number} was changed, moved or put in")
            if entry.number == head.number and entry.mac != head.mac:
                found.append(f"audit row {entry.number} is not the one that was written")
            last = Head(entry.number, entry.mac)
        if last.number < head.number:
            found.append(f"audit rows {last.number + 1} to {head.number} were cut off")
        return found

    def ends_as_known(self, session: Session) -> bool:
        """Whether the newest row known outside the database is there as it was written."""
        head = self.head()
        mac = select(AuditEntry.mac).where(AuditEntry.number == head.number)
        return (session.scalar(mac) or FIRST) == head.mac

    def head(self) -> Head:
        """The newest row known outside the database."""
        try:
            return Head(**json.loads(self._head_file.read_text("utf-8")))
        except FileNotFoundError:
            return Head()
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{self._head_file} can't be read: {error}") from None

    def _newest(self, session: Session) -> Head:
        """The last row, once no other writer can add one: they wait until this commit."""
        if session.get_bind().dialect.name == POSTGRESQL:
            session.execute(select(func.pg_advisory_xact_lock(ADVISORY)))
        # SQLite's transactions have the writer's lock from their beginning.
        newest = select(AuditEntry.number, AuditEntry.mac).order_by(AuditEntry.number.desc())
        row = session.execute(newest.limit(1)).first()
        return Head(*row) if row else Head()

    def _mac(self, entry: AuditEntry, before: str) -> str:
        said = [
            entry.number,
            entry.at.astimezone(UTC).isoformat(timespec="microseconds"),
            entry.account_id,
            entry.account_name,
            entry.action,
            entry.subject,
            entry.address,
            entry.detail,
            before,
        ]
        text = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def _advance_after_commit(self, session: Session, head: Head) -> None:
        waiting: list[Head] = session.info.setdefault("audit_heads", [])
        waiting.append(head)
        if len(waiting) == 1:
            event.listen(session, "after_commit", self._advance, once=True)
            event.listen(session, "after_rollback", _drop, once=True)

    def _advance(self, session: Session) -> None:
        newest = max(session.info.pop("audit_heads", [Head()]), key=lambda head: head.number)
        try:
            with self._locked():
                if newest.number > self.head().number:
                    data = json.dumps(newest.__dict__).encode()
                    write_files({self._head_file: data}, mode=PRIVATE)
        except (OSError, InputError) as error:
            # The act stands: to fail now would have it done again. A head left behind is sound.
            log.error("%s stays behind: %s", self._head_file, type(error).__name__)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock_file.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _drop(session: Session) -> None:
    session.info.pop("audit_heads", None)


def _key(path: Path) -> bytes:
    """The key, made where there is none yet."""
    if not path.exists():
        write_files({path: secrets.token_bytes(KEY_BYTES)}, mode=PRIVATE)
    try:
        key = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None
    if len(key) != KEY_BYTES:
        raise InputError(f"{path} is damaged: restore it from a backup")
    return key
