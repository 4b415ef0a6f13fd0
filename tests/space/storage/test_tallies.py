"""The dashboard's tallies are what counting everything anew finds, after every act."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, text, update

from clinic.accounts import accounts
from clinic.analysis.analyse import Analysed, Analysis
from clinic.installation import Installation, open_installation
from clinic.records import examinations, patients, reads
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.storage import tallies
from clinic.storage.actor import Actor
from clinic.storage.tables import Tally
from clinic.storage.tallies import AGREEMENT, ANY_MODEL, EVERYBODY, EXAMINATIONS, POSITIVES
from clinic.upkeep import verify

Saved = Callable[..., str]


def sound(clinic: Installation) -> bool:
    with clinic.database.snapshot() as session:
        return tallies.are_sound(session)


def total(clinic: Installation, owner: int, kind: str, model: str | None = ANY_MODEL) -> int:
    """Sum over all months; of any model where there is None."""
    with clinic.database.snapshot() as session:
        found = tallies.count_all(session)
    return sum(
        number
        for cell, number in found.items()
        if cell.owner_id == owner
        and cell.kind == kind
        and cell.span.startswith("M")
        and model in (None, cell.model)
    )


def test_they_follow_every_act(
    clinic: Installation, doctors: dict[str, Actor], patient: str, saved: Saved
) -> None:
    ada, grace, admin = doctors["ada"], doctors["grace"], doctors["admin"]
    assert sound(clinic)
    hidden, shown, third = saved(False), saved(), saved()
    assert sound(clinic)
    assert total(clinic, ada.account_id, EXAMINATIONS) == 3
    reads.record(clinic, ada, hidden, "invasive")
    reads.record(clinic, ada, shown, "indeterminate")
    assert sound(clinic)
    assert total(clinic, ada.account_id, AGREEMENT, None) == 4  # of two models each
    examinations.view(clinic, ada, hidden, reveal=True)
    reads.record(clinic, ada, hidden, "none", reason="seen once more")
    reads.record(clinic, ada, third, "none")
    assert sound(clinic)
    assert total(clinic, ada.account_id, AGREEMENT, None) == 6
    patients.archive(clinic, ada, patient)
    assert sound(clinic)
    patients.restore(clinic, ada, patient)
    accounts.set_active(clinic, admin, ada.account_id, False)
    patients.hand_over(clinic, admin, ada.account_id, grace.account_id)
    assert sound(clinic)
    assert total(clinic, ada.account_id, EXAMINATIONS) == 0
    assert total(clinic, grace.account_id, EXAMINATIONS) == 3
    assert total(clinic, EVERYBODY, EXAMINATIONS) == 3
    patients.delete(clinic, grace, patient, patient)
    assert sound(clinic)
    assert total(clinic, EVERYBODY, EXAMINATIONS) == 0


def test_acts_at_once_lose_no_count(
    clinic: Installation, doctors: dict[str, Actor], analysed: tuple[Analysed, ...]
) -> None:
    def work(doctor: Actor) -> None:
        patient = patients.create(clinic, doctor, PatientForm())
        for verdict in ("none", "invasive"):
            saved = examinations.save(clinic, doctor, patient, Analysis(analysed, True), Details())
            reads.record(clinic, doctor, saved, verdict)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [doctors["ada"], doctors["grace"]] * 4))
    assert total(clinic, EVERYBODY, EXAMINATIONS) == 16
    assert sound(clinic)


def test_what_was_there_before_them_is_counted_at_a_start(
    clinic: Installation, saved: Saved
) -> None:
    saved()
    with clinic.database.transaction() as session:
        session.execute(delete(Tally))
    again = open_installation(clinic.settings)
    again.database.engine.dispose()
    assert sound(clinic)
    with clinic.database.transaction() as session:
        session.execute(update(Tally).values(count=Tally.count + 1))
    again = open_installation(clinic.settings)  # what is there is not counted once more
    again.database.engine.dispose()
    assert not sound(clinic)


def test_an_installation_whose_tallies_hold_no_positives_is_counted_anew(
    clinic: Installation, saved: Saved
) -> None:
    saved()
    with clinic.database.transaction() as session:
        session.execute(delete(Tally).where(Tally.kind == POSITIVES))
        later = (
            *("runtime", "mpp", "scale", "tile_probabilities", "point", "missed_of_100"),
            *("findings", "tile_findings", "ignored"),
        )
        for column in later:
            session.execute(text(f"ALTER TABLE result DROP COLUMN {column}"))
        session.execute(text("ALTER TABLE account DROP COLUMN point"))
        session.execute(text("UPDATE alembic_version SET version_num = '0003'"))
    again = open_installation(clinic.settings)
    again.database.engine.dispose()
    assert sound(clinic)
    assert verify.verify(clinic).problems == []


def test_verify_finds_and_mends_a_wrong_count(clinic: Installation, saved: Saved) -> None:
    saved()
    assert verify.verify(clinic).problems == []
    with clinic.database.transaction() as session:
        session.execute(
            update(Tally).where(Tally.kind == EXAMINATIONS).values(count=Tally.count + 1)
        )
    assert any("tallies" in problem for problem in verify.verify(clinic, repair=True).problems)
    assert verify.verify(clinic).problems == []


@pytest.mark.parametrize(
    ("probability", "number"), [(0, 0), (0.0499, 0), (0.05, 1), (0.9999, 19), (1, 19)]
)
def test_bins(probability: float, number: int) -> None:
    assert tallies.find_bin(probability) == number
