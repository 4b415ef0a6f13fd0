"""One more field is one declaration: pages, search, export, report and endpoint find it there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bcd_models.errors import InputError
from clinic.records.patient_fields import PatientForm, parse_form, show_form
from clinic.settings import Settings
from tests.conftest import ROOT

# In a process of its own: a table, once declared, keeps its columns.
SCRIPT = """
import io, json, sys, zipfile
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import String, text
from sqlalchemy.orm import mapped_column

from clinic.records import patient_fields
from clinic.storage.tables import Patient

Patient.site = mapped_column("site", String(64), nullable=True)


@dataclass(frozen=True)
class WiderForm(patient_fields.PatientForm):
    site: str | None = patient_fields.ask(
        None, "Site of the tumour", lambda text, _settings: text.strip() or None
    )


patient_fields.PatientForm = WiderForm
patient_fields.FIELDS = patient_fields.fields_of(WiderForm)

from clinic.analysis.analyse import HandedIn, analyse, Analysis
from clinic.analysis.models import Models
from clinic.records import examinations, export, patients
from clinic.records.examinations import Details
from clinic.reports import service
from clinic.ui.doctor.patient_page import describe_patient
from clinic.ui.doctor.patients_page import list_patients
from tests.support.clinic import PATCHES
from tests.support.running_app import save_small_model
from tests.support.serving import add_account, answer, serving_at

models = Models([str(save_small_model(Path(sys.argv[1]), "small-one"))])
with serving_at(Path(sys.argv[1]), models) as serving:
    clinic = serving.clinic
    with clinic.database.transaction() as session:
        session.execute(text("ALTER TABLE patient ADD COLUMN site VARCHAR(64)"))
    ada = add_account(clinic)
    client = serving.visitor(ada)
    (made,) = answer(client, "create_patient", "AB-1234", 1957, "a note", "left breast")
    patient = made["patient"]
    row = patients.view(clinic, ada, patient)
    analysed = analyse(models, [HandedIn(PATCHES[0].read_bytes())], models.names)
    saved = examinations.save(clinic, ada, patient, Analysis(analysed, True), Details())
    found = patients.search_patients(clinic, ada, "LEFT")
    with zipfile.ZipFile(io.BytesIO(export.export(clinic, ada, patient))) as archive:
        exported = json.loads(archive.read("patient.json"))
    _, pdf = service.issue_report(clinic, ada, models, saved)
    Path(sys.argv[1], "report.pdf").write_bytes(pdf)
    info = client.get("/gradio_api/info").json()["named_endpoints"]["/create_patient"]
    print(json.dumps({
        "form": [
            one["props"].get("label")
            for one in client.get("/config").json()["components"]
            if one["type"] == "textbox"
        ],
        "page": describe_patient(row),
        "list": list_patients(found, "", False),
        "export": exported["site"],
        "arguments": [one["parameter_name"] for one in info["parameters"]],
    }))
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where a further field, declared in memory, turns up."""
    from pypdf import PdfReader

    folder = tmp_path_factory.mktemp("wider")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'space'}"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    pages = PdfReader(Path(folder, "report.pdf")).pages
    return {**found, "report": "\n".join(page.extract_text() for page in pages)}


def test_one_more_field_is_asked_for(shown: dict[str, Any]) -> None:
    assert shown["form"].count("Site of the tumour") == 2  # to make a record, and to change one
    assert shown["arguments"] == ["external_id", "birth_year", "note", "site"]


@pytest.mark.parametrize("place", ["page", "list", "report"])
def test_one_more_field_is_shown(shown: dict[str, Any], place: str) -> None:
    assert "Site of the tumour" in shown[place]
    assert "left breast" in shown[place]


def test_one_more_field_is_exported(shown: dict[str, Any]) -> None:
    assert shown["export"] == "left breast"


@pytest.mark.parametrize("typed", [("AB-1234", "1957", "a\nnote"), ("", "", "")])
def test_what_is_shown_is_what_was_typed(typed: tuple[str, ...]) -> None:
    form = parse_form(Settings(models=()), typed)
    assert show_form(form) == list(typed)


def test_nothing_typed_is_an_empty_form() -> None:
    assert parse_form(Settings(models=()), (" ", " ", " ")) == PatientForm()


@pytest.mark.parametrize("year", ["57", "1899", "2999", "19 57", "year"])
def test_a_year_that_is_none_is_refused(year: str) -> None:
    with pytest.raises(InputError, match="year of birth"):
        parse_form(Settings(models=()), ("", year, ""))
