"""Patients: records without names, each a doctor's own.

Another's record reads as one that isn't there. Every act is checked and logged here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import Session

from bcd_models.errors import BCDError, InputError
from clinic.accounts.permissions import require_admin, require_doctor
from clinic.installation import Installation
from clinic.records.patient_fields import FIELDS, PatientForm, parse_form, show_form
from clinic.storage import clock, references, shown_images, tallies
from clinic.storage.actor import Actor, Refused
from clinic.storage.ids import issue_id
from clinic.storage.paging import Page, fetch_page
from clinic.storage.tables import Account, Examination, Patient, Read

COLUMNS = ("id", "synthetic", "created_at", "changed_at", "archived_at", "version")


class Conflict(BCDError):
    """Somebody has changed it meanwhile."""


@dataclass(frozen=True, kw_only=True)
class PatientRow(PatientForm):
    """What is shown of a patient: what was asked, and the rest."""

    id: str  # issued by the app
    synthetic: bool  # whether it is a demonstration's
    created_at: datetime  # when the record was made
    changed_at: datetime  # when the form was last changed
    archived_at: datetime | None  # when it was archived, or None
    version: int  # counted up by each change; an edit names the one it was made on
    examinations: int  # how many there are
    unread: int  # how many of them nobody has read


def create(
    clinic: Installation, actor: Actor | None, form: PatientForm, synthetic: bool = False
) -> str:
    """Make a record; returns the id issued for it.

    Raises:
        NotSignedIn, NotAllowed: The actor is no doctor.
        InputError: The form can't be accepted.
    """
    doctor, now = require_doctor(actor), clock.now()
    form = parse_form(clinic.settings, show_form(form))
    with clinic.database.transaction() as session:
        _refuse_taken_id(session, doctor.account_id, form.external_id, None)
        patient = Patient(
            id=issue_id("P"),
            owner_id=doctor.account_id,
            synthetic=synthetic,
            created_at=now,
            changed_at=now,
            **vars(form),
        )
        session.add(patient)
        log(clinic, session, "patient_made", doctor, patient.id)
        return patient.id


def view(clinic: Installation, actor: Actor | None, patient_id: str) -> PatientRow:
    """Return one of one's own patients; looking is logged.

    Raises:
        NotSignedIn, NotAllowed, NotFound: The actor is no doctor, or has no such patient.
    """
    doctor = require_doctor(actor)
    with clinic.database.transaction() as session:
        get_own(session, doctor, patient_id)
        log(clinic, session, "patient_viewed", doctor, patient_id)
        row = session.execute(_rows().where(Patient.id == patient_id)).one()
        return PatientRow(**row._mapping)


def search_patients(
    clinic: Installation,
    actor: Actor | None,
    words: str = "",
    *,
    archived: bool = False,
    page: int = 1,
) -> Page[PatientRow]:
    """Return one's own patients, archived or not, last changed first.

    Each of the ``words`` must occur in id, external id or note; case doesn't matter.
    """
    doctor = require_doctor(actor)
    wanted = [
        Patient.owner_id == doctor.account_id,
        Patient.archived_at.is_not(None) if archived else Patient.archived_at.is_(None),
        *map(_contains_word, words.split()),
    ]
    rows = _rows().where(*wanted).order_by(Patient.changed_at.desc(), Patient.id)
    with clinic.database.snapshot() as session:
        return fetch_page(session, rows, page, PatientRow)


def edit(
    clinic: Installation, actor: Actor | None, patient_id: str, form: PatientForm, version: int
) -> None:
    """Change a record that was shown as of some version.

    Raises:
        NotSignedIn, NotAllowed, NotFound: The actor is no doctor, or has no such patient.
        InputError: The form can't be accepted.
        Conflict: The record has changed since that version.
    """
    form = parse_form(clinic.settings, show_form(form))
    with _open_patient(clinic, actor, patient_id, version) as (session, doctor, patient):
        _refuse_taken_id(session, doctor.account_id, form.external_id, patient_id)
        changed = [name for name, value in vars(form).items() if getattr(patient, name) != value]
        for name in changed:
            setattr(patient, name, getattr(form, name))
        patient.changed_at = clock.now()
        log(clinic, session, "patient_changed", doctor, patient_id, fields=changed)


def archive(clinic: Installation, actor: Actor | None, patient_id: str) -> None:
    """Archive a record; NotSignedIn, NotAllowed or NotFound as in ``view``."""
    with _open_patient(clinic, actor, patient_id) as (session, doctor, patient):
        patient.archived_at = patient.archived_at or clock.now()
        log(clinic, session, "patient_archived", doctor, patient_id)


def restore(clinic: Installation, actor: Actor | None, patient_id: str) -> None:
    """Restore an archived record; NotSignedIn, NotAllowed or NotFound as in ``view``."""
    with _open_patient(clinic, actor, patient_id) as (session, doctor, patient):
        patient.archived_at = None
        log(clinic, session, "patient_restored", doctor, patient_id)


def delete(clinic: Installation, actor: Actor | None, patient_id: str, confirmation: str) -> None:
    """Delete a record with its examinations, results, reads, reports and their files.

    To whom answers about its images were shown goes too, where no other record has the image.

    Raises:
        NotSignedIn, NotAllowed, NotFound: As in ``view``.
        InputError: The confirmation isn't the id once more.
    """
    with _open_patient(clinic, actor, patient_id) as (session, doctor, patient):
        if confirmation.strip() != patient_id:
            raise InputError(f"to delete this patient, type its id: {patient_id}")
        files = list(_files(patient))
        counted = tallies.count_examinations(patient.owner_id, patient.examinations)
        tallies.change(session, counted, Counter())
        session.delete(patient)
        session.flush()
        shown_images.forget_deleted(session, files)
        log(clinic, session, "patient_deleted", doctor, patient_id, files=len(set(files)))
    references.delete_unreferenced(clinic.database, clinic.storage, files)


def hand_over(clinic: Installation, actor: Actor | None, giver: int, taker: int) -> int:
    """Give all patients of a closed account to another doctor; returns how many.

    Raises:
        NotSignedIn, NotAllowed: The actor is no admin.
        InputError: The giver may still sign in, the taker is no open doctor's account, or both
            have a patient of one external id.
    """
    admin = require_admin(actor)
    with clinic.database.transaction() as session:
        before, after = (session.get(Account, number) for number in (giver, taker))
        if before is None or before.active:
            raise InputError("only patients of a closed account are handed over: close it first")
        if after is None or not after.active or after.role != "doctor":
            raise InputError("patients are handed over to a doctor who may sign in")
        theirs = select(Patient.external_id).where(Patient.owner_id == taker)
        mine = select(Patient).where(Patient.owner_id == giver)
        if both := len(session.scalars(mine.where(Patient.external_id.in_(theirs))).all()):
            raise InputError(f"both have patients of the same external id: {both}; change these")
        patients = session.scalars(mine).all()
        for patient in patients:
            patient.owner_id = taker
        tallies.hand_over(session, giver, taker)
        subject, count = f"account {giver}", len(patients)
        clinic.log.write(
            session, "patients_handed_over", actor=admin, subject=subject, to=taker, count=count
        )
        return count


def get_own(session: Session, doctor: Actor, patient_id: str) -> Patient:
    """Return a patient of the doctor's; Refused where there is none, or it is another's."""
    patient = session.get(Patient, patient_id)
    if patient is None or patient.owner_id != doctor.account_id:
        raise Refused(doctor, "patient", patient_id)
    return patient


@contextmanager
def _open_patient(
    clinic: Installation, actor: Actor | None, patient_id: str, version: int | None = None
) -> Iterator[tuple[Session, Actor, Patient]]:
    doctor = require_doctor(actor)
    with clinic.database.transaction() as session:
        patient = get_own(session, doctor, patient_id)
        if version not in (None, patient.version):
            raise Conflict("somebody has changed this patient meanwhile: look at it again")
        yield session, doctor, patient


def log(
    clinic: Installation, session: Session, action: str, doctor: Actor, patient: str, **detail: Any
) -> None:
    """Write an act on a patient into the audit log."""
    clinic.log.write(session, action, actor=doctor, subject=f"patient {patient}", **detail)


def _refuse_taken_id(
    session: Session, owner: int, external_id: str | None, but: str | None
) -> None:
    if external_id is None:
        return
    taken = select(Patient.id).where(
        Patient.owner_id == owner, Patient.external_id == external_id, Patient.id != (but or "")
    )
    if other := session.scalar(taken):
        raise InputError(f"you have a patient of this external id already: {other}")


def _contains_word(word: str) -> ColumnElement[bool]:
    columns = [Patient.id, *(getattr(Patient, one.name) for one in FIELDS if one.is_searched)]
    return or_(*(column.icontains(word, autoescape=True) for column in columns))


def _rows() -> Select[*tuple[Any, ...]]:
    read = select(Read.id).where(Read.examination_id == Examination.id).exists()
    of_patient = select(func.count()).where(Examination.patient_id == Patient.id)
    names = (*(one.name for one in FIELDS), *COLUMNS)
    return select(
        *(getattr(Patient, name) for name in names),
        of_patient.scalar_subquery().label("examinations"),
        of_patient.where(~read).scalar_subquery().label("unread"),
    )


def _files(patient: Patient) -> Iterator[str]:
    for examination in patient.examinations:
        yield from (report.sha256 for report in examination.reports)
        for image in examination.images:
            yield image.sha256
            yield from (result.heat_sha256 for result in image.results)
