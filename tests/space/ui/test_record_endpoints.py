"""A doctor's endpoints: the owner's records answer, nobody else's, and what can't be is told."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import pytest
from PIL import Image
from pypdf import PdfReader
from starlette.testclient import TestClient

from clinic.records import examinations, patients
from clinic.storage.actor import Actor
from tests.support.clinic import NAMES, PATCHES
from tests.support.serving import Serving, add_account, answer, in_json, start_call, upload

ENDPOINTS = ("create_patient", "save_examination", "record_read", "examination_report")


@dataclass(frozen=True)
class Record:
    """A doctor's patient with an examination."""

    owner: Actor
    patient: str
    examination: str


@pytest.fixture(scope="module")
def record(serving: Serving) -> Record:
    owner = add_account(serving.clinic)
    client = serving.visitor(owner)
    patient = answer(client, "create_patient", "AB-1234", 1957, "")[0]["patient"]
    image = in_json(upload(client, PATCHES[0].read_bytes()))
    saved = answer(client, "save_examination", *_examined(patient, image))[0]
    return Record(owner, patient, saved["examination"])


def _examined(
    patient: str, image: object, width: float = 0, pixel: float = 0, mpp: float = 0, **more: bool
) -> list[object]:
    details = "H&E", "not known", "", more.get("shown", True)
    return [patient, [image], [NAMES[0]], width, pixel, *details, mpp]


def _calls(record: Record, image: object) -> dict[str, list[object]]:
    return {
        "create_patient": ["", 0, ""],
        "save_examination": _examined(record.patient, image),
        "record_read": [record.examination, "none", "", ""],
        "examination_report": [record.examination],
    }


def told(client: TestClient, endpoint: str, *data: object) -> str:
    """What a call that fails tells."""
    event = start_call(client, endpoint, *data)
    stream = client.get(f"/gradio_api/call/{endpoint}/{event}").text
    assert "event: error" in stream, stream
    return stream


@pytest.mark.parametrize("endpoint", ENDPOINTS[1:])
def test_another_s_record_reads_like_none(serving: Serving, record: Record, endpoint: str) -> None:
    other = serving.visitor(add_account(serving.clinic))

    def tried(of: Record) -> str:
        image = in_json(upload(other, PATCHES[0].read_bytes()))
        return told(other, endpoint, *_calls(of, image)[endpoint])

    def kept() -> tuple[int, int]:
        clinic, owner = serving.clinic, record.owner
        found, _ = examinations.view(clinic, owner, record.examination)
        return len(found.reads), len(examinations.list_examinations(clinic, owner, record.patient))

    before, absent = kept(), Record(record.owner, "P-0000000000", "E-0000000000")
    assert "there is no such" in tried(record)
    assert tried(record) == tried(absent)
    assert kept() == before


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("role", ["guest", "admin"])
def test_who_is_no_doctor_has_no_such_endpoint(
    serving: Serving, record: Record, endpoint: str, role: str
) -> None:
    actor = add_account(serving.clinic, "admin") if role == "admin" else None
    data = _calls(record, None)[endpoint]
    reply = serving.visitor(actor).post(f"/gradio_api/call/{endpoint}", json={"data": data})
    assert reply.status_code == 400
    assert "there is no such function" in reply.text


def test_the_owner_goes_all_the_way(serving: Serving, record: Record) -> None:
    client = serving.visitor(record.owner)
    read = answer(client, "record_read", record.examination, "none", "", "")[0]
    assert read == {"examination": record.examination, "read": 1}
    assert "say why" in told(client, "record_read", record.examination, "invasive", "", "")
    again = answer(client, "record_read", record.examination, "invasive", "", "seen again")[0]
    assert again["read"] == 2
    report = answer(client, "examination_report", record.examination)[0]
    assert base64.b64decode(report["pdf"]).startswith(b"%PDF")
    assert patients.view(serving.clinic, record.owner, record.patient).unread == 0


@pytest.mark.parametrize(
    ("scale", "width", "warned"),
    [
        ((0, 0), None, ""),  # taken as the training patches' own
        ((200, 0), 200.0, ""),
        ((0, 4), 200.0, ""),
        ((0, 0, 4), 200.0, ""),
        ((0, 0, 0.5), 25.0, "the image shows 25 x 25 micrometres"),
    ],
)
def test_an_image_s_scale_is_said_with_the_answer(
    serving: Serving, scale: tuple[float, ...], width: float | None, warned: str
) -> None:
    client = serving.visitor(add_account(serving.clinic))
    patient = answer(client, "create_patient", "", 0, "")[0]["patient"]
    image = in_json(upload(client, PATCHES[0].read_bytes()))
    (told_of,) = answer(client, "save_examination", *_examined(patient, image, *scale))[0]["images"]
    assert told_of["field_width_um"] == width
    assert bool(told_of["warnings"]) is bool(warned)
    assert warned in "".join(told_of["warnings"])


def test_an_unknown_scale_is_warned_of_before_the_answers_are_shown(serving: Serving) -> None:
    client = serving.visitor(add_account(serving.clinic))
    patient = answer(client, "create_patient", "", 0, "")[0]["patient"]
    buffer = io.BytesIO()
    with Image.open(PATCHES[0]) as patch:
        patch.resize((300, 200)).save(buffer, "PNG")
    image = in_json(upload(client, buffer.getvalue()))
    saved = answer(client, "save_examination", *_examined(patient, image, shown=False))[0]
    (told_of,) = saved["images"]
    assert told_of["answers"] == []
    (warning,) = told_of["warnings"]
    assert "give the micrometres a pixel" in warning
    (report,) = answer(client, "examination_report", saved["examination"])
    pdf = base64.b64decode(report["pdf"])
    assert "scale unknown" in " ".join(PdfReader(io.BytesIO(pdf)).pages[0].extract_text().split())


def test_answers_that_are_not_asked_for_stay_hidden(serving: Serving) -> None:
    owner = add_account(serving.clinic)
    client = serving.visitor(owner)
    patient = answer(client, "create_patient", "", 0, "")[0]["patient"]
    image = in_json(upload(client, PATCHES[0].read_bytes()))
    saved = answer(client, "save_examination", *_examined(patient, image, shown=False))[0]
    assert saved["images"][0]["answers"] == []
    answer(client, "record_read", saved["examination"], "none", "", "")
    found, may_see = examinations.view(serving.clinic, owner, saved["examination"])
    assert not may_see
    assert not found.reads[0].result_shown


@pytest.mark.parametrize(
    ("scale", "sentence"),
    [
        ((200, 4), "not both"),
        ((200, 0, 4), "not both"),
        ((0, 4, 4), "not both"),
        ((1e9, 0), "no microscope's"),
        ((-1, 0), "no microscope's"),
        ((0, 0, 21), "must be between 0.05 and 20"),
    ],
)
def test_a_scale_that_no_field_has_is_told(
    serving: Serving, record: Record, scale: tuple[float, ...], sentence: str
) -> None:
    client = serving.visitor(record.owner)
    image = in_json(upload(client, PATCHES[0].read_bytes()))
    assert sentence in told(client, "save_examination", *_examined(record.patient, image, *scale))
