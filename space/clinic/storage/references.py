"""Which stored files the database still speaks of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import select, union
from sqlalchemy.orm import Session

from bcd_models.errors import BCDError
from clinic.storage.database import Database
from clinic.storage.files import Storage
from clinic.storage.tables import ExaminedImage, Result, StoredReport


def list_referenced(session: Session) -> set[str]:
    """Return the hash of every file that some row names."""
    named = union(
        select(ExaminedImage.sha256), select(Result.heat_sha256), select(StoredReport.sha256)
    )
    return set(session.scalars(named))


def delete_unreferenced(database: Database, storage: Storage, hashes: Iterable[str]) -> list[str]:
    """Delete those of some files that no row names any more; returns their hashes.

    To be called after the commit that deleted the rows.
    """
    with storage.lock_for_deleting(), database.snapshot() as session:
        gone = sorted(set(hashes) - list_referenced(session))
        for sha256 in gone:
            storage.delete(sha256)
    return gone


@contextmanager
def store_files(database: Database, storage: Storage) -> Iterator[Callable[[bytes], str]]:
    """Yield what stores a file and returns its hash, before the transaction that names it.

    Held until that has ended. Where the act is refused then, as its record was deleted meanwhile,
    its files go again; those of an act that a fault ended are left to ``verify --repair``.
    """
    stored: list[str] = []

    def put(data: bytes) -> str:
        stored.append(storage.put(data))
        return stored[-1]

    try:
        with storage.lock_for_saving():
            yield put
    except BCDError:
        delete_unreferenced(database, storage, stored)
        raise
