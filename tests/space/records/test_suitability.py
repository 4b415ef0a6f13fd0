"""What looks unsuitable: told with a remedy, and answered all the same only where asked.

Whoever looks at the answer later is told of both.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from bcd_models import BCDClassifier
from bcd_models.config import CameraValidation, Estimate
from bcd_models.images.scale import OPTICS, Scale, compute_scale
from bcd_models.images.suitability import WORDS
from bcd_models.prediction import CAMERA, CAMERA_WORDS, Prediction, Unsuitable
from clinic.analysis import stored_answers, wording
from clinic.analysis.analyse import HandedIn
from clinic.analysis.models import Models
from clinic.dashboard.answer_table import export_answers
from clinic.installation import Installation
from clinic.records import examinations
from clinic.records.examinations import Details
from clinic.records.export import export
from clinic.reports.service import issue_report
from clinic.storage.actor import Actor
from clinic.storage.tables import AuditEntry
from clinic.storage.tallies import model_key
from clinic.ui import result
from clinic.ui.shared.scale_input import parse_scale
from tests.space.records.test_points import FOREVER
from tests.support.clinic import PATCHES, draw_mixed_field, draw_photograph
from tests.support.running_app import save_small_model

FOUND = WORDS["picture"]
IMAGES = [HandedIn(data, 4) for data in (draw_photograph(), PATCHES[0].read_bytes())]


def examine(
    clinic: Installation,
    doctor: Actor,
    models: Models,
    patient: str,
    images: list[HandedIn],
    suitability: Unsuitable,
    shown: bool = True,
) -> str:
    analysis = examinations.analyse_for_patient(
        clinic, doctor, models, patient, images, models.names, shown, "none", suitability
    )
    return examinations.save(clinic, doctor, patient, analysis, Details())


def answers_of(clinic: Installation, doctor: Actor, number: str) -> list[Prediction]:
    found, _ = examinations.view(clinic, doctor, number, reveal=True)
    return [stored_answers.prediction(one, one.results[0]) for one in found.images]


def page_of(said: Prediction) -> str:
    return result.answer(said, said.label, result.Pictures("image", "heat", (50, 50)))


def paper_of(clinic: Installation, doctor: Actor, models: Models, number: str) -> str:
    pdf = PdfReader(io.BytesIO(issue_report(clinic, doctor, models, number)[1]))
    return " ".join(word for sheet in pdf.pages for word in sheet.extract_text().split())


def details_of(clinic: Installation, action: str) -> list[dict[str, Any]]:
    with clinic.database.snapshot() as session:
        return [row.detail for row in session.query(AuditEntry).filter_by(action=action)]


def test_each_finding_has_a_remedy() -> None:
    assert wording.REMEDIES.keys() == {*WORDS, CAMERA}


def test_it_is_refused_with_the_reason_and_what_to_do(
    clinic: Installation, ada: Actor, patient: str, judging_models: Models
) -> None:
    number = examine(clinic, ada, judging_models, patient, IMAGES, "refer")
    refused, answered = answers_of(clinic, ada, number)
    assert (refused.decision, refused.is_unsuitable) == ("refer", True)
    assert (answered.findings, answered.ignored) == ((), ())
    page, paper = page_of(refused), paper_of(clinic, ada, judging_models, number)
    for shown in (page, paper):
        assert wording.NO_ANSWER in shown
        assert f"Because the image looks unsuitable: {FOUND}." in shown
        assert wording.REMEDIES["picture"] in shown
        assert "all the same" not in shown
        (line,) = wording.findings_lines(refused)
        assert line.startswith("Drawn or photographed, not tissue: beyond the limit (measured ")
        assert line in shown
        assert f"picture {refused.findings[0].value:.3g}" not in shown  # a name for scripts
    assert f"<summary>What was measured</summary><p>{line}" in page  # folded up
    assert "heat" not in page  # nothing that the model says of it
    assert "Estimated probability" not in page
    assert paper.count("Estimated probability") == 1  # of the other image


def test_a_microscope_camera_s_image_is_refused_as_such(
    clinic: Installation, ada: Actor, patient: str, tmp_path: Path
) -> None:
    folder = save_small_model(tmp_path, "small-scanner-s")
    auroc = Estimate(value=0.46, low=0.22, high=0.83)
    cameras = CameraValidation(source="breakhis", images=209, cases=17, auroc=auroc)
    change_config(folder, cameras)
    models, scale = Models([str(folder)]), compute_scale(10, 40)
    images = [HandedIn(PATCHES[0].read_bytes(), mpp) for mpp in (scale, 4)]
    analysis = examinations.analyse_for_patient(
        clinic, ada, models, patient, images, models.names, True, ""
    )
    number = examinations.save(clinic, ada, patient, analysis, Details())
    refused, answered = answers_of(clinic, ada, number)
    assert (refused.decision, refused.is_unsuitable, refused.scale) == ("refer", True, OPTICS)
    assert CAMERA not in [one.name for one in answered.findings]
    for shown in (page_of(refused), paper_of(clinic, ada, models, number)):
        assert f"Because {CAMERA_WORDS}." in shown
        assert wording.REMEDIES[CAMERA] in shown
        assert "from objective and camera" in shown


def change_config(folder: Path, cameras: CameraValidation) -> None:
    model = BCDClassifier.from_pretrained(folder)
    model.config = model.config.model_copy(update={"cameras": cameras})
    model.save_pretrained(folder)


def test_a_scale_that_was_computed_stands_until_another_is_typed() -> None:
    computed = "4", compute_scale(10, 40)
    found = parse_scale(" 4 ", computed)
    assert isinstance(found, Scale)
    assert found.by_camera
    assert [parse_scale(typed, computed) for typed in ("5", "")] == [5, None]
    assert parse_scale("4", None) == 4


def test_what_is_answered_all_the_same_is_kept_and_told_wherever_the_answer_is(
    clinic: Installation, ada: Actor, patient: str, judging_models: Models
) -> None:
    models = judging_models
    number = examine(clinic, ada, models, patient, IMAGES, "ignore")
    assert [one["ignored"] for one in details_of(clinic, "images_analysed")] == [[1]]
    assert [one["suitability"] for one in details_of(clinic, "images_analysed")] == ["ignore"]
    assert [one["ignored"] for one in details_of(clinic, "examined")] == [[1]]

    kept, other = answers_of(clinic, ada, number)
    assert kept.decision == kept.label
    assert [one.words for one in kept.ignored] == [FOUND]
    assert other.ignored == ()
    sentence = (
        "Answered all the same, at the user's request, although the image looks unsuitable: "
        f"{FOUND}."
    )
    page, paper = (
        result.answer(kept, kept.label, result.Pictures("", "", (1, 1))),
        paper_of(clinic, ada, models, number),
    )
    assert sentence in page.replace("&#x27;", "'")
    assert paper.count(sentence) == 1
    assert paper.count("(operating point “none”)") == 2
    assert "Operating point none" in paper

    with zipfile.ZipFile(io.BytesIO(export(clinic, ada, patient))) as archive:
        record = json.loads(archive.read("patient.json"))
    images = record["examinations"][0]["images"]
    assert [[one["words"] for one in i["results"][0]["ignored"]] for i in images] == [[FOUND], []]
    offered = models.describe(models.names[0])
    key = model_key(offered.config.name, offered.config.version, offered.weights_sha256)
    table = export_answers(clinic, ada, key, FOREVER).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["findings"], row["ignored"]) for row in rows] == [("", FOUND), ("", "")]


@pytest.mark.parametrize("suitability", ["refer", "ignore"])
def test_it_is_told_while_the_answers_are_hidden(
    clinic: Installation,
    ada: Actor,
    patient: str,
    judging_models: Models,
    suitability: Unsuitable,
) -> None:
    analysis = examinations.analyse_for_patient(
        clinic, ada, judging_models, patient, IMAGES, judging_models.names, False, "", suitability
    )
    (told,), clean = (one.warnings for one in analysis.images)
    assert clean == ()
    assert f"the image looks unsuitable: {FOUND}" in told
    assert ("all the same" in told) is (suitability == "ignore")
    number = examinations.save(clinic, ada, patient, analysis, Details())
    paper = paper_of(clinic, ada, judging_models, number)
    assert f"Mind: {told}." in paper
    assert "Estimated probability" not in paper


def test_tiles_of_a_field_that_are_left_out_are_striped_wherever_the_map_is(
    clinic: Installation, ada: Actor, patient: str, judging_models: Models
) -> None:
    field = [HandedIn(draw_mixed_field(), 4)]
    number = examine(clinic, ada, judging_models, patient, field, "refer")
    (said,) = answers_of(clinic, ada, number)
    assert said.tile_findings == ((None, None), (None, "picture"))
    assert (said.tiles, said.judged_tiles) == (3, 4)
    page, paper = page_of(said), paper_of(clinic, ada, judging_models, number)
    for shown in (page, paper):
        assert f"Left out: 1 of 4 tiles looks unsuitable: {FOUND}." in shown
        assert "Grey stripes mark what is left out." in shown
        assert "of 3 (" in shown  # the share is of the others
    grey = examinations.read_heat_map(clinic, ada, number, 1, judging_models.names[0])
    picture = examinations.read_image(clinic, ada, number, 1)
    again = stored_answers.explanation(said, picture, grey)
    assert again.left_out is not None
    assert again.seen[: len(again.seen) // 2].all()
    striped = np.asarray(Image.open(io.BytesIO(picture)).size) // 2
    assert again.left_out[-1, -1]
    assert not again.left_out[: striped[0]].any()
    alpha = np.asarray(again.coloured())[..., 3]
    quarter = alpha[len(alpha) // 2 :, len(alpha) // 2 :]
    assert 0 < (quarter > 0).mean() < 0.5
