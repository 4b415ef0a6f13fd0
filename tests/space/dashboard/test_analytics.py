"""The dashboard's figures, beside a count by hand of what is in the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import pytest

from bcd_models import Prediction
from bcd_models.errors import InputError
from clinic.analysis.analyse import Analysed, Analysis
from clinic.dashboard import analytics
from clinic.dashboard.agreement import Agreement
from clinic.dashboard.analytics import Period
from clinic.installation import Installation
from clinic.records import examinations, patients, reads
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.storage import clock
from clinic.storage.actor import Actor, NotSignedIn
from clinic.storage.tallies import model_key
from clinic.ui.shared.dashboard_figures import volume
from clinic.ui.shared.dashboard_page import _head

Save = Callable[..., str]
Said = list[list[Prediction]]
TODAY = date(2026, 11, 25)


DAYS = [date(2026, *day) for day in ((1, 31), (2, 1), (2, 28), (3, 1), (11, 25))]


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
    keys: list[str],
    first: date,
    last: date,
) -> None:
    for day in DAYS:
        save_on(day, ada, patient)
    expected = [day for day in DAYS if first <= day <= last]
    found = analytics.count_period(clinic, ada, keys[0], Period(first, last))
    assert found.examinations == found.answered == len(expected)
    assert found.images == sum(found.probabilities) == 2 * len(expected)
    assert sum(found.decisions.values()) == 2 * len(expected)
    period = Period(first, last)
    daily = period.days <= analytics.MAX_DAYS_BY_DAY
    spans = {(str(day) if daily else str(day)[:7]) for day in expected}
    assert {span for span, n in found.volume.items() if sum(n.values())} == spans
    assert sum(sum(n.values()) for n in found.volume.values()) == 2 * len(expected)
    assert (len(found.volume) == period.days) if daily else (min(found.volume) == str(first)[:7])
    assert list(found.volume) == sorted(found.volume)


def test_answers_and_bins_are_those_of_the_model(
    clinic: Installation, ada: Actor, patient: str, save_on: Save, keys: list[str], said: Said
) -> None:
    save_on(TODAY, ada, patient)
    assert analytics.list_models_used(clinic, ada) == sorted(keys)
    for key, answers in zip(keys, said, strict=True):
        found = analytics.count_period(clinic, ada, key, Period(TODAY, TODAY))
        for answer in answers:
            assert found.decisions[answer.decision] >= 1
            assert found.probabilities[int(answer.probability * 20)] >= 1
    assert analytics.find_first_day(clinic, ada) == TODAY


def test_at_or_above_the_threshold_are_those_left_to_a_pathologist_too(
    clinic: Installation, ada: Actor, patient: str, analysed: tuple[Analysed, ...], keys: list[str]
) -> None:
    """Twice each: label and decision, of which a page's share must go by the label."""
    answers = [("malignant", "refer"), ("benign", "refer"), ("malignant", "malignant")] * 2
    for label, decision in answers:
        image = analysed[0]
        said = {
            name: replace(one, prediction=replace(one.prediction, label=label, decision=decision))
            for name, one in image.explanations.items()
        }
        one = (replace(image, explanations=said),)
        examinations.save(clinic, ada, patient, Analysis(one, True), Details())
    today = clock.now().date()
    period = Period(today, today)
    found = analytics.count_period(clinic, ada, keys[0], period)
    assert found.decisions == {"refer": 4, "malignant": 2}
    assert found.positives == 4
    head = _head(found, period)
    assert "66.7% (4 of 6;" in head.partition("At or above the threshold")[2]
    assert "2 of them left to a pathologist" in head
    assert not any("threshold" in bar.name for bar in volume(found).data)  # they show decisions


def test_reads_are_compared_by_whether_the_answers_had_been_shown(
    clinic: Installation, ada: Actor, patient: str, save_on: Save, keys: list[str], said: Said
) -> None:
    positive = any(answer.label == "malignant" for answer in said[0])
    verdicts = [("invasive", False), ("none", False), ("none", True), ("indeterminate", True)]
    for verdict, shown in verdicts:
        reads.record(clinic, ada, save_on(TODAY, ada, patient, shown), verdict)
    save_on(TODAY, ada, patient)  # nobody reads this one
    found = analytics.count_period(clinic, ada, keys[0], Period(TODAY, TODAY)).agreement
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
    keys: list[str],
) -> None:
    ada, grace, admin = doctors["ada"], doctors["grace"], doctors["admin"]
    other = patients.create(clinic, grace, PatientForm())
    for doctor, whose in ((ada, patient), (ada, patient), (grace, other)):
        save_on(TODAY, doctor, whose)
    key, today = keys[0], Period(TODAY, TODAY)
    counts = [
        analytics.count_period(clinic, who, key, today).examinations for who in (ada, grace, admin)
    ]
    assert counts == [2, 1, 3]
    with pytest.raises(NotSignedIn):
        analytics.count_period(clinic, None, key, today)
    with pytest.raises(NotSignedIn):
        analytics.list_models_used(clinic, None)


def test_nothing_is_no_error(clinic: Installation, ada: Actor) -> None:
    assert analytics.list_models_used(clinic, ada) == []
    assert analytics.find_first_day(clinic, ada) is None
    found = analytics.count_period(clinic, ada, model_key("m", "1", "0"), Period(TODAY, TODAY))
    assert found.examinations == 0
    assert found.agreement["before"].kappa is None


@pytest.mark.parametrize(
    ("first", "last"),
    [(TODAY, TODAY - timedelta(days=1)), (date(1, 1, 1), TODAY), (TODAY, date(9999, 12, 31))],
)
def test_a_period_is_one(first: date, last: date) -> None:
    with pytest.raises(InputError):
        Period(first, last)
