"""The dashboard's figures, beside a count by hand of what is in the tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest

from bcd_models.errors import InputError
from clinic import analytics, clock, csv_file, examinations, patients, reads
from clinic.agreement import Agreement
from clinic.analytics import Period
from clinic.examinations import Analysed, Details
from clinic.installation import Installation
from clinic.models import Models
from clinic.patients import PatientForm
from clinic.permissions import Actor, NotAllowed, NotSignedIn

Save = Callable[..., str]
TODAY = date(2026, 11, 25)


@pytest.fixture
def save_on(
    clinic: Installation, analysed: tuple[Analysed, ...], monkeypatch: pytest.MonkeyPatch
) -> Save:
    """Saves an examination of both images on some day."""

    def save(day: date, doctor: Actor, patient: str, shown: bool = True) -> str:
        at = datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)
        with monkeypatch.context() as then:
            then.setattr(clock, "now", lambda: at)
            return examinations.save(clinic, doctor, patient, analysed, Details(), shown)

    return save


def key_of(models: Models, number: int = 0) -> str:
    offered = models.offered(models.names[number])
    return f"{offered.config.name} {offered.config.version} {offered.weights_sha256}"


DAYS = [
    date(2026, 1, 31),
    date(2026, 2, 1),
    date(2026, 2, 28),
    date(2026, 3, 1),
    date(2026, 11, 25),
]


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (date(2026, 2, 1), date(2026, 2, 28)),
        (date(2026, 2, 1), date(2026, 2, 27)),
        (date(2026, 2, 2), date(2026, 3, 1)),
        (date(2026, 1, 31), date(2026, 3, 1)),
        (date(2026, 1, 1), date(2026, 11, 25)),
        (date(2025, 12, 31), date(2026, 11, 24)),
        (date(2026, 2, 1), date(2026, 2, 1)),
        (date(2026, 6, 3), date(2026, 6, 9)),
    ],
)
def test_a_period_holds_its_days_and_no_other(
    clinic: Installation,
    ada: Actor,
    patient: str,
    save_on: Save,
    small_models: Models,
    first: date,
    last: date,
) -> None:
    for day in DAYS:
        save_on(day, ada, patient)
    expected = [day for day in DAYS if first <= day <= last]
    found = analytics.overview(clinic, ada, key_of(small_models), Period(first, last))
    assert found.examinations == found.answered == len(expected)
    assert found.images == sum(found.probabilities) == 2 * len(expected)
    assert sum(found.decisions.values()) == 2 * len(expected)
    period = Period(first, last)
    daily = period.days <= analytics.DAILY
    spans = {(str(day) if daily else str(day)[:7]) for day in expected}
    assert {span for span, n in found.volume.items() if sum(n.values())} == spans
    assert sum(sum(n.values()) for n in found.volume.values()) == 2 * len(expected)
    assert (len(found.volume) == period.days) if daily else (min(found.volume) == str(first)[:7])
    assert list(found.volume) == sorted(found.volume)


def test_answers_and_bins_are_those_of_the_model(
    clinic: Installation,
    ada: Actor,
    patient: str,
    save_on: Save,
    analysed: tuple[Analysed, ...],
    small_models: Models,
) -> None:
    save_on(TODAY, ada, patient)
    assert analytics.models_used(clinic, ada) == sorted(key_of(small_models, n) for n in (0, 1))
    for number, name in enumerate(small_models.names):
        answers = [one.explanations[name].prediction for one in analysed]
        found = analytics.overview(clinic, ada, key_of(small_models, number), Period(TODAY, TODAY))
        for answer in answers:
            assert found.decisions[answer.decision] >= 1
            assert found.probabilities[int(answer.probability * 20)] >= 1
    assert analytics.began(clinic, ada) == TODAY


def test_reads_are_compared_by_whether_the_answers_had_been_shown(
    clinic: Installation,
    ada: Actor,
    patient: str,
    save_on: Save,
    analysed: tuple[Analysed, ...],
    small_models: Models,
) -> None:
    name = small_models.names[0]
    positive = any(one.explanations[name].prediction.label == "malignant" for one in analysed)
    verdicts = [("invasive", False), ("none", False), ("none", True), ("indeterminate", True)]
    for verdict, shown in verdicts:
        reads.record(clinic, ada, save_on(TODAY, ada, patient, shown), verdict)
    save_on(TODAY, ada, patient)  # nobody reads this one
    found = analytics.overview(clinic, ada, key_of(small_models), Period(TODAY, TODAY)).agreement
    expected = {
        "before": Agreement(both=1, raised=1) if positive else Agreement(missed=1, neither=1),
        "after": Agreement(raised=1, indeterminate=1)
        if positive
        else Agreement(neither=1, indeterminate=1),
    }
    assert found == expected


def test_a_doctor_counts_own_patients_an_admin_all(
    clinic: Installation,
    doctors: dict[str, Actor],
    patient: str,
    save_on: Save,
    small_models: Models,
) -> None:
    ada, grace, admin = doctors["ada"], doctors["grace"], doctors["admin"]
    other = patients.create(clinic, grace, PatientForm())
    for doctor, whose in ((ada, patient), (ada, patient), (grace, other)):
        save_on(TODAY, doctor, whose)
    key, today = key_of(small_models), Period(TODAY, TODAY)
    counts = [
        analytics.overview(clinic, who, key, today).examinations for who in (ada, grace, admin)
    ]
    assert counts == [2, 1, 3]
    with pytest.raises(NotSignedIn):
        analytics.overview(clinic, None, key, today)
    with pytest.raises(NotSignedIn):
        analytics.models_used(clinic, None)


def test_nothing_is_no_error(clinic: Installation, ada: Actor) -> None:
    assert analytics.models_used(clinic, ada) == []
    assert analytics.began(clinic, ada) is None
    found = analytics.overview(clinic, ada, "m 1 0", Period(TODAY, TODAY))
    assert found.examinations == 0
    assert found.agreement["before"].kappa is None


@pytest.mark.parametrize(
    ("first", "last"),
    [(TODAY, TODAY - timedelta(days=1)), (date(1, 1, 1), TODAY), (TODAY, date(9999, 12, 31))],
)
def test_a_period_is_one(first: date, last: date) -> None:
    with pytest.raises(InputError):
        Period(first, last)


def rows_of(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_answers_are_exported_with_their_reads_and_no_formula(
    clinic: Installation,
    doctors: dict[str, Actor],
    patient: str,
    save_on: Save,
    analysed: tuple[Analysed, ...],
    small_models: Models,
) -> None:
    ada, key, today = doctors["ada"], key_of(small_models), Period(TODAY, TODAY)
    seen, hidden = save_on(TODAY, ada, patient), save_on(TODAY, ada, patient, shown=False)
    save_on(TODAY - timedelta(days=1), ada, patient)
    reads.record(clinic, ada, seen, "none")
    reads.record(clinic, ada, seen, "invasive", '=HYPERLINK("http://x","größer")', "once more")
    rows = rows_of(analytics.answers_csv(clinic, ada, key, today))
    assert [(row["examination"], row["image"]) for row in rows] == [(seen, "1"), (seen, "2")]
    for row, one in zip(rows, analysed, strict=True):
        answer = one.explanations[small_models.names[0]].prediction
        assert float(row["probability"]) == answer.probability
        assert (row["patient"], row["external_id"]) == (patient, "AB-1234")
        assert (row["read"], row["read_after_answer"]) == ("invasive", "True")
        assert row["comment_on_read"] == '\'=HYPERLINK("http://x","größer")'
    examinations.view(clinic, ada, hidden, reveal=True)
    assert len(rows_of(analytics.answers_csv(clinic, ada, key, today))) == 4
    assert rows_of(analytics.answers_csv(clinic, doctors["grace"], key, today)) == []
    with pytest.raises(NotAllowed):
        analytics.answers_csv(clinic, doctors["admin"], key, today)
    with pytest.raises(InputError):
        analytics.answers_csv(clinic, ada, "none", today)


@pytest.mark.parametrize("begin", list("=+-@\t\r\n＝＋－＠"))
def test_no_cell_begins_a_formula(begin: str) -> None:
    data = csv_file.written(["a"], [[f"{begin}1+1"], [-1.5], [None], ["a=1"]])
    cells = [row["a"] for row in rows_of(data)]
    assert cells == [f"'{begin}1+1", "-1.5", "", "a=1"]
