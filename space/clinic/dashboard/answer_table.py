"""A doctor's answers and reads as one table, for a spreadsheet or statistics."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import Select, and_, func, select

from clinic.accounts.permissions import require_doctor
from clinic.dashboard import csv as csv_file
from clinic.dashboard.analytics import Period
from clinic.installation import Installation
from clinic.storage.actor import Actor
from clinic.storage.tables import Examination, ExaminedImage, Look, Patient, Read, Result
from clinic.storage.tallies import parse_model_key

COLUMNS = (
    "examination", "patient", "external_id", "saved_at", "image", "model", "model_version",
    "weights_sha256", "probability", "threshold", "decision", "read", "read_after_answer",
    "comment_on_read", "mpp", "scale", "reasons", "point",
    "findings", "ignored",
)  # fmt: skip


def export_answers(clinic: Installation, actor: Actor | None, model: str, period: Period) -> bytes:
    """Return every answer that was shown, with the read, as CSV; it is logged.

    Raises:
        NotSignedIn, NotAllowed: The actor is no doctor.
        InputError: The model's key is none.
    """
    doctor = require_doctor(actor)
    with clinic.database.snapshot() as session:
        rows = session.execute(_answers(doctor, model, period)).all()
    about: dict[str, Any] = {
        "first": str(period.first),
        "last": str(period.last),
        "rows": len(rows),
    }
    with clinic.database.transaction() as session:
        clinic.log.write(session, "answers_exported", actor=doctor, **about)
    return csv_file.write_csv(
        COLUMNS,
        (
            (*row, "; ".join(reasons), point, _join_words(findings), _join_words(ignored))
            for *row, reasons, point, findings, ignored in rows
        ),
    )


def _join_words(findings: list[dict[str, Any]]) -> str:
    return "; ".join(one["words"] for one in findings)


def _answers(doctor: Actor, model: str, period: Period) -> Select[*tuple[Any, ...]]:
    columns = (Result.model, Result.model_version, Result.weights_sha256)
    parts = parse_model_key(model)
    seen = and_(Look.examination_id == Examination.id, Look.account_id == doctor.account_id)
    newest = (
        select(func.max(Read.number))
        .where(Read.examination_id == Examination.id)
        .correlate(Examination)
        .scalar_subquery()
    )
    begin, end = (
        datetime.combine(one, time(), UTC)
        for one in (period.first, period.last + timedelta(days=1))
    )
    return (
        select(
            Examination.id,
            Patient.id,
            Patient.external_id,
            Examination.created_at,
            ExaminedImage.position,
            *columns,
            Result.probability,
            Result.threshold,
            Result.decision,
            Read.verdict,
            Read.result_shown,
            Read.comment,
            Result.mpp,
            Result.scale,
            Result.reasons,
            Result.point,
            Result.findings,
            Result.ignored,
        )
        .join_from(Examination, Patient)
        .join(ExaminedImage)
        .join(Result)
        .join(Look, seen)
        .outerjoin(
            Read,
            and_(Read.examination_id == Examination.id, Read.number == newest),
        )
        .where(
            Patient.owner_id == doctor.account_id,
            Examination.created_at >= begin,
            Examination.created_at < end,
            *(column == part for column, part in zip(columns, parts, strict=True)),
        )
        .order_by(Examination.created_at, Examination.id, ExaminedImage.position)
    )
