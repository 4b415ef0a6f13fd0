"""What the dashboard costs with 100,000 examinations, beside counting them once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Insert, event, func, insert, select

from bcd_models.decision import Decision
from clinic.dashboard import analytics
from clinic.dashboard.analytics import Period
from clinic.installation import Installation, open_installation
from clinic.settings import Settings
from clinic.storage import tallies
from clinic.storage.actor import Actor
from clinic.storage.tables import Account, Examination, ExaminedImage, Patient, Read, Result, Tally
from clinic.storage.tallies import model_key
from tests.benchmarks.record import record
from tests.benchmarks.timing import in_turn, ratio

EXAMINATIONS, PATIENTS, DOCTORS = 100_000, 20_000, 10
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
MODELS = ("bcd-mobilenetv2", "bcd-efficientnet-b2")
WEIGHTS = "a" * 64
KEY = model_key(MODELS[0], "0.1.0", WEIGHTS)
PERIODS = {
    "two years": Period(date(2024, 11, 2), date(2026, 11, 1)),
    "90 days": Period(date(2026, 8, 4), date(2026, 11, 1)),
}
ACTORS = {"doctor": Actor(1, "d1", "doctor", ""), "admin": Actor(99, "admin", "admin", "")}
RUNS = 15


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Made-up rows straight into the tables, and their tallies."""
    folder = tmp_path_factory.mktemp("clinic")
    opened = open_installation(Settings(models=(), data=folder))
    with opened.database.transaction() as session:
        for statement, rows in made_up(random.Random(0)):
            session.execute(statement, rows)
    with opened.database.transaction() as session:
        tallies.rebuild(session)
    yield opened
    opened.database.engine.dispose()


def made_up(chance: random.Random) -> Iterator[tuple[Insert, list[dict[str, Any]]]]:
    """Rows by table, those first that others refer to."""
    doctors = [f"d{number}" for number in range(1, DOCTORS + 1)]
    yield (
        insert(Account),
        [{"name": name, "role": "doctor", "active": True, "created_at": NOW} for name in doctors],
    )
    yield insert(Patient), [patient(number) for number in range(PATIENTS)]
    moments = [NOW - timedelta(minutes=chance.randrange(730 * 1440)) for _ in range(EXAMINATIONS)]
    yield insert(Examination), [examination(*pair) for pair in enumerate(moments)]
    yield insert(ExaminedImage), [image(number) for number in range(EXAMINATIONS)]
    answers = [(number, at, model) for number, at in enumerate(moments) for model in MODELS]
    yield insert(Result), [result(*one, chance.betavariate(0.5, 1.2)) for one in answers]
    reads = [pair for pair in enumerate(moments) if pair[0] % 3]
    verdicts = ("invasive", "none", "none", "indeterminate")
    yield insert(Read), [read(*pair, chance.choice(verdicts)) for pair in reads]


def patient(number: int) -> dict[str, Any]:
    of = {"id": f"P-{number:010}", "owner_id": 1 + number % DOCTORS, "note": "", "version": 1}
    return {**of, "synthetic": True, "created_at": NOW, "changed_at": NOW}


def examination(number: int, at: datetime) -> dict[str, Any]:
    of = {"id": f"E-{number:010}", "patient_id": f"P-{number % PATIENTS:010}", "made_by": 1}
    return {**of, "created_at": at, "stain": "H&E", "specimen": "other", "comment": ""}


def image(number: int) -> dict[str, Any]:
    of = {"id": number + 1, "examination_id": f"E-{number:010}", "position": 1}
    return {**of, "sha256": f"{number:064x}", "format": "PNG", "width": 50, "height": 50}


def result(number: int, at: datetime, model: str, probability: float) -> dict[str, Any]:
    label = "malignant" if probability > 0.33 else "benign"
    decision: Decision = "refer" if 0.28 < probability < 0.38 else label
    model_of = {"model": model, "model_version": "0.1.0", "weights_sha256": WEIGHTS}
    said = {"label": label, "probability": probability, "decision": decision, "threshold": 0.33}
    rest = {"image_id": number + 1, "made_at": at, "reasons": [], "heat_sha256": f"{number:064x}"}
    return {**model_of, **said, **rest}


def read(number: int, at: datetime, verdict: str) -> dict[str, Any]:
    of = {"examination_id": f"E-{number:010}", "number": 1, "verdict": verdict, "by": 1, "at": at}
    return {**of, "comment": "", "reason": "", "result_shown": bool(number % 2)}


@pytest.mark.bench
@pytest.mark.parametrize("role", ACTORS)
@pytest.mark.parametrize("time_", PERIODS)
def test_an_overview_costs_no_more_than_three_counts(
    clinic: Installation, role: str, time_: str
) -> None:
    def count() -> None:
        with clinic.database.snapshot() as session:
            found = session.scalar(select(func.count()).select_from(Examination))
            assert found == EXAMINATIONS

    def overview() -> analytics.Overview:
        return analytics.count_period(clinic, ACTORS[role], KEY, PERIODS[time_])

    assert overview().examinations > 0
    ours, baseline = in_turn(overview, count, runs=RUNS)
    record(
        f"dashboard of {EXAMINATIONS:,} examinations, {role}, {time_}",
        "one count of the examinations",
        ratio(ours, baseline),
        at_most=3,
    )


@pytest.mark.bench
def test_an_overview_reads_parts_of_the_tallies_by_their_key(clinic: Installation) -> None:
    """The plan of each query: never a scan of a table."""
    asked: list[tuple[str, Any]] = []
    engine = clinic.database.engine

    @event.listens_for(engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, values))

    analytics.count_period(clinic, ACTORS["doctor"], KEY, PERIODS["two years"])
    event.remove(engine, "before_cursor_execute", note)
    assert any(Tally.__tablename__ in statement for statement, _ in asked)
    with engine.connect() as connection:
        for statement, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            steps = [row[-1] for row in plan]
            assert not [step for step in steps if step.startswith("SCAN")], steps
