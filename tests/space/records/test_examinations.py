"""Examinations and reads on both databases, with real models and images."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from bcd_models import ImageError
from bcd_models.errors import InputError
from clinic.analysis import display, stored_answers
from clinic.analysis.analyse import Analysed, Analysis, HandedIn, analyse
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.records import examinations, patients, reads
from clinic.records.examinations import Details
from clinic.storage import references
from clinic.storage.actor import Actor, NotAllowed, NotFound, NotSignedIn
from clinic.storage.tables import AuditEntry, Examination
from clinic.ui.doctor.examination_page import _facts
from clinic.upkeep import verify
from tests.support.clinic import NAMES, PATCHES

Saved = Callable[..., str]


def test_an_examination_comes_back_whole(
    clinic: Installation,
    ada: Actor,
    saved: Saved,
    small_models: Models,
    analysed: tuple[Analysed, ...],
) -> None:
    number = saved()
    found, shown = examinations.view(clinic, ada, number)
    assert shown
    assert [image.position for image in found.images] == [1, 2]
    assert [image.field_width_um for image in found.images] == [200, None]
    for image, path in zip(found.images, PATCHES, strict=False):
        assert [result.model for result in image.results] == list(NAMES)
        for result in image.results:
            expected = small_models.load(result.model).predict(path)
            assert result.probability == expected.probability
            assert result.weights_sha256 == expected.weights_sha256
            assert result.runtime == expected.runtime != ""
            assert (result.refer_low, result.refer_high) == expected.refer
        stored = examinations.read_image(clinic, ada, number, image.position)
        with Image.open(io.BytesIO(stored)) as back, Image.open(path) as original:
            assert np.array_equal(np.asarray(back), np.asarray(original.convert("RGB")))
    with Image.open(
        io.BytesIO(examinations.read_heat_map(clinic, ada, number, 1, NAMES[0]))
    ) as grey:
        heat = np.asarray(grey) / 255
    wanted = analysed[0].explanations[NAMES[0]].heatmap
    assert heat.max() == pytest.approx(wanted.max(), abs=0.01)
    assert verify.verify(clinic).problems == []
    known = re.findall(r"Field of image \d</dt>\s*<dd>(.*?)</dd>", _facts(found))
    assert known == ["200 µm wide", "200 µm wide, at 4 µm a pixel, taken as the model&#x27;s own"]


@pytest.mark.parametrize("mpp", [2, None])
def test_a_large_field_comes_back_with_its_scale_and_tiles(
    clinic: Installation, ada: Actor, patient: str, small_models: Models, mpp: float | None
) -> None:
    with Image.open(PATCHES[0]) as patch:
        large = Image.fromarray(np.tile(np.asarray(patch.convert("RGB")), (18, 36, 1)))
    buffer = io.BytesIO()
    large.save(buffer, "PNG")
    (one,) = analyse(small_models, [HandedIn(buffer.getvalue(), mpp)], NAMES)
    number = examinations.save(clinic, ada, patient, Analysis((one,), True), Details())
    (image,) = examinations.view(clinic, ada, number)[0].images
    assert image.field_width_um == (mpp and 3600)
    for row in image.results:
        expected = small_models.load(row.model).predict(buffer.getvalue(), mpp=mpp)
        back = stored_answers.prediction(image, row)
        assert replace(back, name=expected.name) == expected
        assert expected.tiles == (162 if mpp else 1)
        assert (expected.decision == "refer") or mpp
        heat = examinations.read_heat_map(clinic, ada, number, 1, row.model)
        with Image.open(io.BytesIO(heat)) as grey:
            assert grey.size == (800, 400)
            heat_max = one.explanations[row.model].heatmap.max()
            assert grey.convert("LA").getextrema()[0][1] / 255 == pytest.approx(heat_max, abs=0.01)
    assert verify.verify(clinic).problems == []


def test_a_stored_heat_map_keeps_what_was_not_looked_at(
    clinic: Installation, ada: Actor, patient: str, small_models: Models
) -> None:
    """Beside the tile with tissue the field is glass; on the page and in reports it stays clear."""
    with Image.open(PATCHES[0]) as patch:
        field = Image.new("RGB", (150, 100), (244, 244, 244))
        field.paste(patch, (0, 0))
    buffer = io.BytesIO()
    field.save(buffer, "PNG")
    (one,) = analyse(small_models, [HandedIn(buffer.getvalue(), 4)], NAMES[:1])
    number = examinations.save(clinic, ada, patient, Analysis((one,), True), Details())
    (image,) = examinations.view(clinic, ada, number)[0].images
    stored = examinations.read_heat_map(clinic, ada, number, 1, NAMES[0])
    answer = stored_answers.prediction(image, image.results[0])
    back = stored_answers.explanation(answer, one.png, stored)
    height, width = back.seen.shape
    expected = np.zeros((height, width), bool)
    expected[: height // 2, : width // 3] = True
    assert np.array_equal(back.seen, expected)
    with Image.open(io.BytesIO(display.colour_heat_map(stored))) as coloured:
        assert np.array_equal(np.asarray(coloured)[..., 3] > 0, expected)
    shown = np.asarray(display.resize_for_display(back).overlay(1).resize((150, 100), 0))
    assert (shown[~np.asarray(Image.fromarray(expected).resize((150, 100), 0))] == 244).all()


def test_what_a_file_says_besides_its_pixels_is_not_kept(
    clinic: Installation, ada: Actor, patient: str, small_models: Models
) -> None:
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", "Jane Doe, 1957")
    buffer = io.BytesIO()
    Image.open(PATCHES[0]).save(buffer, "PNG", pnginfo=told)
    (one,) = analyse(small_models, [HandedIn(buffer.getvalue())], NAMES[:1])
    number = examinations.save(clinic, ada, patient, Analysis((one,), True), Details())
    assert b"Jane" not in examinations.read_image(clinic, ada, number, 1)
    files = [path for path in clinic.settings.data.rglob("*") if path.is_file()]
    assert not any(b"Jane" in path.read_bytes() for path in files)


def test_what_can_not_be_saved(
    clinic: Installation,
    ada: Actor,
    patient: str,
    analysed: tuple[Analysed, ...],
) -> None:
    for details in (
        Details(stain="ink"),
        Details(specimen="x"),
        Details(comment="a\0b"),
        Details(comment="x" * 2001),
    ):
        with pytest.raises(InputError):
            examinations.save(clinic, ada, patient, Analysis(analysed, True), details)
    patients.archive(clinic, ada, patient)
    with pytest.raises(InputError, match="archived"):
        examinations.save(clinic, ada, patient, Analysis(analysed, True), Details())
    assert examinations.list_examinations(clinic, ada, patient) == []


def test_answers_stay_hidden_until_they_are_asked_for(
    clinic: Installation, ada: Actor, saved: Saved
) -> None:
    number = saved(shown=False)
    assert examinations.view(clinic, ada, number)[1] is False
    with pytest.raises(NotAllowed, match="not been shown"):
        examinations.read_heat_map(clinic, ada, number, 1, NAMES[0])
    reads.record(clinic, ada, number, "none", "before the models")
    assert examinations.view(clinic, ada, number, reveal=True)[1] is True
    assert examinations.view(clinic, ada, number)[1] is True
    reads.record(clinic, ada, number, "invasive", reason="looked again")
    found, _ = examinations.view(clinic, ada, number)
    assert [(r.number, r.verdict, r.result_shown) for r in found.reads] == [
        (1, "none", False),
        (2, "invasive", True),
    ]
    assert found.reads[0].comment == "before the models"
    assert found.reads[1].reader.name == "ada"


def test_a_read_names_a_verdict_and_an_amendment_its_reason(
    clinic: Installation, ada: Actor, saved: Saved
) -> None:
    number = saved()
    for wrong in (
        {"verdict": "malignant"},
        {"verdict": "none", "reason": "why"},
        {"verdict": "none", "comment": "\x1b"},
    ):
        with pytest.raises(InputError):
            reads.record(clinic, ada, number, **wrong)
    assert reads.record(clinic, ada, number, "indeterminate") == 1
    with pytest.raises(InputError, match="why"):
        reads.record(clinic, ada, number, "none")
    assert reads.record(clinic, ada, number, "none", reason="second look") == 2


def test_the_worklist_holds_what_nobody_has_read(
    clinic: Installation, doctors: dict[str, Actor], patient: str, saved: Saved
) -> None:
    ada = doctors["ada"]
    first, second = saved(), saved()
    assert [row.id for row in examinations.list_unread(clinic, ada).rows] == [first, second]
    reads.record(clinic, ada, first, "none")
    left = examinations.list_unread(clinic, ada)
    assert ([row.id for row in left.rows], left.total, left.pages) == ([second], 1, 1)
    assert [row.read for row in examinations.list_examinations(clinic, ada, patient)] == [
        False,
        True,
    ]
    assert examinations.list_unread(clinic, doctors["grace"]).rows == ()
    patients.archive(clinic, ada, patient)
    assert examinations.list_unread(clinic, ada).total == 0


def test_a_full_disk_saves_nothing(
    clinic: Installation, ada: Actor, patient: str, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved()
    before = sorted(clinic.storage.list_hashes())
    put, calls = type(clinic.storage).put, []

    def full(storage, data: bytes) -> str:
        calls.append(data)
        if len(calls) == 5:
            raise examinations.InputError("no room")
        return put(storage, data)

    monkeypatch.setattr(type(clinic.storage), "put", full)
    with pytest.raises(InputError):
        saved()
    monkeypatch.undo()
    assert len(examinations.list_examinations(clinic, ada, patient)) == 1
    references.delete_unreferenced(clinic.database, clinic.storage, clinic.storage.list_hashes())
    assert sorted(clinic.storage.list_hashes()) == before


ACTS: dict[str, Callable] = {
    "view": examinations.view,
    "reveal": lambda clinic, actor, number: examinations.view(clinic, actor, number, reveal=True),
    "image": lambda clinic, actor, number: examinations.read_image(clinic, actor, number, 1),
    "heat": lambda clinic, actor, number: examinations.read_heat_map(
        clinic, actor, number, 1, NAMES[0]
    ),
    "read": lambda clinic, actor, number: reads.record(clinic, actor, number, "none"),
}


@pytest.mark.parametrize("act", ACTS)
def test_nobody_else_reaches_an_examination(
    clinic: Installation, doctors: dict[str, Actor], saved: Saved, act: str
) -> None:
    number = saved()
    for actor, refusal in (
        (None, NotSignedIn),
        (doctors["admin"], NotAllowed),
        (doctors["grace"], NotFound),
    ):
        with pytest.raises(refusal):
            ACTS[act](clinic, actor, number)
    with clinic.database.snapshot() as session:
        assert session.get_one(Examination, number).reads == []


def test_saving_and_listing_are_the_owner_s(
    clinic: Installation, doctors: dict[str, Actor], patient: str, analysed: tuple[Analysed, ...]
) -> None:
    for actor, refusal in (
        (None, NotSignedIn),
        (doctors["admin"], NotAllowed),
        (doctors["grace"], NotFound),
    ):
        with pytest.raises(refusal):
            examinations.save(clinic, actor, patient, Analysis(analysed, True), Details())
        with pytest.raises(refusal):
            examinations.list_examinations(clinic, actor, patient)
    for actor, refusal in ((None, NotSignedIn), (doctors["admin"], NotAllowed)):
        with pytest.raises(refusal):
            examinations.list_unread(clinic, actor)
    for position, model in ((3, NAMES[0]), (1, "other")):
        number = examinations.save(
            clinic, doctors["ada"], patient, Analysis(analysed, True), Details()
        )
        with pytest.raises(NotFound):
            examinations.read_heat_map(clinic, doctors["ada"], number, position, model)


def test_what_happens_is_logged_with_ids_alone(
    clinic: Installation, ada: Actor, patient: str, saved: Saved
) -> None:
    number = saved(shown=False)
    examinations.view(clinic, ada, number, reveal=True)
    reads.record(clinic, ada, number, "none", "a secret")
    with clinic.database.snapshot() as session:
        rows = [
            row
            for row in session.query(AuditEntry).order_by(AuditEntry.number)
            if number in row.subject
        ]
        assert clinic.log.find_problems(session) == []
    assert [row.action for row in rows] == [
        "examined",
        "examination_viewed",
        "results_shown",
        "read_recorded",
    ]
    assert all(row.detail["patient"] == patient for row in rows)
    assert not any("secret" in str(row.detail) for row in rows)


def test_what_models_were_asked_is_logged_saved_or_not(
    clinic: Installation, ada: Actor, patient: str, small_models: Models
) -> None:
    images = [HandedIn(path.read_bytes()) for path in PATCHES[:2]]
    found = examinations.analyse_for_patient(
        clinic, ada, small_models, patient, images, NAMES, False
    )
    assert [len(one.explanations) for one in found.images] == [2, 2]
    bad = [HandedIn(b"no image")]
    with pytest.raises(ImageError):
        examinations.analyse_for_patient(clinic, ada, small_models, patient, bad, NAMES, True)
    with clinic.database.snapshot() as session:
        (row,) = session.query(AuditEntry).filter_by(action="images_analysed")
        assert (row.account_id, row.subject) == (ada.account_id, f"patient {patient}")
        assert row.detail == {
            "images": 2,
            "models": list(NAMES),
            "weights": [small_models.describe(name).weights_sha256 for name in NAMES],
            "point": "",
            "shown": False,
            "suitability": "refer",
            "ignored": [],
        }
        assert session.query(Examination).count() == 0


def test_deleting_the_patient_takes_the_files(
    clinic: Installation, ada: Actor, patient: str, saved: Saved
) -> None:
    saved()
    assert len(list(clinic.storage.list_hashes())) == 6
    patients.delete(clinic, ada, patient, patient)
    assert list(clinic.storage.list_hashes()) == []
    assert not [p for p in Path(clinic.settings.data / "files").rglob("*") if p.is_file()]
    assert hashlib.sha256(b"").hexdigest() not in set(clinic.storage.list_hashes())
