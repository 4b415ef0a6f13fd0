"""Examinations: a patient's images analysed together, saved with what each model said.

Kept of an image are its pixels as the models saw them, never the file: that may tell a name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session

from bcd_models.errors import InputError
from bcd_models.explanation import Explanation
from bcd_models.prediction import Unsuitable
from clinic.accounts.permissions import require_doctor
from clinic.analysis.analyse import Analysed, Analysis, HandedIn, analyse
from clinic.analysis.display import encode_heat_map
from clinic.analysis.models import Models
from clinic.analysis.stored_answers import ANSWER_COLUMNS, list_columns
from clinic.installation import Installation
from clinic.records import patients
from clinic.records.texts import check_text
from clinic.storage import clock, references, shown_images, tallies
from clinic.storage.actor import Actor, NotAllowed, NotFound, Refused
from clinic.storage.ids import issue_id
from clinic.storage.paging import Page, fetch_page
from clinic.storage.shown_images import hash_png
from clinic.storage.tables import Examination, ExaminedImage, Look, Patient, Read, Result

STAINS = ("H&E", "other", "not known")
SPECIMENS = ("core biopsy", "excision", "mastectomy", "other", "not known")


@dataclass(frozen=True)
class Details:
    """What is asked of an examination besides its images."""

    stain: str = STAINS[0]  # one of ``STAINS``
    specimen: str = SPECIMENS[-1]  # one of ``SPECIMENS``
    comment: str = ""  # free text without names


@dataclass(frozen=True)
class ExaminationRow:
    """One line of a list."""

    id: str  # issued by the app
    patient_id: str  # whose it is
    created_at: datetime  # when it was saved
    images: int  # how many
    read: bool  # whether somebody has read it


def analyse_for_patient(
    clinic: Installation,
    actor: Actor | None,
    models: Models,
    patient_id: str,
    handed_in: Sequence[HandedIn],
    names: Sequence[str],
    shown: bool,
    point: str = "",
    suitability: Unsuitable = "refer",
) -> Analysis:
    """Let some models answer about images of a patient; that they did is logged, saved or not.

    Where the doctor sees what they say, ``shown``, that is kept before it is returned. The rest is
    as in ``analyse``.

    Raises:
        NotSignedIn, NotAllowed, NotFound: The actor is no doctor, or has no such patient.
        InputError, ImageError: As in ``analyse``.
    """
    doctor = require_doctor(actor)
    with clinic.database.snapshot() as session:
        patients.get_own(session, doctor, patient_id)
    found = analyse(models, handed_in, names, point, suitability)
    hashes = [hash_png(one.png) for one in found]
    said: dict[str, Any] = {
        "images": len(found),
        "models": list(names),
        "weights": [models.load(name).weights_sha256 for name in names],
        "point": point,
        "shown": shown,
        "suitability": suitability,
        "ignored": _list_ignored(found),
    }
    with clinic.database.transaction() as session:
        patients.get_own(session, doctor, patient_id)
        patients.log(clinic, session, "images_analysed", doctor, patient_id, **said)
        shown_before = shown_images.were_shown(session, doctor.account_id, hashes)
        if shown:
            shown_images.note_shown(session, doctor.account_id, hashes)
    return Analysis(found, shown, shown_before)


def save(
    clinic: Installation,
    actor: Actor | None,
    patient_id: str,
    analysis: Analysis,
    details: Details,
) -> str:
    """Save an examination whole, or not at all; returns the id issued for it.

    Where the analysis says that its answers were shown, it is saved as one whose answers were.

    Raises:
        NotSignedIn, NotAllowed, NotFound: The actor is no doctor, or has no such patient.
        InputError: The details can't be accepted, or the patient is archived.
        StorageError: There is no room.
    """
    doctor, comment = require_doctor(actor), _check_details(details)
    with clinic.database.snapshot() as session:  # before anything is stored
        _refuse_archived(session, doctor, patient_id)
    now = clock.now()
    with references.store_files(clinic.database, clinic.storage) as put:
        examination = Examination(
            id=issue_id("E"),
            patient_id=patient_id,
            made_by=doctor.account_id,
            created_at=now,
            stain=details.stain,
            specimen=details.specimen,
            comment=comment,
            images=[_row(put, one, place, now) for place, one in enumerate(analysis.images, 1)],
        )
        with clinic.database.transaction() as session:
            _refuse_archived(session, doctor, patient_id)
            session.add(examination)
            session.flush()
            counted = tallies.count_examinations(doctor.account_id, [examination])
            tallies.change(session, Counter(), counted)
            made = {"images": len(analysis.images), "ignored": _list_ignored(analysis.images)}
            log(clinic, session, "examined", doctor, examination, **made)
            if analysis.shown:
                note_look(clinic, session, doctor, examination)
            return examination.id


def view(
    clinic: Installation, actor: Actor | None, examination_id: str, reveal: bool = False
) -> tuple[Examination, bool]:
    """Return one examination of one's own patients; looking is logged.

    ``reveal`` shows what the models said, from now on.

    Returns:
        The examination with images, results and reads loaded, and whether the results may be shown
        to this doctor.

    Raises:
        NotSignedIn, NotAllowed, NotFound: The actor is no doctor, or there is none of theirs.
    """
    doctor = require_doctor(actor)
    with clinic.database.transaction() as session:
        found = get_own(session, doctor, examination_id)
        log(clinic, session, "examination_viewed", doctor, found)
        if reveal:
            note_look(clinic, session, doctor, found)
        _load_parts(found)
        return found, has_looked(session, doctor, examination_id)


def answers_were_seen(clinic: Installation, actor: Actor | None, examination_id: str) -> bool:
    """Return whether a read made now comes after the models' answers; errors as in ``view``."""
    doctor = require_doctor(actor)
    with clinic.database.snapshot() as session:
        return has_seen_answers(session, doctor, get_own(session, doctor, examination_id))


def list_examinations(
    clinic: Installation, actor: Actor | None, patient_id: str
) -> list[ExaminationRow]:
    """Return a patient's examinations, newest first; NotFound where it is none of the doctor's."""
    doctor = require_doctor(actor)
    with clinic.database.snapshot() as session:
        patients.get_own(session, doctor, patient_id)
        wanted = _lines().where(Examination.patient_id == patient_id)
        rows = session.execute(wanted.order_by(Examination.created_at.desc(), Examination.id))
        return [ExaminationRow(**row._mapping) for row in rows]


def list_unread(clinic: Installation, actor: Actor | None, page: int = 1) -> Page[ExaminationRow]:
    """Return examinations of one's own patients that nobody has read, oldest first."""
    doctor = require_doctor(actor)
    is_active = and_(Patient.owner_id == doctor.account_id, Patient.archived_at.is_(None))
    rows = _lines().join(Patient).where(is_active, ~_has_read())
    with clinic.database.snapshot() as session:
        oldest_first = rows.order_by(Examination.created_at, Examination.id)
        return fetch_page(session, oldest_first, page, ExaminationRow)


def read_image(
    clinic: Installation, actor: Actor | None, examination_id: str, position: int
) -> bytes:
    """Return an examination's image as PNG; NotFound where there is none of the doctor's."""
    doctor = require_doctor(actor)
    with clinic.database.snapshot() as session:
        found = _image(session, doctor, examination_id, position).sha256
    return clinic.storage.read(found)


def read_heat_map(
    clinic: Installation, actor: Actor | None, examination_id: str, position: int, model: str
) -> bytes:
    """Return a model's heat map as grey PNG, 0 black, 1 white, clear where it was not looked.

    Raises:
        NotSignedIn, NotAllowed, NotFound: The actor is no doctor, or there is none of theirs; or
            the results have not been shown to the doctor yet.
    """
    doctor = require_doctor(actor)
    with clinic.database.snapshot() as session:
        found = _image(session, doctor, examination_id, position)
        if not has_looked(session, doctor, examination_id):
            raise NotAllowed("the models' answers have not been shown yet")
        hashes = [result.heat_sha256 for result in found.results if result.model == model]
    if not hashes:
        raise NotFound("there is no answer of this model")
    return clinic.storage.read(hashes[0])


def get_own(session: Session, doctor: Actor, examination_id: str) -> Examination:
    """Return an examination of the doctor's patients; Refused where it is none, or another's."""
    found = session.get(Examination, examination_id)
    if found is None or found.patient.owner_id != doctor.account_id:
        raise Refused(doctor, "examination", examination_id)
    return found


def note_look(
    clinic: Installation, session: Session, doctor: Actor, examination: Examination
) -> None:
    """Note that the models' answers were shown to a doctor, the first time."""
    if has_looked(session, doctor, examination.id):
        return
    session.add(Look(examination_id=examination.id, account_id=doctor.account_id, at=clock.now()))
    shown_images.note_shown(session, doctor.account_id, _hashes(examination))
    log(clinic, session, "results_shown", doctor, examination)


def has_looked(session: Session, doctor: Actor, examination_id: str) -> bool:
    """Return whether the models' answers were shown to a doctor, as those of this examination."""
    return session.get(Look, (examination_id, doctor.account_id)) is not None


def has_seen_answers(session: Session, doctor: Actor, examination: Examination) -> bool:
    """Return whether answers about an examination's images were shown to a doctor, anywhere."""
    return has_looked(session, doctor, examination.id) or shown_images.were_shown(
        session, doctor.account_id, _hashes(examination)
    )


def log(
    clinic: Installation,
    session: Session,
    action: str,
    doctor: Actor,
    examination: Examination,
    **detail: Any,
) -> None:
    """Write an act on an examination into the audit log."""
    subject = f"examination {examination.id}"
    detail = {"patient": examination.patient_id, **detail}
    clinic.log.write(session, action, actor=doctor, subject=subject, **detail)


def _refuse_archived(session: Session, doctor: Actor, patient_id: str) -> None:
    """Raise Refused where it is no patient of the doctor's, InputError where it is archived."""
    if patients.get_own(session, doctor, patient_id).archived_at:
        raise InputError("this patient is archived: restore the record first")


def _row(put: Callable[[bytes], str], one: Analysed, position: int, now: datetime) -> ExaminedImage:
    return ExaminedImage(
        position=position,
        sha256=put(one.png),
        format="PNG",
        width=one.image.width,
        height=one.image.height,
        field_width_um=one.field_width_um,
        results=[_result(put, said, now) for said in one.explanations.values()],
    )


def _result(put: Callable[[bytes], str], said: Explanation, now: datetime) -> Result:
    answer = said.prediction
    low, high = answer.refer or (None, None)
    return Result(
        made_at=now,
        refer_low=low,
        refer_high=high,
        heat_sha256=put(encode_heat_map(said)),
        **list_columns(answer),
        **{name: getattr(answer, name) for name in ANSWER_COLUMNS},
    )


def _list_ignored(images: Sequence[Analysed]) -> list[int]:
    """Return which images, from 1, were answered all the same although they look unsuitable."""
    return [
        position
        for position, one in enumerate(images, 1)
        if any(said.prediction.ignored for said in one.explanations.values())
    ]


def _check_details(details: Details) -> str:
    """Return the comment as it is kept."""
    for value, known in ((details.stain, STAINS), (details.specimen, SPECIMENS)):
        if value not in known:
            raise InputError(f"no {value!r}: choose one of {', '.join(known)}")
    return check_text(details.comment, "comment")


def _image(session: Session, doctor: Actor, examination_id: str, position: int) -> ExaminedImage:
    images = get_own(session, doctor, examination_id).images
    if not 1 <= position <= len(images):
        raise NotFound("there is no such image")
    return images[position - 1]


def _hashes(examination: Examination) -> list[str]:
    return [image.sha256 for image in examination.images]


def _load_parts(examination: Examination) -> None:
    """Read what lies below, while there is a session."""
    for one in examination.images:
        _ = one.results
    for read in examination.reads:
        _ = read.reader
    _ = examination.maker


def _has_read() -> ColumnElement[bool]:
    return select(Read.id).where(Read.examination_id == Examination.id).exists()


def _lines() -> Select[*tuple[Any, ...]]:
    images = select(func.count()).where(ExaminedImage.examination_id == Examination.id)
    return select(
        Examination.id,
        Examination.patient_id,
        Examination.created_at,
        images.scalar_subquery().label("images"),
        _has_read().label("read"),
    )
