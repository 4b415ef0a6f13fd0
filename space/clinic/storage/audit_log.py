"""The audit log: rows that only ever grow, chained with a key that is not in the database.

Each row's MAC (message authentication code) is an HMAC over its own content and the MAC of the row
before. Number and MAC of each row are kept outside the database too, see ``clinic.storage.heads``.
So a row that was changed, moved, removed or cut off shows. Before an act is written, the newest
head's row must be there: that rows were cut off is written first, under a number that was never
given, so that the gap stays.

A process killed between the commit and the head, or a full disk, leaves the heads behind by what
was committed; such rows count as sound where their MACs are, for which it takes the key.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from clinic.storage import clock
from clinic.storage.actor import Actor
from clinic.storage.files import lock_file
from clinic.storage.heads import HEADS, NO_MAC, Head, Heads
from clinic.storage.tables import AuditEntry

KEY, LOCK = "audit.key", "audit.lock"
KEY_BYTES = 32
CUT = "audit_log_cut"  # the act of nobody known: rows were gone when the next was written
PENDING = "audit_heads"  # where a session keeps the heads of its rows until they are committed
NEWEST = select(AuditEntry.number, AuditEntry.mac).order_by(AuditEntry.number.desc()).limit(1)

log = logging.getLogger(__name__)


class AuditLog:
    """Writes and checks the rows. Safe to use from threads and processes.

    Key and heads lie in the data folder; InputError where they can't be read or created.
    """

    def __init__(self, folder: Path) -> None:
        with lock_file(folder / LOCK, fcntl.LOCK_EX):
            self._key = _read_key(folder / KEY)
        self._heads = Heads(folder)

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

        Raises:
            InputError: The heads can't be read.
        """
        entry = AuditEntry(
            account_id=actor.account_id if actor else None,
            account_name=actor.name if actor else "",
            action=action,
            subject=subject,
            address=actor.address if actor else address,
            detail=detail,
        )
        self._add(session, entry, self._find_previous(session))

    def find_problems(self, session: Session) -> list[str]:
        """Return what is wrong with the rows, in words; empty where nothing is."""
        newest = self.read_head()  # before the rows: acts go on meanwhile
        heads = self._heads.read_up_to(newest)
        found, changed, replaced = [], [], []
        last, kept, ahead = Head(), Head(), next(heads, None)
        entries = session.scalars(select(AuditEntry).order_by(AuditEntry.number))
        for entry in entries.yield_per(1000):
            while ahead and ahead.number < entry.number:
                kept, ahead = ahead, next(heads, None)
            if entry.number != last.number + 1:
                found.append(f"audit rows {last.number + 1} to {entry.number - 1} are missing")
            # The row before, or its head: what follows a cut is chained to the head alone.
            before = {one.mac for one in (last, kept) if one.number == entry.number - 1}
            macs = [self._compute_mac(entry, mac) for mac in before]
            if macs and entry.mac not in macs:
                changed.append(entry.number)
            elif ahead and ahead.number == entry.number and ahead.mac != entry.mac:
                replaced.append(entry.number)
            elif macs and entry.action == CUT:
                found.append(_describe_cut(entry))
            last = Head(entry.number, entry.mac)
        if last.number and not newest.number:
            found.append("the audit log's heads are missing, though it has rows")
        if last.number < newest.number:
            found.append(f"audit rows {last.number + 1} to {newest.number} were cut off")
        found += [f"audit {rows} changed, moved or put in" for rows in _describe_runs(changed)]
        found += [f"audit {rows} replaced after being written" for rows in _describe_runs(replaced)]
        return found

    def is_whole(self, session: Session) -> bool:
        """Return whether no row was cut off, now or ever, as far as a quick look tells."""
        kept = self.read_head()  # before the rows: acts go on meanwhile
        cut = select(AuditEntry.number).where(AuditEntry.action == CUT).limit(1)
        return _is_stored(session, kept) and session.scalar(cut) is None

    def read_head(self) -> Head:
        """Return the newest row known outside the database; InputError where heads are damaged."""
        return self._heads.read_newest()

    def _find_previous(self, session: Session) -> Head:
        """Return the row to chain the next one to; that rows were cut off is written first."""
        pending: list[Head] = session.info.get(PENDING, [])
        if pending:
            return pending[-1]
        row = session.execute(NEWEST).first()  # and stays that: nobody else writes meanwhile
        newest, kept = Head(*row) if row else Head(), self.read_head()
        if newest == kept or _is_stored(session, kept):
            return newest
        return self._write_cut(session, newest, kept)

    def _write_cut(self, session: Session, newest: Head, kept: Head) -> Head:
        """Log that rows were cut off; goes on from their numbers, so that none is given again."""
        last = max(kept, newest, key=lambda head: head.number)
        missing = {"first": min(newest.number + 1, kept.number), "last": kept.number}
        text = {"account_name": "", "subject": "audit log", "address": ""}
        return self._add(session, AuditEntry(action=CUT, detail=missing, **text), last)

    def _add(self, session: Session, entry: AuditEntry, before: Head) -> Head:
        """Number and chain a row after the one before; returns its head, kept after the commit."""
        entry.number, entry.at = before.number + 1, clock.now()
        entry.mac = self._compute_mac(entry, before.mac)
        session.add(entry)
        session.flush()
        head = Head(entry.number, entry.mac)
        pending: list[Head] = session.info.setdefault(PENDING, [])
        pending.append(head)
        if len(pending) == 1:
            event.listen(session, "after_commit", self._keep_pending, once=True)
            event.listen(session, "after_rollback", _drop_pending, once=True)
        return head

    def _compute_mac(self, entry: AuditEntry, before: str) -> str:
        content = [
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
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def _keep_pending(self, session: Session) -> None:
        try:
            self._heads.append(session.info.pop(PENDING, []))
        except (OSError, InputError) as error:
            # The act stands: to fail now would have it done again. Heads left behind are sound.
            log.error("%s stays behind: %s", HEADS, type(error).__name__)


def _is_stored(session: Session, kept: Head) -> bool:
    """Return whether a head's row is in the database with its MAC."""
    mac = session.scalar(select(AuditEntry.mac).where(AuditEntry.number == kept.number))
    return (mac or NO_MAC) == kept.mac


def _describe_cut(entry: AuditEntry) -> str:
    first, last = (entry.detail.get(name) for name in ("first", "last"))
    when = f"{entry.at:%Y-%m-%d %H:%M} UTC"
    return f"audit rows {first} to {last} had been cut off by {when}, says row {entry.number}"


def _describe_runs(numbers: Iterable[int]) -> Iterator[str]:
    """Name runs of rows as the beginning of a sentence on them."""
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        first, *others = (number for _, number in run)
        yield f"rows {first} to {others[-1]} were" if others else f"row {first} was"


def _drop_pending(session: Session) -> None:
    session.info.pop(PENDING, None)


def _read_key(path: Path) -> bytes:
    """Return the key, created where there is none yet."""
    if not path.exists():
        write_files({path: secrets.token_bytes(KEY_BYTES)}, mode=0o600)
    try:
        key = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None
    if len(key) != KEY_BYTES:
        raise InputError(f"{path} is damaged: restore it from a backup")
    return key
