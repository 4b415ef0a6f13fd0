"""Attacks on the running app that take many requests: every function, every text, guesses."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import func, select
from starlette.testclient import TestClient

from clinic.analysis.analyse import Analysed, Analysis
from clinic.analysis.models import Models
from clinic.records import examinations, patients, reads
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.reports import service as reports
from clinic.storage.actor import Actor
from clinic.storage.tables import AuditEntry, Examination, Look, Patient, Read, StoredReport
from tests.support.serving import Serving, add_account, in_json, sign_in, start_call, upload

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # in Gradio
SECRET = "hers-alone"
HOSTILE = "<img src=x onerror=alert(1)>"
ESCAPED = "&lt;img src=x onerror=alert(1)&gt;"
TABLES = (Patient, Examination, Read, Look, StoredReport)
TEXTS = ("textbox", "number")


@dataclass(frozen=True)
class Records:
    """A doctor's patient with an examination that was read and reported."""

    owner: Actor
    patient: str
    examination: str


def kept(serving: Serving, models: Models, analysed: tuple[Analysed, ...], words: str) -> Records:
    """Records whose every text holds some words."""
    clinic, owner = serving.clinic, add_account(serving.clinic)
    external = f"ZZ-{secrets.randbelow(10**10):010}"
    patient = patients.create(clinic, owner, PatientForm(external, 1950, f"{words} note"))
    details = Details(comment=f"{words} comment")
    examination = examinations.save(clinic, owner, patient, Analysis(analysed, True), details)
    reads.record(clinic, owner, examination, "none", f"{words} read")
    reads.record(clinic, owner, examination, "invasive", f"{words} again", f"{words} reason")
    reports.issue_report(clinic, owner, models, examination)
    return Records(owner, patient, examination)


@dataclass(frozen=True)
class Function:
    """One of the app's functions, as any browser is told of it.

    Attributes:
        number: By which it is called.
        inputs: Type and first value of each.
        outputs: Type of each.
    """

    number: int
    inputs: list[tuple[str, Any]]
    outputs: list[str]


def functions(client: TestClient) -> Iterator[Function]:
    """All that a session may call, on whatever page."""
    config = client.get("/config").json()
    parts = {one["id"]: one for one in config["components"]}
    for one in config["dependencies"]:
        if one["backend_fn"]:
            inputs = [parts[number] for number in one["inputs"]]
            yield Function(
                one["id"],
                [(part["type"], part["props"].get("value")) for part in inputs],
                [parts[number]["type"] for number in one["outputs"]],
            )


def called(
    serving: Serving, actor: Actor, function: Function, record_id: str, text: str
) -> list[Any]:
    """Call a function as a page with an id in its address does, with a text in every field.

    Each in a session of its own, as some functions end it.

    Returns:
        Its outputs; where it fails, what it tells.
    """
    client = serving.visitor(actor)
    data = [text if kind in TEXTS else value for kind, value in function.inputs]
    session = secrets.token_hex(8)
    asked = {"data": data, "fn_index": function.number, "session_hash": session}
    joined = client.post("/gradio_api/queue/join", params={"id": record_id}, json=asked)
    assert joined.status_code in (200, 400), joined.text
    if joined.status_code == 400:
        return []
    stream = client.get("/gradio_api/queue/data", params={"session_hash": session}).text
    assert "Traceback" not in stream
    messages = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
    (done,) = (one for one in messages if one["msg"] == "process_completed")
    return list(done["output"].get("data", [])) if done["success"] else [done["output"]["error"]]


def rows_of(serving: Serving, records: Records) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that the database holds of some records."""
    found = {}
    with serving.clinic.database.snapshot() as session:
        for table in TABLES:
            columns = table.__table__.columns
            if table is Patient:
                mine = columns.id == records.patient
            else:
                name = "id" if table is Examination else "examination_id"
                mine = columns[name] == records.examination
            order = tuple(table.__table__.primary_key)
            rows = session.execute(select(table.__table__).where(mine).order_by(*order))
            found[table.__tablename__] = [tuple(row) for row in rows]
    return found


@pytest.mark.slow
def test_no_function_tells_or_changes_another_s_records(serving, small_models, analysed) -> None:
    hers = kept(serving, small_models, analysed, SECRET)
    before, files = rows_of(serving, hers), set(serving.clinic.storage.list_hashes())
    assert all(before.values())
    other = add_account(serving.clinic)
    known = list(functions(serving.visitor(other)))
    assert len(known) > 20
    for function in known:
        for record_id in (hers.patient, hers.examination):
            said = json.dumps(called(serving, other, function, record_id, record_id))
            assert SECRET not in said, function
    assert rows_of(serving, hers) == before
    assert files <= set(serving.clinic.storage.list_hashes())

    with serving.clinic.database.snapshot() as session:
        refused = select(AuditEntry.subject).where(
            AuditEntry.action == "refused", AuditEntry.account_id == other.account_id
        )
        subjects = set(session.scalars(refused))
    assert {f"patient {hers.patient}", f"examination {hers.examination}"} <= subjects


@pytest.mark.slow
def test_the_same_calls_by_their_owner_do_both(serving, small_models, analysed) -> None:
    """Or the test above would pass whatever the app does."""
    hers = kept(serving, small_models, analysed, SECRET)
    before = rows_of(serving, hers)
    said = [
        json.dumps(called(serving, hers.owner, function, record_id, record_id))
        for function in functions(serving.visitor(hers.owner))
        for record_id in (hers.examination, hers.patient)
    ]
    assert any(SECRET in one for one in said)
    assert rows_of(serving, hers) != before


@pytest.mark.slow
def test_no_page_interprets_what_users_typed(serving, small_models, analysed) -> None:
    hers = kept(serving, small_models, analysed, HOSTILE)
    shown = []
    for function in functions(serving.visitor(hers.owner)):
        if any(kind not in TEXTS for kind, _ in function.inputs):
            continue
        for record_id in (hers.examination, hers.patient):
            outputs = called(serving, hers.owner, function, record_id, "")
            pairs = zip(function.outputs, outputs, strict=False)
            shown += [json.dumps(value) for kind, value in pairs if kind == "html"]
    assert not [value for value in shown if HOSTILE in value]
    for field in ("note", "comment", "again", "reason"):
        assert any(f"{ESCAPED} {field}" in value for value in shown), field


def test_an_image_that_unpacks_to_very_much_is_refused(serving) -> None:
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    client = serving.visitor()
    event = start_call(
        client, "predict", in_json(upload(client, bomb.getvalue())), serving.models.names[0]
    )
    stream = client.get(f"/gradio_api/call/predict/{event}").text
    assert "event: error" in stream
    assert "pixels" in stream


@pytest.mark.slow
def test_of_a_thousand_guesses_few_are_looked_at_and_all_are_logged(serving) -> None:
    ada = add_account(serving.clinic)
    answers = []
    for number in range(1000):
        guesser = serving.visitor(address=f"10.9.{number % 50}.{number // 50 + 1}")
        answers.append(sign_in(guesser, ada.name, f"guess {number}").status_code)
    assert set(answers) == {401, 429}
    assert answers.count(401) < 20
    assert sign_in(serving.visitor(), ada.name).status_code == 429  # with the right one too
    with serving.clinic.database.snapshot() as session:
        failed = select(func.count()).select_from(AuditEntry)
        mine = AuditEntry.address.like("10.9.%"), AuditEntry.action == "sign_in_failed"
        assert session.scalar(failed.where(*mine)) == 1000
