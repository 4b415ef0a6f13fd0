"""Reports of examinations: made once for each state, kept as handed out, known again later."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import select

from clinic.accounts.permissions import require_account, require_doctor
from clinic.analysis import stored_answers, wording
from clinic.analysis.analyse import scale_warnings
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.records import examinations
from clinic.records.patient_fields import FIELDS
from clinic.records.reads import VERDICTS, describe_timing, describe_verdict
from clinic.reports.layout import (
    Facts,
    ReportedExamination,
    ReportedImage,
    lay_out_examination,
    model_facts,
)
from clinic.storage import clock, references
from clinic.storage.actor import Actor
from clinic.storage.ids import derive_id
from clinic.storage.tables import Examination, ExaminedImage, Patient, Read, Result, StoredReport

NOT_ISSUED = "No report of this installation has these bytes."


@dataclass(frozen=True)
class ReportCheck:
    """Whether a report is one that was handed out."""

    genuine: bool  # it is, byte for byte
    words: str  # that in a sentence


def issue_report(
    clinic: Installation, actor: Actor | None, models: Models, examination_id: str
) -> tuple[str, bytes]:
    """Return the report of an examination as it stands, and its id.

    The same state of the examination gives the same id and the same bytes, whenever. What the
    models said is part of it once that has been shown to the doctor.

    Raises:
        NotSignedIn, NotAllowed, NotFound: The actor is no doctor, or there is none of theirs.
        StorageError: A stored file is missing or damaged, or there is no room.
    """
    doctor = require_doctor(actor)
    with clinic.database.snapshot() as session:
        found = examinations.get_own(session, doctor, examination_id)
        shown = examinations.has_looked(session, doctor, examination_id)
        told = _describe_examination(clinic, models, found, shown)
        kept = session.get(StoredReport, told.id)
        sha256 = kept.sha256 if kept else ""
    pdf = clinic.storage.read(sha256) if sha256 else lay_out_examination(told)
    with references.store_files(clinic.database, clinic.storage) as put:
        sha256 = put(pdf)
        with clinic.database.transaction() as session:
            found = examinations.get_own(session, doctor, examination_id)
            if session.get(StoredReport, told.id) is None:
                made = {"made_at": clock.now(), "made_by": doctor.account_id}
                row = StoredReport(id=told.id, examination_id=examination_id, sha256=sha256, **made)
                session.add(row)
            examinations.log(clinic, session, "report_handed_out", doctor, found, report=told.id)
    return told.id, pdf


def check_report(
    clinic: Installation, actor: Actor | None, sha256: str, report_id: str = ""
) -> ReportCheck:
    """Return whether a PDF of some SHA-256 is a report that was handed out here.

    The id printed on it is looked at unless it is "". NotSignedIn where nobody is signed in.
    """
    known = require_account(actor)
    sha256, report_id = sha256.strip().lower(), report_id.strip().upper()
    with clinic.database.snapshot() as session:
        for kept in session.scalars(select(StoredReport).where(StoredReport.sha256 == sha256)):
            if report_id in ("", kept.id):
                when = f"handed out on {_moment(kept.made_at)}, byte for byte"
                return ReportCheck(True, f"This is report {kept.id} as it was {when}.")
        own = (
            select(StoredReport.id)
            .join(Examination)
            .join(Patient)
            .where(StoredReport.id == report_id, Patient.owner_id == known.account_id)
        )
        if session.scalar(own):
            return ReportCheck(
                False, f"Report {report_id} was handed out with other bytes than these."
            )
    return ReportCheck(False, NOT_ISSUED)


def _describe_examination(
    clinic: Installation, models: Models, found: Examination, shown: bool
) -> ReportedExamination:
    results = [(image, result) for image in found.images for result in image.results]
    told = ReportedExamination(
        id="",
        letterhead=clinic.settings.letterhead,
        facts=_facts(found),
        synthetic=found.patient.synthetic,
        read=describe_verdict(found.reads[-1]) if found.reads else "",
        reads=tuple(map(_read, reversed(found.reads))),
        images=tuple(_image(clinic, models, image, shown) for image in found.images),
        models=_models(models, results) if shown else (),
        shown=shown,
    )
    return replace(told, id=derive_id("R", _encode_state(told, found)))


def _encode_state(told: ReportedExamination, found: Examination) -> bytes:
    """Return all that the report tells, and where; pictures by their hash."""
    said = [told.letterhead, told.facts, told.synthetic, told.read, told.reads, told.shown]
    said += [found.id, told.models]
    for image, row in zip(told.images, found.images, strict=True):
        said += [image.scale, image.warnings, row.sha256]
        said += [(one.model, one.probability, one.heat_sha256) for one in row.results]
    return json.dumps(said, ensure_ascii=False).encode()


def _facts(found: Examination) -> Facts:
    patient = found.patient
    told = {
        "Patient": patient.id,
        **{one.label: one.show(getattr(patient, one.name)) for one in FIELDS if not one.is_long},
        "Examination": found.id,
        "Saved": f"{_moment(found.created_at)} by {found.maker.name}",
        "Stain": found.stain,
        "Specimen": found.specimen,
        "Comment": found.comment,
    }
    return tuple((name, value) for name, value in told.items() if value)


def _read(read: Read) -> tuple[str, str]:
    lines = [
        VERDICTS[read.verdict],
        f"by {read.reader.name}, {describe_timing(read)}",
        *([f"Comment: {read.comment}"] if read.comment else []),
        *([f"Amended because: {read.reason}"] if read.reason else []),
    ]
    return f"Read {read.number}, {_moment(read.at)}", "\n".join(lines)


def _image(
    clinic: Installation, models: Models, image: ExaminedImage, shown: bool
) -> ReportedImage:
    size, width = (image.width, image.height), image.field_width_um
    answers = [stored_answers.prediction(image, result) for result in image.results]
    scales = dict.fromkeys(map(wording.scale_words, answers))
    warnings = scale_warnings(models, [one.model for one in answers], size, width)
    return ReportedImage(
        position=image.position,
        size=size,
        scale="; ".join([*scales, *([f"the field is {width:g} µm wide"] if width else [])]),
        warnings=wording.find_untold(warnings, answers)
        if shown
        else warnings + wording.suitability_warnings(answers),
        explanations=tuple(
            stored_answers.explanation(
                answer,
                clinic.storage.read(image.sha256),
                clinic.storage.read(result.heat_sha256),
            )
            for answer, result in zip(answers, image.results, strict=True)
            if shown
        ),
    )


def _models(
    models: Models, results: list[tuple[ExaminedImage, Result]]
) -> tuple[tuple[str, Facts], ...]:
    """Return each model that answered, once; its test figures where these weights are on offer."""
    said = {
        result.weights_sha256: stored_answers.prediction(image, result) for image, result in results
    }
    told = []
    for one in said.values():
        offered = models.find(one.model, one.weights_sha256)
        measured = (offered and offered.figures) or "not known here for these weights"
        version, test = ("Version", one.model_version), ("How it was measured", measured)
        told.append((one.model, (version, *model_facts(one), test)))
    return tuple(told)


def _moment(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def hash_report(pdf: bytes) -> str:
    """Return what ``check_report`` asks for."""
    return hashlib.sha256(pdf).hexdigest()
