"""What a released app has written opens in this one: a data folder, and a backup of it.

``released/make.py`` has made both, in a checkout of the release itself.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from clinic.installation import Installation, open_installation
from clinic.records import examinations, patients
from clinic.reports import service as reports
from clinic.settings import Settings
from clinic.storage.tables import Patient
from clinic.upkeep import verify
from tests.space.upkeep.test_verify_backup import command
from tests.support.clinic import actor_named

ARCHIVES = sorted(Path(__file__).with_name("released").glob("*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def released(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder ``data`` of a release, its ``backup.zip``, and what the records held."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def expected(released: Path) -> dict[str, Any]:
    return json.loads((released / "expected.json").read_text())


def records(clinic: Installation) -> dict[str, Any]:
    """Every patient as ``released/make.py`` wrote them down."""
    with clinic.database.snapshot() as session:
        return {
            row.id: {
                "external_id": row.external_id,
                "birth_year": row.birth_year,
                "note": row.note,
                "archived": row.archived_at is not None,
                "examinations": {
                    one.id: {
                        "images": [image.sha256 for image in one.images],
                        "answers": [r.probability for i in one.images for r in i.results],
                        "reads": [[read.verdict, read.result_shown] for read in one.reads],
                        "reports": [stored.sha256 for stored in one.reports],
                    }
                    for one in row.examinations
                },
            }
            for row in session.query(Patient)
        }


def test_its_data_folder_opens_and_is_sound(released: Path) -> None:
    clinic = open_installation(Settings(models=(), data=released / "data"))
    assert records(clinic) == expected(released)
    assert verify.verify(clinic).problems == []
    doctor = actor_named(clinic, "demo")
    for patient_id, patient in expected(released).items():
        assert patients.view(clinic, doctor, patient_id).external_id == patient["external_id"]
        for examination_id, one in patient["examinations"].items():
            examinations.view(clinic, doctor, examination_id, reveal=True)
            for position in range(1, len(one["images"]) + 1):
                assert examinations.read_image(clinic, doctor, examination_id, position)
                assert examinations.read_heat_map(
                    clinic, doctor, examination_id, position, "small-one"
                )
            assert all(reports.check_report(clinic, doctor, sha).genuine for sha in one["reports"])
    assert verify.verify(clinic).problems == []
    clinic.database.engine.dispose()


def test_the_command_finds_it_sound(released: Path) -> None:
    done = command(released / "data", "verify")
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_backup_is_brought_back(released: Path) -> None:
    back = released / "back"
    done = command(back, "restore", str(released / "backup.zip"))
    assert done.returncode == 0, done.stdout + done.stderr
    clinic = open_installation(Settings(models=(), data=back))
    assert records(clinic) == expected(released)
    clinic.database.engine.dispose()
