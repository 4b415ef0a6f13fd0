"""The walk of another hospital: its list, and the page that says what came of it."""

from __future__ import annotations

import csv
from pathlib import Path

from bcd_models import local
from tests.conftest import ROOT
from tests.support import synthetic
from training.evaluate import unseen_patients


def test_only_patients_that_were_not_known_are_listed(tmp_path: Path) -> None:
    known, archive = (
        synthetic.breakhis_tar(
            tmp_path / f"{patients}.tar.gz",
            patients_per_class=patients,
            images_per_patient=4,
            size=(140, 92),
        )
        for patients in (1, 2)
    )
    out = tmp_path / "out"
    count = unseen_patients.write_list(archive, known, out)
    with (out / unseen_patients.LIST).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count > 0
    assert len({row["case"] for row in rows}) == 2
    assert {row["label"] for row in rows} == {"benign", "malignant"}
    assert {row["mpp"] for row in rows} <= {"0.88", "0.44"}
    images, faults = local.read_labelled(out / unseen_patients.LIST)
    assert (len(images), faults) == (count, [])
    assert all(image.file.is_file() for image in images)


def test_the_page_says_what_was_measured() -> None:
    page = ROOT / "docs" / "validation.md"
    found = local.Validation.model_validate_json(page.with_suffix(".json").read_bytes())
    written = unseen_patients.tabulate(found, "REFUSAL").partition("REFUSAL")[0]
    assert unseen_patients.BEGIN + "\n" + written in page.read_text()
