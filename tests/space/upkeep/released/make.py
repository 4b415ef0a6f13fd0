"""Make the data folder and the backup that 0.1.0 is kept by: run in a checkout of that release.

    git worktree add --detach /tmp/released 21e4e56 && cd /tmp/released
    PYTHONPATH=.:space OMP_NUM_THREADS=1 python .../tests/space/upkeep/released/make.py OUT

It imports the released code alone, so it is kept as it ran and never changed to follow today's. The
records are the demonstration's, of no patient; the answers are a small model's with random weights.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

from clinic.db import Patient
from clinic.examinations import of_patient
from tests.ui.running_app import save_small_model

from clinic import accounts, backup, demo, patients, reports, sign_ins
from clinic import models as offered
from clinic.installation import open_installation
from clinic.settings import Settings

PASSWORD = "correct horse battery"


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = offered.Models([str(save_small_model(folder, "small-one"))])
        settings = Settings(models=(), data=folder / "data", admin_password=PASSWORD)
        clinic = open_installation(settings)
        accounts.first_admin(clinic)
        demo.PATIENTS = demo.PATIENTS[:2]  # three images: the fixture stays small
        demo.fill(clinic, known)
        login, password = demo.login(settings)
        doctor = sign_ins.actor_of(clinic, sign_ins.sign_in(clinic, login, password, "::1"), "::1")
        first, second = (row.id for row in patients.found(clinic, doctor).rows)
        (examination,) = of_patient(clinic, doctor, first)
        reports.handed_out(clinic, doctor, known, examination.id)
        patients.archive(clinic, doctor, second)
        with clinic.database.reading() as session:
            rows = session.query(Patient).order_by(Patient.id).all()
            kept = {
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
                for row in rows
            }
        backup.backup(clinic, folder / "backup.zip")
        clinic.database.engine.dispose()
        contents = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in (folder / "backup.zip", *sorted((folder / "data").rglob("*")))
            if path.is_file()
        }
    contents["expected.json"] = (json.dumps(kept, indent=1) + "\n").encode()
    # No zip: xz finds that the backup holds the same files as the data folder.
    with tarfile.open(out / "0.1.0.tar.xz", "w:xz") as archive:
        for path, data in contents.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
