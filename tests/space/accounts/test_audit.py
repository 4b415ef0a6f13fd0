"""The audit log as an admin reads it, on both databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clinic.accounts import audit as acts
from clinic.accounts.audit import Act
from clinic.installation import Installation
from clinic.records import examinations, patients
from clinic.records.patient_fields import PatientForm
from clinic.storage import clock
from clinic.storage.actor import Actor, NotAllowed, NotSignedIn
from clinic.storage.paging import MAX_ROWS
from clinic.storage.tables import Account

Doctors = dict[str, Actor]


def write(clinic: Installation, actor: Actor | None, action: str, subject: str = "") -> None:
    with clinic.database.transaction() as session:
        clinic.log.write(session, action, actor=actor, subject=subject, address="10.0.0.9", n=1)


def subjects(rows: tuple[Act, ...]) -> list[str]:
    return [act.subject for act in rows]


@pytest.fixture
def admin(doctors: Doctors) -> Actor:
    return doctors["admin"]


def test_the_newest_comes_first_with_all_that_was_noted(
    clinic: Installation, admin: Actor, ada: Actor
) -> None:
    write(clinic, ada, "signed_in")
    write(clinic, None, "sign_in_failed")
    write(clinic, admin, "account_changed", f"account {ada.account_id}")
    newest, stranger, oldest = acts.search_acts(clinic, admin).rows
    assert (newest.number, newest.account, newest.named) == (3, "admin", "ada")
    assert (newest.action, newest.address) == ("account_changed", "10.0.0.1")
    assert (stranger.account, stranger.address, stranger.named) == ("", "10.0.0.9", "")
    assert (oldest.number, oldest.subject, oldest.detail) == (1, "", {"n": 1})
    assert oldest.at <= newest.at <= clock.now()
    actions, accounts = acts.list_filters(clinic, admin)
    assert actions == ["account_changed", "sign_in_failed", "signed_in"]
    assert accounts == ["ada", "admin"]


def test_what_is_asked_for_is_shown_and_nothing_else(
    clinic: Installation, admin: Actor, doctors: Doctors
) -> None:
    for name in ("ada", "grace"):
        for subject in ("account 2", "account 20", "patient P-2", "patient 100%"):
            write(clinic, doctors[name], f"{name}_did", subject)
    assert {act.account for act in acts.search_acts(clinic, admin, account=" Ada ").rows} == {"ada"}
    assert {act.action for act in acts.search_acts(clinic, admin, action="grace_did").rows} == {
        "grace_did"
    }
    wanted = {
        "account 2": ["account 2"] * 2,
        " ACCOUNT  20 ": ["account 20"] * 2,
        "p-2": ["patient P-2"] * 2,
        "%": [],
        "100%": ["patient 100%"] * 2,
        "' OR 1=1 --": [],
    }
    for words, expected in wanted.items():
        assert subjects(acts.search_acts(clinic, admin, subject=words).rows) == expected
    both = acts.search_acts(clinic, admin, account="grace", subject="patient")
    assert (both.total, subjects(both.rows)) == (2, ["patient 100%", "patient P-2"])
    assert acts.search_acts(clinic, admin, account="nobody").total == 0


def test_a_patients_id_finds_its_examinations_too(
    clinic: Installation, admin: Actor, ada: Actor, patient: str, saved: Callable[..., str]
) -> None:
    examination = saved()
    examinations.view(clinic, ada, examination)
    patients.create(clinic, ada, PatientForm())
    found = acts.search_acts(clinic, admin, subject=patient.lower())
    assert subjects(found.rows) == [f"examination {examination}"] * 3 + [f"patient {patient}"]


def test_long_logs_come_a_page_at_a_time(clinic: Installation, admin: Actor) -> None:
    for number in range(MAX_ROWS + 3):
        write(clinic, admin, "signed_in", f"account {number}")
    first, second = (acts.search_acts(clinic, admin, page=page) for page in (1, 2))
    assert (first.total, first.pages) == (MAX_ROWS + 3, 2)
    assert first.rows[0].number == MAX_ROWS + 3
    assert [act.number for act in second.rows] == [3, 2, 1]
    assert acts.search_acts(clinic, admin, page=99).number == 2


def test_only_an_admin_reads_it(clinic: Installation, doctors: Doctors) -> None:
    write(clinic, doctors["ada"], "signed_in")
    for read in (acts.search_acts, acts.list_filters):
        assert read(clinic, doctors["admin"])
        with pytest.raises(NotAllowed):
            read(clinic, doctors["ada"])
        with pytest.raises(NotSignedIn):
            read(clinic, None)


def test_an_account_keeps_its_name_in_what_it_did(clinic: Installation, doctors: Doctors) -> None:
    """The log says the name of the time; the subject's is today's."""
    grace = doctors["grace"]
    write(clinic, grace, "signed_in", f"account {grace.account_id}")
    with clinic.database.transaction() as session:
        session.get_one(Account, grace.account_id).name = "hopper"
    (act,) = acts.search_acts(clinic, doctors["admin"], account="grace").rows
    assert (act.account, act.named) == ("grace", "hopper")
