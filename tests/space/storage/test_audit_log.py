"""The audit log: rows stay with their acts, and whatever is done to them afterwards shows."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bcd_models.errors import InputError
from clinic.installation import Installation, open_installation
from clinic.storage.actor import Actor
from clinic.storage.audit_log import AuditLog
from clinic.storage.heads import Head, Heads
from clinic.storage.tables import AuditEntry
from tests.conftest import ROOT
from tests.support.clinic import settings_at
from tests.support.processes import running

ADA = Actor(account_id=1, name="ada", role="doctor", address="10.0.0.1")


def write(clinic: Installation, count: int, action: str = "patient_viewed") -> None:
    for number in range(count):
        with clinic.database.transaction() as session:
            clinic.log.write(session, action, actor=ADA, subject=f"patient P-{number}", fields=2)


def problems(clinic: Installation) -> list[str]:
    with clinic.database.snapshot() as session:
        return clinic.log.find_problems(session)


def test_rows_say_who_did_what(clinic: Installation) -> None:
    write(clinic, 3)
    with clinic.database.transaction() as session:
        clinic.log.write(session, "sign_in_failed", actor=None, address="10.0.0.9")
        clinic.log.write(session, "signed_in", actor=ADA)
    with clinic.database.snapshot() as session:
        rows = session.query(AuditEntry).order_by(AuditEntry.number).all()
    assert [row.number for row in rows] == [1, 2, 3, 4, 5]
    assert (rows[0].account_name, rows[0].subject, rows[0].address) == (
        "ada",
        "patient P-0",
        "10.0.0.1",
    )
    assert rows[0].detail == {"fields": 2}
    assert (rows[3].account_id, rows[3].address) == (None, "10.0.0.9")
    assert clinic.log.read_head() == Head(5, rows[4].mac)
    assert problems(clinic) == []


def made_and_refused(clinic: Installation, session: Session) -> None:
    clinic.log.write(session, "patient_made", actor=ADA)
    session.execute(text("INSERT INTO patient (id) VALUES ('P-1')"))


def test_a_row_stays_if_and_only_if_its_act_does(clinic: Installation) -> None:
    write(clinic, 1)
    with pytest.raises(IntegrityError), clinic.database.transaction() as session:
        made_and_refused(clinic, session)
    assert clinic.log.read_head().number == 1
    write(clinic, 1)
    assert clinic.log.read_head().number == 2
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
    # The fourth is chained to the third that was, whose head is known.
    assert problems(clinic) == ["audit rows 2 to 3 were changed, moved or put in"]


def test_a_chain_made_with_another_key_shows(clinic: Installation, tmp_path: Path) -> None:
    write(clinic, 2)
    (tmp_path / "other").mkdir()
    forger = AuditLog(tmp_path / "other")
    with clinic.database.transaction() as session:
        forger.write(session, "patient_deleted", actor=ADA)
    assert problems(clinic) == ["audit row 3 was changed, moved or put in"]


def alter(clinic: Installation, *statements: Any) -> None:
    """As somebody does who may write to the database alone."""
    with clinic.database.transaction() as session:
        for statement in statements:
            session.execute(statement)


def is_whole(clinic: Installation) -> bool:
    with clinic.database.snapshot() as session:
        return clinic.log.is_whole(session)


def test_rows_that_were_cut_off_never_grow_back(clinic: Installation) -> None:
    write(clinic, 6)
    assert is_whole(clinic)
    alter(clinic, delete(AuditEntry).where(AuditEntry.number > 4))
    assert problems(clinic) == ["audit rows 5 to 6 were cut off"]
    assert not is_whole(clinic)
    for _ in range(3):
        write(clinic, 1)
        missing, logged = problems(clinic)
        assert missing == "audit rows 5 to 6 are missing"
        assert logged.startswith("audit rows 5 to 6 had been cut off by ")
        assert logged.endswith("says row 7")
        assert not is_whole(clinic)
    with clinic.database.snapshot() as session:
        rows = list(session.scalars(select(AuditEntry).order_by(AuditEntry.number)))
    assert [row.number for row in rows] == [1, 2, 3, 4, 7, 8, 9, 10]
    assert (rows[4].action, rows[4].account_name) == ("audit_log_cut", "")
    assert rows[4].detail == {"first": 5, "last": 6}


def test_a_cut_is_told_for_good_even_where_the_rows_are_put_back(clinic: Installation) -> None:
    write(clinic, 3)
    with clinic.database.snapshot() as session:
        row = dict(session.execute(select(AuditEntry.__table__).where(THIRD)).mappings().one())
    alter(clinic, delete(AuditEntry).where(THIRD))
    write(clinic, 1)
    alter(clinic, insert(AuditEntry).values(row))
    (logged,) = problems(clinic)
    assert "rows 3 to 3 had been cut off" in logged
    assert not is_whole(clinic)


def test_another_newest_row_is_told_like_a_cut(clinic: Installation) -> None:
    write(clinic, 3)
    alter(clinic, update(AuditEntry).where(THIRD).values(mac="0" * 64))
    assert not is_whole(clinic)
    write(clinic, 1)
    assert not is_whole(clinic)
    logged, changed = problems(clinic)
    assert "rows 3 to 3 had been cut off" in logged
    assert changed == "audit row 3 was changed, moved or put in"


def test_a_cut_is_logged_by_the_first_act_that_stays(clinic: Installation) -> None:
    write(clinic, 3)
    alter(clinic, delete(AuditEntry).where(THIRD))
    with pytest.raises(IntegrityError), clinic.database.transaction() as session:
        made_and_refused(clinic, session)
    assert problems(clinic) == ["audit rows 3 to 3 were cut off"]
    with clinic.database.transaction() as session:
        for _ in range(2):
            clinic.log.write(session, "examined", actor=ADA)
    assert clinic.log.read_head().number == 6  # the cut, once, and both rows
    assert len(problems(clinic)) == 2


def test_whoever_has_the_key_alone_can_not_write_the_log_anew(
    clinic: Installation, tmp_path: Path
) -> None:
    write(clinic, 4)
    (tmp_path / "thief").mkdir()
    shutil.copy(clinic.settings.data / "audit.key", tmp_path / "thief")
    thief = AuditLog(tmp_path / "thief")
    alter(clinic, delete(AuditEntry).where(AuditEntry.number > 1))
    for _ in range(4):
        with clinic.database.transaction() as session:
            thief.write(session, "patient_viewed", actor=ADA)
    assert problems(clinic) == ["audit rows 2 to 4 were replaced after being written"]


def test_many_changed_rows_are_told_in_few_lines(clinic: Installation) -> None:
    write(clinic, 9)
    middle = AuditEntry.number.between(3, 6)
    alter(clinic, update(AuditEntry).where(middle).values(subject="x"))
    assert problems(clinic) == ["audit rows 3 to 6 were changed, moved or put in"]


def test_heads_left_behind_by_a_kill_are_sound(clinic: Installation) -> None:
    write(clinic, 2)
    heads = clinic.settings.data / "audit.heads"
    behind = heads.read_bytes()
    write(clinic, 2)
    heads.write_bytes(behind)
    assert problems(clinic) == []
    write(clinic, 1)
    assert clinic.log.read_head().number == 5
    assert is_whole(clinic)
    assert problems(clinic) == []


def test_a_head_that_a_kill_tore_is_none(clinic: Installation) -> None:
    write(clinic, 3)
    heads = clinic.settings.data / "audit.heads"
    for torn in (b"4", b"4 ab", b"\0" * 70):
        whole = heads.read_bytes()
        heads.write_bytes(whole + torn)
        before = clinic.log.read_head().number
        assert whole.count(b"\n") == before
        assert problems(clinic) == []
        write(clinic, 1)
        assert clinic.log.read_head().number == before + 1
        assert heads.read_bytes().startswith(whole)
        assert problems(clinic) == []


def test_heads_are_kept_in_order_whoever_is_quicker(tmp_path: Path) -> None:
    one, two = Heads(tmp_path), Heads(tmp_path)
    macs = {number: f"{number:064x}" for number in range(1, 4)}
    two.append([Head(2, macs[2]), Head(3, macs[3])])
    one.append([Head(1, macs[1])])
    assert one.read_newest() == Head(3, macs[3])
    assert list(one.read_up_to(one.read_newest())) == [Head(2, macs[2]), Head(3, macs[3])]


def test_the_newest_of_very_many_heads_is_found(tmp_path: Path) -> None:
    heads = Heads(tmp_path)
    many = [Head(number, f"{number:064x}") for number in range(1, 5000)]
    heads.append(many)
    assert heads.read_newest() == many[-1]
    assert list(heads.read_up_to(many[-2])) == many[:-1]


def test_the_head_of_an_earlier_release_is_taken_over(clinic: Installation) -> None:
    write(clinic, 3)
    data, head = clinic.settings.data, clinic.log.read_head()
    (data / "audit.heads").unlink()
    (data / "audit.head").write_text(json.dumps(head.__dict__))
    alter(clinic, delete(AuditEntry).where(THIRD))
    again = open_installation(clinic.settings)
    assert again.log.read_head() == head
    assert problems(again) == ["audit rows 3 to 3 were cut off"]
    write(again, 1)
    assert not is_whole(again)
    lines = (data / "audit.heads").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["3", "4", "5"]
    again.database.engine.dispose()


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
    threads = [threading.Thread(target=write, args=(clinic, 12)) for _ in range(4)]
    with ExitStack() as started:
        four = [running(command, env=environment, cwd=ROOT) for _ in range(4)]
        processes = [started.enter_context(one) for one in four]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [process.wait() for process in processes] == [0] * 4
    assert clinic.log.read_head().number == 8 * 12
    assert problems(clinic) == []


def test_key_and_heads_are_their_owner_s(clinic: Installation) -> None:
    write(clinic, 1)
    for name in ("audit.key", "audit.heads"):
        assert (clinic.settings.data / name).stat().st_mode & 0o077 == 0
    assert clinic.settings.data.stat().st_mode & 0o077 == 0


SPOILT = [
    ("audit.key", b"short"),
    ("audit.heads", b"nonsense\n"),
    ("audit.heads", b"x" * 5000),
    ("audit.head", b"{}}"),
    ("audit.head", b'{"number": "1", "mac": ""}'),
]


@pytest.mark.parametrize(("name", "data"), SPOILT)
def test_a_spoilt_key_or_head_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    open_installation(settings_at(tmp_path)).database.engine.dispose()
    (tmp_path / "data" / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        open_installation(settings_at(tmp_path))


def test_a_spoilt_line_among_the_heads_is_told(clinic: Installation) -> None:
    write(clinic, 3)
    heads = clinic.settings.data / "audit.heads"
    first, second, third = heads.read_bytes().splitlines(keepends=True)
    for spoilt in (b"x" + first + second, second + first):
        heads.write_bytes(spoilt + third)
        with pytest.raises(InputError, match=r"audit\.heads is damaged"):
            problems(clinic)


def test_no_row_can_be_given_twice(clinic: Installation) -> None:
    write(clinic, 1)
    with pytest.raises(Exception, match=r"(?i)unique"), clinic.database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO audit_entry (number, at, account_name, action, subject, address, "
                "detail, mac) VALUES (1, '2026-01-01 00:00:00', '', '', '', '', '{}', '')"
            )
        )


def test_heads_that_are_gone_show(clinic: Installation) -> None:
    write(clinic, 3)
    (clinic.settings.data / "audit.heads").unlink()
    assert any("heads are missing" in problem for problem in problems(clinic))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_s_own_isolation_makes_no_cut(clinic: Installation) -> None:
    """A writer that waited for its turn sees what was committed meanwhile."""
    setting = "ALTER ROLE CURRENT_USER {} default_transaction_isolation"
    with clinic.database.transaction() as session:
        session.execute(text(setting.format("SET") + " = 'repeatable read'"))
    clinic.database.engine.dispose()
    try:
        threads = [threading.Thread(target=write, args=(clinic, 5)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems(clinic) == []
    finally:
        with clinic.database.transaction() as session:
            session.execute(text(setting.format("RESET")))
