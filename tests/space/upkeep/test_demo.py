"""The demonstration: its doctor, its synthetic patients, and starts that were cut off."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clinic.accounts import accounts, sign_ins
from clinic.analysis.analyse import Analysed, HandedIn
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.records import examinations, patients, reads
from clinic.records.patient_fields import PatientForm
from clinic.records.patients import PatientRow
from clinic.storage.actor import Actor
from clinic.storage.tables import AuditEntry, Examination
from clinic.upkeep import demo
from tests.conftest import ROOT
from tests.support.clinic import NAMES

HERE = "10.0.0.1"


class Killed(BaseException):
    """Stands for the end of the process."""


def doctor(clinic: Installation) -> Actor:
    """The demonstration's doctor."""
    (one,) = (row for row in accounts.list_accounts(clinic, demo.APP) if row.name == demo.NAME)
    return Actor(one.id, one.name, one.role, HERE)


def signed_in(clinic: Installation) -> Actor | None:
    """Whoever signs in with what everybody is shown."""
    token = sign_ins.sign_in(clinic, *demo.read_login(clinic.settings), HERE)
    return sign_ins.find_actor(clinic, token, HERE)


def records(clinic: Installation) -> dict[str, PatientRow]:
    found = patients.search_patients(clinic, doctor(clinic)).rows
    return {row.external_id or row.note: row for row in found}


def examined(clinic: Installation) -> dict[str, list[Examination]]:
    """Each patient's examinations with images, results and reads, the oldest first."""
    actor = doctor(clinic)
    return {
        name: [
            examinations.view(clinic, actor, one.id)[0]
            for one in examinations.list_examinations(clinic, actor, row.id)[::-1]
        ]
        for name, row in records(clinic).items()
    }


def state(clinic: Installation) -> dict[str, Any]:
    """What there is, without ids and times."""
    return {
        name: [
            (
                one.comment,
                [(image.sha256, len(image.results)) for image in one.images],
                [(read.verdict, read.result_shown, read.reason) for read in one.reads],
            )
            for one in several
        ]
        for name, several in examined(clinic).items()
    }


@pytest.fixture
def database_url() -> str:
    """SQLite: what differs between databases lies in the services."""
    return ""


@pytest.fixture(scope="module")
def known() -> dict[bytes, tuple[Analysed, ...]]:
    """What the models said of each image so far."""
    return {}


@pytest.fixture(autouse=True)
def analysed_once(
    known: dict[bytes, tuple[Analysed, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests fill many installations, all with the same images."""
    analyse = demo.analyse

    def once(models: Models, handed_in: list[HandedIn], names: list[str]) -> tuple[Analysed, ...]:
        (one,) = handed_in
        if one.data not in known:
            known[one.data] = analyse(models, handed_in, names)
        return known[one.data]

    monkeypatch.setattr(demo, "analyse", once)


@pytest.fixture
def filled(clinic: Installation, small_models: Models) -> Installation:
    demo.fill(clinic, small_models)
    return clinic


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a service's function end the process at its n-th call."""

    def at(module: Any, name: str, number: int) -> None:
        calls, whole = Counter[str](), getattr(module, name)

        def cut(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            if calls[name] == number:
                raise Killed
            return whole(*given, **named)

        monkeypatch.setattr(module, name, cut)

    return at


def test_it_has_patients_examinations_and_reads(filled: Installation) -> None:
    found = examined(filled)
    assert sorted(found) == [f"DEMO-{number:02}" for number in range(1, 9)]
    every = [one for several in found.values() for one in several]
    assert all(several for several in found.values())
    assert all(1 <= len(one.images) <= 3 for one in every)
    for image in (image for one in every for image in one.images):
        assert [result.model for result in image.results] == list(NAMES)
        assert image.field_width_um == 200
    said = Counter(read.result_shown for one in every for read in one.reads)
    assert said[True] > 1
    assert said[False] > 1
    assert sum(len(one.reads) == 2 for one in every) == 1
    assert examinations.list_unread(filled, doctor(filled)).total == 2
    assert {read.verdict for one in every for read in one.reads} == set(reads.VERDICTS)


def test_all_of_it_says_that_it_is_synthetic(filled: Installation) -> None:
    assert all(row.synthetic for row in records(filled).values())
    words = [row.note for row in records(filled).values()]
    for one in (one for several in examined(filled).values() for one in several):
        words += [one.comment, *(read.comment for read in one.reads)]
        words += [read.reason for read in one.reads if read.reason]
    assert len(words) > 20
    assert all(text.startswith(demo.SYNTHETIC) for text in words)


def test_a_second_start_makes_nothing_more(filled: Installation, small_models: Models) -> None:
    before, rows = state(filled), records(filled)
    demo.fill(filled, small_models)
    assert state(filled) == before
    assert records(filled) == rows


def test_what_visitors_change_stays(filled: Installation, small_models: Models) -> None:
    actor, rows = doctor(filled), records(filled)
    gone, put_aside, renamed = (rows[f"DEMO-0{number}"] for number in (1, 2, 3))
    patients.delete(filled, actor, gone.id, gone.id)
    patients.archive(filled, actor, put_aside.id)
    patients.edit(filled, actor, renamed.id, PatientForm("AB-12"), renamed.version)
    before = records(filled)
    demo.fill(filled, small_models)
    assert records(filled) == before


def test_it_is_filled_anew_once_nothing_is_left(filled: Installation, small_models: Models) -> None:
    before, actor = state(filled), doctor(filled)
    for row in records(filled).values():
        patients.delete(filled, actor, row.id, row.id)
    demo.fill(filled, small_models)
    assert state(filled) == before


@pytest.mark.parametrize(
    ("module", "name", "number"),
    [
        (patients, "create", 3),
        (demo, "analyse", 4),
        (examinations, "save", 5),
        (reads, "record", 3),
    ],
)
def test_a_start_that_was_cut_off_is_gone_on_with(
    clinic: Installation,
    small_models: Models,
    cut_off: Callable[..., None],
    module: Any,
    name: str,
    number: int,
) -> None:
    cut_off(module, name, number)
    with pytest.raises(Killed):
        demo.fill(clinic, small_models)
    begun = {row.id for row in records(clinic).values()}
    demo.fill(clinic, small_models)
    assert len(records(clinic)) == len(demo.PATIENTS)
    assert begun <= {row.id for row in records(clinic).values()}
    for several, patient in zip(state(clinic).values(), demo.PATIENTS[::-1], strict=True):
        assert [len(one[2]) for one in several] == [len(e.reads) for e in patient.examinations]


APP = """
import sys
from pathlib import Path
from clinic.analysis.models import Models
from clinic.installation import open_installation
from clinic.upkeep import demo
from tests.support.clinic import settings_at
demo.start(open_installation(settings_at(Path(sys.argv[1]))), Models(sys.argv[2:]))
"""


@pytest.mark.slow
def test_it_ends_with_the_app(clinic: Installation, small_models: Models, tmp_path: Path) -> None:
    folders = [str(small_models.describe(name).folder) for name in NAMES]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'space'}"}
    command = [sys.executable, "-c", APP, str(tmp_path), *folders]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, timeout=600)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(records(clinic)) < len(demo.PATIENTS)
    demo.fill(clinic, small_models)
    assert len(records(clinic)) == len(demo.PATIENTS)


def test_the_password_is_the_one_that_is_shown(filled: Installation, small_models: Models) -> None:
    actor, shown = signed_in(filled), demo.read_login(filled.settings)[1]
    accounts.change_password(filled, actor, shown, "a visitor's own one")
    with pytest.raises(sign_ins.SignInFailed):
        signed_in(filled)
    demo.fill(filled, small_models)
    assert demo.read_login(filled.settings)[1] == shown
    assert signed_in(filled) == actor


def test_a_closed_doctor_stays_closed(filled: Installation, small_models: Models) -> None:
    accounts.create(filled, demo.APP, "admin", "admin")
    accounts.set_active(filled, demo.APP, doctor(filled).account_id, False)
    demo.fill(filled, small_models)
    with pytest.raises(sign_ins.SignInFailed):
        signed_in(filled)


def test_ids_are_left_out_where_the_pattern_is_another(
    clinic: Installation, small_models: Models
) -> None:
    clinic = replace(
        clinic, settings=clinic.settings.model_copy(update={"external_id": "[0-9]{6}"})
    )
    for _ in range(2):
        (clinic.settings.data / demo.FILLED).unlink(missing_ok=True)
        demo.fill(clinic, small_models)
        assert [row.external_id for row in records(clinic).values()] == [None] * 8


def test_it_is_all_in_the_log(filled: Installation) -> None:
    with filled.database.snapshot() as session:
        first, *others = session.query(AuditEntry).order_by(AuditEntry.number).all()
        assert filled.log.find_problems(session) == []
    assert (first.action, first.account_name) == ("account_made", "the app")
    assert {row.account_name for row in others} == {"demo"}
    assert {"patient_made", "examined", "results_shown", "read_recorded"} <= {
        row.action for row in others
    }


def test_a_failure_is_one_line_and_ends_nothing(
    clinic: Installation, small_models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    accounts.create(clinic, demo.APP, demo.NAME, "admin")
    demo.start(clinic, small_models).join(60)
    (line,) = caplog.messages
    assert re.fullmatch(r"the demonstration is not complete: the account demo is an admin.*", line)
