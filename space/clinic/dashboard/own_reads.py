"""What the clinic's own pathologists read before a model's answers were shown, set beside these.

A read is no ground truth, and one made after the answers may have followed them: those don't count
here, nor do synthetic patients.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select

from bcd_models.config import DecisionConfig
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.local import Figures, measure, refuse_existing
from bcd_models.local.metrics import MIN_CASES
from bcd_models.prediction import WORDS
from clinic.accounts.permissions import require_admin
from clinic.installation import Installation
from clinic.storage.actor import Actor
from clinic.storage.tables import Examination, ExaminedImage, Patient, Read, Result
from clinic.storage.tallies import parse_model_key

LABELS = {"invasive": "malignant", "none": "benign"}  # by verdict; "indeterminate" is neither
LIST, IMAGES = "reads.csv", "images"


def measure_reads(
    clinic: Installation, actor: Actor | None, model: str, decision: DecisionConfig
) -> Figures:
    """Measure a model on all examinations that were read before its answers were shown.

    An examination's probability is the largest of its images'; patients are the cases.

    Args:
        clinic: Whose reads.
        actor: An admin.
        model: A key of the model; answers of all versions with its weights count.
        decision: Its decision rule.

    Raises:
        NotSignedIn, NotAllowed: The actor is no admin.
        InputError: Too few patients, or reads of one kind only.
    """
    require_admin(actor)
    name, _, sha256 = parse_model_key(model)
    wanted = (
        _select_blind_reads(func.max(Result.probability))
        .where(Result.model == name, Result.weights_sha256 == sha256)
        .group_by(Examination.id, Read.verdict, Patient.id)
    )
    with clinic.database.snapshot() as session:
        rows = session.execute(wanted).all()
    probability = [float(largest) for _, _, _, largest in rows]
    labels = [LABELS[verdict] for _, verdict, _, _ in rows]
    cases = [str(patient) for _, _, patient, _ in rows]
    if len(set(labels)) < 2 or len(set(cases)) < MIN_CASES:
        raise InputError(
            f"{len(labels)} examinations of {len(set(cases))} patients count so far, "
            f"{labels.count('malignant')} of them read as {WORDS['malignant']}: at least "
            f"{MIN_CASES} patients are needed, with reads of both kinds"
        )
    return measure(probability, labels, cases, decision)


def export_reads(clinic: Installation, folder: Path) -> int:
    """Write images with their blind reads as a list for ``bcd validate`` and ``bcd calibrate``.

    Only examinations of one image are taken: of several nobody says which one the read is of.

    Args:
        clinic: Whose reads; its log says that they left.
        folder: A new one, for ``reads.csv`` and the images. Names in it are ids of the app's own.

    Returns:
        How many images.

    Raises:
        InputError: The folder holds something, can't be written, or there are no such reads.
        StorageError: A stored image is missing or damaged.
    """
    refuse_existing(folder)
    alone = select(ExaminedImage.examination_id).group_by(ExaminedImage.examination_id)
    wanted = (
        _select_blind_reads(ExaminedImage.sha256, func.max(Result.mpp))
        .where(Examination.id.in_(alone.having(func.count() == 1)))
        .group_by(Examination.id, Read.verdict, Patient.id, ExaminedImage.sha256)
    )
    contents, lines = {}, []
    with clinic.storage.lock_for_saving():  # nothing is deleted meanwhile
        with clinic.database.snapshot() as session:
            rows = session.execute(wanted).all()
        if not rows:
            raise InputError(
                "no examination of one image was read before the model's answer was shown"
            )
        for examination, verdict, patient, sha256, mpp in rows:
            name = f"{IMAGES}/{examination}.png"
            contents[folder / name] = clinic.storage.read(sha256)
            lines.append((name, LABELS[verdict], patient, "" if mpp is None else mpp))
        text = io.StringIO()
        csv.writer(text).writerows([("path", "label", "case", "mpp"), *lines])
        contents[folder / LIST] = text.getvalue().encode()
        try:
            (folder / IMAGES).mkdir(parents=True, mode=0o700)
            write_files(contents, mode=0o600)
        except OSError as error:
            raise InputError(f"{folder} can't be written: {error.strerror}") from None
        with clinic.database.transaction() as session:
            clinic.log.write(session, "reads_exported", actor=None, images=len(rows))
    return len(rows)


def _select_blind_reads(*columns: Any) -> Select[Any]:
    return (
        select(Examination.id, Read.verdict, Patient.id, *columns)
        .join_from(Examination, Patient)
        .join(Read, Read.examination_id == Examination.id)
        .join(ExaminedImage, ExaminedImage.examination_id == Examination.id)
        .join(Result, Result.image_id == ExaminedImage.id)
        .where(
            Read.number == 1,
            Read.result_shown.is_(False),
            Read.verdict.in_(LABELS),
            Patient.synthetic.is_(False),
        )
        .order_by(Examination.id)
    )
