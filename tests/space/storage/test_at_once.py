"""Several at one moment: each gets what the order that they came in gives, and no server error."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select

from bcd_models.errors import InputError
from clinic.accounts import accounts, passwords, sign_ins
from clinic.accounts.sign_ins import SignInFailed
from clinic.analysis.analyse import Analysed, Analysis
from clinic.analysis.models import Models
from clinic.dashboard import answer_table
from clinic.dashboard.analytics import Period
from clinic.installation import Installation
from clinic.records import examinations, export, patients, reads
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.reports import service as reports
from clinic.reports.layout import ReportedExamination, lay_out_examination
from clinic.storage.actor import Actor, Refused
from clinic.storage.database import ADVISORY_LOCK
from clinic.storage.files import Storage
from clinic.storage.tables import Account, AuditEntry, StoredReport
from clinic.upkeep import verify
from tests.support.clinic import PASSWORD
from tests.support.serving import add_account

HERE = "10.0.0.1"
PATIENCE = 30  # seconds


def at_once(clinic: Installation, *acts: Callable[[], Any]) -> list[Any]:
    """What acts begun at one moment return, or raise; each in a thread of its own."""
    connected, start = threading.Barrier(len(acts)), threading.Barrier(len(acts))
    came: list[Any] = [None] * len(acts)

    def run(place: int) -> None:
        with clinic.database.snapshot() as session:  # or all but one would still be connecting
            session.scalar(select(1))
            connected.wait()
        start.wait()
        try:
            came[place] = acts[place]()
        except Exception as error:
            came[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return came


def split(came: list[Any]) -> tuple[list[Any], list[str]]:
    """What was returned, and what was told where an act was refused; any other error is raised."""
    faults = [one for one in came if isinstance(one, Exception) and not isinstance(one, InputError)]
    if faults:
        raise ExceptionGroup("server errors", faults)
    done = [one for one in came if not isinstance(one, Exception)]
    return done, [str(one) for one in came if isinstance(one, Exception)]


def test_first_sign_ins_from_one_address(clinic: Installation) -> None:
    names = [add_account(clinic).name for _ in range(4)]
    acts = [partial(sign_ins.sign_in, clinic, name, PASSWORD, HERE) for name in names]
    tokens, refused = split(at_once(clinic, *acts))
    assert (len(set(tokens)), refused) == (4, [])
    known = [sign_ins.find_actor(clinic, token, HERE) for token in tokens]
    assert sorted(one.name for one in known if one) == sorted(names)


def test_first_sign_ins_with_one_hub_account(clinic: Installation) -> None:
    named = replace(clinic, settings=clinic.settings.model_copy(update={"hub_accounts": ("ada",)}))
    act = partial(sign_ins.sign_in_from_hub, named, "Ada", HERE)
    tokens, refused = split(at_once(clinic, *[act] * 4))
    assert (len(set(tokens)), refused) == (4, [])
    with clinic.database.snapshot() as session:
        assert session.scalar(select(func.count()).select_from(Account)) == 1


def test_a_read_recorded_by_three_clicks(
    clinic: Installation, ada: Actor, saved: Callable[..., str]
) -> None:
    act = partial(reads.record, clinic, ada, saved())
    done, refused = split(at_once(clinic, *[partial(act, "none")] * 3))
    assert done == [1]
    assert refused == ["this examination has been read: say why the read is amended"] * 2
    amend = partial(act, "invasive", reason="levels have come")
    amended, refused = split(at_once(clinic, *[amend] * 3))
    assert (sorted(amended), refused) == ([2, 3, 4], [])
    assert verify.verify(clinic).problems == []


def test_a_report_downloaded_by_three_clicks(
    clinic: Installation,
    ada: Actor,
    saved: Callable[..., str],
    small_models: Models,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = threading.Barrier(3)

    def make(told: ReportedExamination) -> bytes:
        pdf = lay_out_examination(told)
        made.wait(PATIENCE)  # the slowest is as far as the others
        return pdf

    monkeypatch.setattr(reports, "lay_out_examination", make)
    act = partial(reports.issue_report, clinic, ada, small_models, saved())
    done, refused = split(at_once(clinic, *[act] * 3))
    assert (len(done), len(set(done)), refused) == (3, 1, [])
    with clinic.database.snapshot() as session:
        assert [one.id for one in session.scalars(select(StoredReport))] == [done[0][0]]
        logged = select(func.count()).where(AuditEntry.action == "report_handed_out")
        assert session.scalar(logged) == 3
    assert verify.verify(clinic).problems == []


def test_one_external_id(clinic: Installation, ada: Actor) -> None:
    act = partial(patients.create, clinic, ada, PatientForm("AB-1234"))
    done, refused = split(at_once(clinic, *[act] * 3))
    assert len(done) == 1
    assert refused == [f"you have a patient of this external id already: {done[0]}"] * 2


def test_one_account_name(clinic: Installation, doctors: dict[str, Actor]) -> None:
    act = partial(accounts.create, clinic, doctors["admin"], "new", "doctor")
    done, refused = split(at_once(clinic, *[act] * 3))
    assert len(done) == 1
    assert refused == ["there is an account 'new' already: choose another name"] * 2


def test_the_first_admin_of_three_starts(clinic: Installation) -> None:
    done, refused = split(at_once(clinic, *[partial(accounts.create_first_admin, clinic)] * 3))
    assert (sorted(one is None for one in done), refused) == ([False, True, True], [])


def test_the_last_admins_closing_each_other(clinic: Installation) -> None:
    one, two = (add_account(clinic, "admin") for _ in range(2))
    acts = [
        partial(accounts.set_active, clinic, actor, other.account_id, False)
        for actor, other in ((one, two), (two, one))
    ]
    _, refused = split(at_once(clinic, *acts))
    assert refused == ["this is the last admin: make another one first"]


def test_a_writer_waits_for_another_and_a_reader_for_none(clinic: Installation) -> None:
    begun, read, wrote = (threading.Event() for _ in range(3))
    count = select(func.count()).select_from(Account)

    def look() -> None:
        with clinic.database.snapshot() as session:
            session.scalar(count)
        read.set()

    def write() -> None:
        begun.set()
        with clinic.database.transaction() as session:
            session.scalar(count)
        wrote.set()

    threads = [threading.Thread(target=one) for one in (look, write)]
    with clinic.database.transaction() as session:
        session.scalar(count)  # which begins it
        for thread in threads:
            thread.start()
        assert read.wait(PATIENCE)
        assert begun.wait(PATIENCE)
        assert not wrote.wait(0.5)
    for thread in threads:
        thread.join()
    assert wrote.is_set()


def can_write(clinic: Installation) -> bool:
    """Whether no transaction keeps writers waiting just now."""
    file = clinic.database.sqlite_file
    if file is None:
        with clinic.database.snapshot() as session:
            return bool(session.scalar(select(func.pg_try_advisory_xact_lock(ADVISORY_LOCK))))
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True


def test_nobody_waits_for_files_and_hashing(
    clinic: Installation,
    doctors: dict[str, Actor],
    patient: str,
    saved: Callable[..., str],
    small_models: Models,
    keys: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They take longest, so no transaction goes on meanwhile."""
    ada, waits = doctors["ada"], []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def watched(*arguments: Any) -> Any:
            waits.append((name, can_write(clinic)))
            return real(*arguments)

        monkeypatch.setattr(owner, name, watched)

    for name in ("put", "read"):
        watch(Storage, name)
    for name in ("hash_password", "check"):
        watch(passwords, name)
    number = saved()
    reports.issue_report(clinic, ada, small_models, number)
    reports.issue_report(clinic, ada, small_models, number)
    assert export.export(clinic, ada, patient)
    today = datetime.now(UTC).date()
    assert answer_table.export_answers(clinic, ada, keys[0], Period(date(today.year, 1, 1), today))
    account, password = accounts.create(clinic, doctors["admin"], "new", "doctor")
    sign_ins.sign_in(clinic, "new", password, HERE)
    accounts.change_password(clinic, Actor(account, "new", "doctor", HERE), password, PASSWORD)
    accounts.reset_password(clinic, doctors["admin"], account)
    assert {name for name, _ in waits} == {"put", "read", "hash_password", "check"}
    assert [name for name, is_free in waits if not is_free] == []


# What changes between a look and the transaction


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Callable[[], Any]], None]:
    """Lets something happen once, just after a function has done its work."""

    def arrange(owner: Any, name: str, happens: Callable[[], Any]) -> None:
        real = getattr(owner, name)

        def done(*arguments: Any) -> Any:
            found = real(*arguments)
            monkeypatch.setattr(owner, name, real)
            happens()
            return found

        monkeypatch.setattr(owner, name, done)

    return arrange


@pytest.mark.parametrize("how", ["another password", "closed"])
def test_a_sign_in_with_what_held_a_moment_ago(
    clinic: Installation, doctors: dict[str, Actor], meanwhile: Any, how: str
) -> None:
    admin, doctor = doctors["admin"], add_account(clinic)
    happens = {
        "another password": lambda: accounts.reset_password(clinic, admin, doctor.account_id),
        "closed": lambda: accounts.set_active(clinic, admin, doctor.account_id, False),
    }
    meanwhile(passwords, "check", happens[how])
    with pytest.raises(SignInFailed):
        sign_ins.sign_in(clinic, doctor.name, PASSWORD, HERE)
    assert sign_ins.list_open_sessions(clinic, admin).rows == ()


def test_a_password_that_was_reset_a_moment_ago_is_not_changed(
    clinic: Installation, doctors: dict[str, Actor], meanwhile: Any
) -> None:
    doctor, given = add_account(clinic), []
    meanwhile(
        passwords,
        "check",
        lambda: given.append(accounts.reset_password(clinic, doctors["admin"], doctor.account_id)),
    )
    with pytest.raises(InputError, match="the present password is wrong"):
        accounts.change_password(clinic, doctor, PASSWORD, "another battery")
    assert sign_ins.sign_in(clinic, doctor.name, given[0], HERE)


@pytest.mark.parametrize("what", ["examination", "report", "export"])
def test_a_patient_deleted_a_moment_ago_leaves_no_file(
    clinic: Installation,
    ada: Actor,
    patient: str,
    analysed: tuple[Analysed, ...],
    saved: Callable[..., str],
    small_models: Models,
    meanwhile: Any,
    what: str,
) -> None:
    """Nothing of it is handed out either."""
    acts: dict[str, Callable[[str], Any]] = {
        "examination": lambda _: examinations.save(clinic, ada, patient, analysis, Details()),
        "report": lambda number: reports.issue_report(clinic, ada, small_models, number),
        "export": lambda _: export.export(clinic, ada, patient),
    }
    analysis, number = Analysis(analysed, shown=True), saved()

    def delete() -> None:
        # In a thread: the files are taken away once nobody saves any.
        deleting.start()
        while has_patient(clinic, ada):
            deleting.join(0.05)

    deleting = threading.Thread(target=patients.delete, args=(clinic, ada, patient, patient))
    meanwhile(Storage, "read" if what == "export" else "put", delete)
    with pytest.raises(Refused):
        acts[what](number)
    deleting.join(PATIENCE)
    assert list(clinic.storage.list_hashes()) == []
    assert verify.verify(clinic).problems == []


def has_patient(clinic: Installation, doctor: Actor) -> bool:
    return bool(patients.search_patients(clinic, doctor).total)
