"""Which stored files the database still speaks of."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select, union
from sqlalchemy.orm import Session

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
    """Take away those of some files that no row names any more; returns their hashes.

    To be called after the commit that took the rows away.
    """
    with storage.forgetting(), database.reading() as session:
        gone = sorted(set(hashes) - list_referenced(session))
        for sha256 in gone:
            storage.delete(sha256)
    return gone
