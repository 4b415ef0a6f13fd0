"""One patient as a zip: what the app keeps of the record, in forms that other programs read."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from bcd_models.prediction import NOTICE
from clinic.accounts.permissions import require_doctor
from clinic.analysis.stored_answers import ANSWER_COLUMNS, LIST_COLUMNS
from clinic.installation import Installation
from clinic.records import patients
from clinic.records.patient_fields import FIELDS
from clinic.records.reads import VERDICTS
from clinic.storage import shown_images
from clinic.storage.actor import Actor
from clinic.storage.files import pack_zip
from clinic.storage.tables import Base, Examination, ExaminedImage, Patient, Read, Result

READ_ME = f"""patient.json holds the record; images, heatmaps and reports the files that it names.
A heat map is grey: black is 0, white is 1; clear parts were not looked at, half-clear parts look
unsuitable and were left out.

{NOTICE}
"""


def export(clinic: Installation, actor: Actor | None, patient_id: str) -> bytes:
    """Return a patient's record, examinations, images, heat maps, reads and reports.

    The same record gives the same bytes. Names in the zip are ids that the app issued. It holds
    hidden answers too, so it counts as having shown them.

    Raises:
        NotSignedIn, NotAllowed, NotFound: The actor is no doctor, or has no such patient.
        StorageError: A stored file is missing or damaged.
    """
    doctor = require_doctor(actor)
    # Nothing is deleted while files are saved: so each that the rows name is still there.
    with clinic.storage.lock_for_saving():
        files: dict[str, str] = {}
        with clinic.database.snapshot() as session:
            patient = patients.get_own(session, doctor, patient_id)
            document = _patient(patient, files)
            hashes = [image.sha256 for one in patient.examinations for image in one.images]
        contents = {name: clinic.storage.read(sha256) for name, sha256 in files.items()}
        with clinic.database.transaction() as session:
            patients.get_own(session, doctor, patient_id)
            shown_images.note_shown(session, doctor.account_id, hashes)
            patients.log(clinic, session, "patient_exported", doctor, patient_id, files=len(files))
    text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return pack_zip({"README.txt": READ_ME.encode(), "patient.json": text.encode(), **contents})


def _patient(patient: Patient, files: dict[str, str]) -> dict[str, Any]:
    """Return the record for JSON; hashes of the files that it names go into ``files``."""
    return {
        "notice": NOTICE,
        **_take_columns(patient, *(one.name for one in FIELDS)),
        **_take_columns(patient, "id", "synthetic", "created_at", "changed_at", "archived_at"),
        "examinations": [_examination(one, files) for one in patient.examinations],
    }


def _examination(examination: Examination, files: dict[str, str]) -> dict[str, Any]:
    reports = {f"reports/{report.id}.pdf": report.sha256 for report in examination.reports}
    files |= reports
    return {
        **_take_columns(examination, "id", "created_at", "stain", "specimen", "comment"),
        "made_by": examination.maker.name,
        "images": [_image(image, files) for image in examination.images],
        "reads": [_read(read) for read in examination.reads],
        "reports": list(reports),
    }


def _image(image: ExaminedImage, files: dict[str, str]) -> dict[str, Any]:
    stem = f"{image.examination_id}-{image.position}"
    files[f"images/{stem}.png"] = image.sha256
    return {
        "file": f"images/{stem}.png",
        **_take_columns(image, "sha256", "width", "height", "field_width_um"),
        "results": [_result(n, stem, result, files) for n, result in enumerate(image.results, 1)],
    }


def _result(number: int, stem: str, result: Result, files: dict[str, str]) -> dict[str, Any]:
    name = f"heatmaps/{stem}-{number}.png"
    files[name] = result.heat_sha256
    refer = None if result.refer_low is None else [result.refer_low, result.refer_high]
    return {
        "heat_map": name,
        **_take_columns(result, "made_at", *LIST_COLUMNS, *ANSWER_COLUMNS),
        "refer": refer,
    }


def _read(read: Read) -> dict[str, Any]:
    return {
        **_take_columns(read, "number", "comment", "reason", "at", "result_shown"),
        "verdict": VERDICTS[read.verdict],
        "by": read.reader.name,
    }


def _take_columns(row: Base, *names: str) -> dict[str, Any]:
    """Return what a row holds, times as text."""
    values = {name: getattr(row, name) for name in names}
    moments = {name: at for name, at in values.items() if isinstance(at, datetime)}
    return values | {name: at.isoformat(timespec="seconds") for name, at in moments.items()}
