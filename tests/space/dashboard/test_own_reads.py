"""A model beside the reads made without it: what counts, what it gives, who may see it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from bcd_models.errors import InputError
from clinic.analysis.analyse import Analysed, Analysis
from clinic.analysis.models import Models
from clinic.dashboard import own_reads
from clinic.installation import Installation
from clinic.records import examinations, patients, reads
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.storage.actor import Actor, NotAllowed
from clinic.storage.tables import AuditEntry, Result
from clinic.ui.shared.dashboard_page import _validate

VERDICTS = ("invasive", "none")


@pytest.fixture
def read_examination(
    clinic: Installation, ada: Actor, analysed: tuple[Analysed, ...]
) -> Callable[..., str]:
    """Saves an examination of one image, or both, and its read; returns its id."""

    def save(
        patient: str, verdict: str, probability: float, *, shown: bool = False, images: int = 1
    ) -> str:
        some = Analysis(analysed[:images], shown)
        examination = examinations.save(clinic, ada, patient, some, Details())
        with clinic.database.transaction() as session:
            for result in session.scalars(
                select(Result).where(Result.image.has(examination_id=examination))
            ):
                result.probability = probability
        if shown:
            examinations.view(clinic, ada, examination, reveal=True)
        reads.record(clinic, ada, examination, verdict)
        return examination

    return save


def make_patient(clinic: Installation, doctor: Actor, number: int, synthetic: bool = False) -> str:
    form = PatientForm(f"AB-{number:04}", 1957, "")
    return patients.create(clinic, doctor, form, synthetic=synthetic)


def test_blind_reads_alone_are_measured(
    clinic: Installation,
    doctors: dict[str, Actor],
    read_examination: Callable[..., str],
    small_models: Models,
    keys: list[str],
) -> None:
    ada, admin = doctors["ada"], doctors["admin"]
    decision = small_models.describe(small_models.names[0]).config.decision
    drawn = make_patient(clinic, ada, 999, synthetic=True)
    for verdict in VERDICTS:
        read_examination(drawn, verdict, 0.9)
    with pytest.raises(InputError, match=r"^0 examinations of 0 patients .* 10 patients"):
        own_reads.measure_reads(clinic, admin, keys[0], decision)
    text = _validate(clinic, admin, keys[0], decision)
    assert "Too few reads" in text
    assert "synthetic patients are left out" in text
    for number in range(12):
        patient = make_patient(clinic, ada, 1000 + number)
        for step, verdict in enumerate(VERDICTS):  # right in all but the first two patients
            right = (verdict == "invasive") == (number > 1)
            read_examination(patient, verdict, (0.9 if right else 0.1) - step / 100)
    before = own_reads.measure_reads(clinic, admin, keys[0], decision)
    assert (before.counts.images, before.counts.cases, before.counts.malignant) == (24, 12, 12)
    assert before.auroc.value == pytest.approx(140 / 144)  # of pairs, by hand
    for point in before.points.values():
        if 0.1 < point.threshold < 0.89:
            assert point.sensitivity.value == pytest.approx(10 / 12)

    odd = make_patient(clinic, ada, 2000)
    read_examination(odd, "indeterminate", 0.99)
    read_examination(make_patient(clinic, ada, 2001, synthetic=True), "none", 0.99)
    amended = read_examination(odd, "none", 0.2)
    reads.record(clinic, ada, amended, "invasive", "", "seen again")
    read_examination(odd, "none", 0.99, shown=True)  # may have followed the answer
    after = own_reads.measure_reads(clinic, admin, keys[0], decision)
    assert after.counts.images == 25
    assert after.counts.malignant == 12  # the first read counts: the amendment came after answers

    text = _validate(clinic, admin, keys[0], decision)
    assert "25 of 13 patients" in text
    assert "AUROC" in text
    with pytest.raises(NotAllowed):
        own_reads.measure_reads(clinic, ada, keys[0], decision)


def test_reads_leave_as_a_list_of_labelled_images(
    clinic: Installation,
    doctors: dict[str, Actor],
    read_examination: Callable[..., str],
    tmp_path: Path,
) -> None:
    ada, folder = doctors["ada"], tmp_path / "reads"
    with pytest.raises(InputError, match="no examination of one image"):
        own_reads.export_reads(clinic, folder)
    patient = make_patient(clinic, ada, 1)
    first = read_examination(patient, "invasive", 0.9)
    second = read_examination(patient, "none", 0.1)
    read_examination(patient, "none", 0.1, images=2)  # which of the two was read?
    read_examination(patient, "none", 0.1, shown=True)
    assert own_reads.export_reads(clinic, folder) == 2
    with (folder / own_reads.LIST).open() as file:
        lines = list(csv.DictReader(file))
    assert {(line["path"], line["label"], line["case"], float(line["mpp"])) for line in lines} == {
        (f"images/{first}.png", "malignant", patient, 4),
        (f"images/{second}.png", "benign", patient, 4),
    }
    for line in lines:
        assert (folder / line["path"]).read_bytes().startswith(b"\x89PNG")
        assert (folder / line["path"]).stat().st_mode & 0o077 == 0
    with clinic.database.snapshot() as session:
        logged = session.scalars(select(AuditEntry).where(AuditEntry.action == "reads_exported"))
        assert [entry.detail for entry in logged] == [{"images": 2}]
    with pytest.raises(InputError, match="is there already"):
        own_reads.export_reads(clinic, folder)
