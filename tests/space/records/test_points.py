"""The operating point of an analysis: it decides, and is kept and told wherever the answer is."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import replace
from datetime import date

import pytest
from pypdf import PdfReader

from bcd_models.config import Estimate
from bcd_models.errors import InputError
from clinic.analysis import stored_answers, wording
from clinic.analysis.analyse import HandedIn
from clinic.analysis.models import Models
from clinic.dashboard.analytics import Period
from clinic.dashboard.answer_table import export_answers
from clinic.installation import Installation
from clinic.records import examinations
from clinic.records.examinations import Details
from clinic.records.export import export
from clinic.reports.service import issue_report
from clinic.storage.actor import Actor
from clinic.storage.tallies import model_key
from clinic.ui import result
from tests.support.clinic import PATCHES
from tests.support.running_app import POINTS

IMAGE = HandedIn(PATCHES[0].read_bytes(), 4)
FOREVER = Period(date(2000, 1, 1), date(2099, 1, 1))


@pytest.mark.parametrize(
    ("asked", "name", "missed", "decision"),
    [("none", "none", 75, "benign"), ("all", "all", 0, "malignant"), ("", "balanced", 11, "")],
)
def test_it_decides_and_is_kept_and_told_wherever_the_answer_is(
    clinic: Installation,
    ada: Actor,
    patient: str,
    pointed_models: Models,
    asked: str,
    name: str,
    missed: int,
    decision: str,
) -> None:
    models = pointed_models
    analysis = examinations.analyse_for_patient(
        clinic, ada, models, patient, [IMAGE], models.names, True, asked
    )
    (explanation,) = analysis.images[0].explanations.values()
    given = explanation.prediction
    assert (given.point, given.missed_of_100) == (name, missed)
    assert decision in ("", given.decision)
    number = examinations.save(clinic, ada, patient, analysis, Details())
    (image,) = examinations.view(clinic, ada, number)[0].images
    kept = stored_answers.prediction(image, image.results[0])
    assert (kept.point, kept.missed_of_100, kept.threshold) == (name, missed, given.threshold)

    sentence = f"At this operating point ({name}) the model missed {missed} of 100"
    page = result.answer(kept, kept.label, result.Pictures("", "", (1, 1)))
    pdf = issue_report(clinic, ada, models, number)[1]
    paper = " ".join(
        word for sheet in PdfReader(io.BytesIO(pdf)).pages for word in sheet.extract_text().split()
    )
    for shown in (page, paper):
        assert f"(operating point “{name}”)" in shown
        assert (sentence in shown) is (kept.decision == "benign")
    assert f"Operating point {name}" in paper
    with zipfile.ZipFile(io.BytesIO(export(clinic, ada, patient))) as archive:
        record = json.loads(archive.read("patient.json"))
    (said,) = record["examinations"][0]["images"][0]["results"]
    assert (said["point"], said["missed_of_100"]) == (name, missed)
    offered = models.describe(models.names[0])
    key = model_key(offered.config.name, offered.config.version, offered.weights_sha256)
    table = export_answers(clinic, ada, key, FOREVER).decode("utf-8-sig")
    assert [row["point"] for row in csv.DictReader(io.StringIO(table))] == [name]


def test_a_point_that_a_model_lacks_is_told(
    clinic: Installation, ada: Actor, patient: str, small_models: Models
) -> None:
    with pytest.raises(InputError, match="no operating point 'none' of this model"):
        examinations.analyse_for_patient(
            clinic, ada, small_models, patient, [IMAGE], small_models.names, True, "none"
        )


def test_predictive_values_are_of_fields_and_told_only_where_measured(
    small_models: Models, pointed_models: Models
) -> None:
    pointed = pointed_models.describe(pointed_models.names[0])
    line = wording.predictive_line(pointed, "", 20)
    assert "at “balanced”" in line
    assert "“invasive carcinoma pattern”, 53 show it" in line  # 177.2 of 337.2
    assert "“no invasive carcinoma pattern found”, 97 show none" in line  # 640 of 662.8
    assert "if no field were left to a pathologist" in line
    assert "sensitivity 88.6% (85.0 to 91.0), specificity 80.0% (70.0 to 90.0)." in line
    point = POINTS["balanced"].model_copy(
        update={
            "positive_predictive_value": Estimate(value=0.6, low=0.5, high=0.7),
            "negative_predictive_value": Estimate(value=0.95, low=0.9, high=0.97),
        }
    )
    rule = pointed.config.decision.model_copy(update={"points": {"balanced": point}})
    config = pointed.config.model_copy(update={"decision": rule})
    line = wording.predictive_line(replace(pointed, config=config), "", 20)
    assert "where 25 of 100 showed it" in line
    assert "positive answers that were right 60.0% (50.0 to 70.0), negative" in line
    assert "not measured at “all”" in wording.predictive_line(pointed, "all", 20)
    without = small_models.describe(small_models.names[0])
    assert "not measured at its threshold" in wording.predictive_line(without, "", 20)
