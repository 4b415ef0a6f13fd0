"""How SQLite is opened: safe with several at once, after a crash, and against rows of nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from clinic.storage.database import MAX_WAIT_SECONDS
from clinic.storage.tables import ExaminedImage
from tests.support.clinic import installation_at

SET = {
    "journal_mode": "wal",
    "foreign_keys": 1,
    "synchronous": 2,  # FULL
    "busy_timeout": MAX_WAIT_SECONDS * 1000,
}


def test_every_connection_is_set_up(tmp_path: Path) -> None:
    with installation_at(tmp_path) as clinic, clinic.database.engine.connect() as connection:
        found = {name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in SET}
    assert found == SET


def test_a_row_that_refers_to_nothing_is_refused(tmp_path: Path) -> None:
    row = {"examination_id": "E-0000000000", "position": 1, "sha256": "0" * 64}
    image = ExaminedImage(**row, format="PNG", width=50, height=50)
    with installation_at(tmp_path) as clinic, pytest.raises(IntegrityError, match="FOREIGN KEY"):
        with clinic.database.transaction() as session:
            session.add(image)
