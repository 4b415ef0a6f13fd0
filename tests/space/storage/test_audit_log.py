"""The audit log: rows stay with their acts, and whatever is done to them afterwards shows."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bcd_models.errors import InputError
from clinic.installation import Installation, open_installation
from clinic.storage.actor import Actor
from clinic.storage.audit_log import AuditLog, Head
from clinic.storage.tables import AuditEntry
from tests.conftest import ROOT
from tests.support.clinic import settings_at

ADA = Actor(account_id=1, name="ada", role="doctor", address="10.0.0.1")


def write(clinic: Installation, count: int, action: str = "patient_viewed") -> None:
    for number in range(count):
        with clinic.database.transaction() as session:
            clinic.log.write(session, action, actor=ADA, subject=f"patient P-{number}", fields=2)


def problems(clinic: Installation) -> list[str]:
    with clinic.database.reading() as session:
        return clinic.log.problems(session)


def test_rows_say_who_did_what(clinic: Installation) -> None:
    write(clinic, 3)
    with clinic.database.transaction() as session:
        clinic.log.write(session, "sign_in_failed", actor=None, address="10.0.0.9")
        clinic.log.write(session, "signed_in", actor=ADA)
    with clinic.database.reading() as session:
        rows = session.query(AuditEntry).order_by(AuditEntry.number).all()
    assert [row.number for row in rows] == [1, 2, 3, 4, 5]
    assert (rows[0].account_name, rows[0].subject, rows[0].address) == (
        "ada",
        "patient P-0",
        "10.0.0.1",
    )
    assert rows[0].detail == {"fields": 2}
    assert (rows[3].account_id, rows[3].address) == (None, "10.0.0.9")
    assert clinic.log.head() == Head(5, rows[4].mac)
    assert problems(clinic) == []


def made_and_refused(clinic: Installation, session: Session) -> None:
    clinic.log.write(session, "patient_made", actor=ADA)
    session.execute(text("INSERT INTO patient (id) VALUES ('P-1')"))


def test_a_row_stays_if_and_only_if_its_act_does(clinic: Installation) -> None:
    write(clinic, 1)
    with pytest.raises(IntegrityError), clinic.database.transaction() as session:
        made_and_refused(clinic, session)
    assert clinic.log.head().number == 1
    write(clinic, 1)
    assert clinic.log.head().number == 2
    assert problems(clinic) == []


THIRD = AuditEntry.number == 3
TAMPERINGS: dict[str, tuple[Any, str]] = {
    "changed": (update(AuditEntry).where(THIRD).values(subject="x"), "row 3 was changed"),
    "detail": (update(AuditEntry).where(THIRD).values(detail={}), "row 3 was changed"),
    "removed": (delete(AuditEntry).where(THIRD), "rows 3 to 3 are missing"),
    "first": (delete(AuditEntry).where(AuditEntry.number == 1), "rows 1 to 1 are missing"),
    "cut off": (delete(AuditEntry).where(AuditEntry.number > 4), "rows 5 to 6 were cut off"),
    "all": (delete(AuditEntry), "rows 1 to 6 were cut off"),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_tampering_shows(clinic: Installation, how: str) -> None:
    write(clinic, 6)
    statement, says = TAMPERINGS[how]
    with clinic.database.transaction() as session:
        session.execute(statement)
    assert any(says in problem for problem in problems(clinic))


def test_rows_in_another_order_show(clinic: Installation) -> None:
    write(clinic, 6)
    with clinic.database.transaction() as session:
        for before, after in ((2, 99), (3, 2), (99, 3)):
            session.execute(
                update(AuditEntry).where(AuditEntry.number == before).values(number=after)
            )
    assert [p for p in problems(clinic) if "row 2 was changed" in p or "row 3 was changed" in p]


def test_a_chain_made_with_another_key_shows(clinic: Installation, tmp_path: Path) -> None:
    write(clinic, 2)
    (tmp_path / "other").mkdir()
    forger = AuditLog(tmp_path / "other")
    with clinic.database.transaction() as session:
        forger.write(session, "patient_deleted", actor=ADA)
    assert problems(clinic) == ["audit row 3 was changed, moved or put in"]


def test_a_head_left_behind_by_a_kill_is_sound(clinic: Installation) -> None:
    write(clinic, 2)
    head = clinic.settings.data / "audit.head"
    behind = head.read_bytes()
    write(clinic, 2)
    head.write_bytes(behind)
    assert problems(clinic) == []
    write(clinic, 1)
    assert clinic.log.head().number == 5


WRITER = """
import sys
from pathlib import Path
from clinic.installation import open_installation
from clinic.storage.actor import Actor
from tests.support.clinic import settings_at
clinic = open_installation(settings_at(Path(sys.argv[1]), sys.argv[2]))
for number in range(12):
    with clinic.database.transaction() as session:
        clinic.log.write(session, "examined", actor=Actor(1, "ada", "doctor", ""), n=number)
"""


@pytest.mark.slow
def test_eight_writers_make_one_chain(clinic: Installation, tmp_path: Path) -> None:
    """Four threads here, four processes beside."""
    command = [sys.executable, "-c", WRITER, str(tmp_path), clinic.settings.database_url]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'space'}"}
    processes = [subprocess.Popen(command, env=environment, cwd=ROOT) for _ in range(4)]
    threads = [threading.Thread(target=write, args=(clinic, 12)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(120) for process in processes] == [0] * 4
    assert clinic.log.head().number == 8 * 12
    assert problems(clinic) == []


def test_key_and_head_are_their_owner_s(clinic: Installation) -> None:
    write(clinic, 1)
    for name in ("audit.key", "audit.head"):
        assert (clinic.settings.data / name).stat().st_mode & 0o077 == 0
    assert clinic.settings.data.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("name", "data"), [("audit.key", b"short"), ("audit.head", b"{}}")])
def test_a_spoilt_key_or_head_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    open_installation(settings_at(tmp_path)).database.engine.dispose()
    (tmp_path / "data" / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        open_installation(settings_at(tmp_path))


def test_no_row_can_be_given_twice(clinic: Installation) -> None:
    write(clinic, 1)
    with pytest.raises(Exception, match=r"(?i)unique"), clinic.database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO audit_entry (number, at, account_name, action, subject, address, "
                "detail, mac) VALUES (1, '2026-01-01 00:00:00', '', '', '', '', '{}', '')"
            )
        )
