"""A demonstration: a doctor whose password everybody is shown, with synthetic patients.

All is made through the services, as a doctor at the page would. A start that was cut off is gone on
with by the next one; once all is there, what visitors change or delete stays so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Thread, main_thread

from pydantic import TypeAdapter
from sqlalchemy import select

from bcd_models.errors import BCDError, InputError
from bcd_models.hub.atomic import write_files
from clinic.accounts import accounts, passwords
from clinic.analysis.analyse import Analysed, Analysis, HandedIn, analyse
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.records import examinations, patients, reads
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.records.patients import PatientRow
from clinic.settings import Settings
from clinic.storage.actor import Actor
from clinic.storage.tables import Account

NAME = "demo"
PASSWORD = "demo.password"  # file in the data folder
FILLED = "demo.filled"  # file in the data folder, there once all patients are
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECORDS = EXAMPLES / "patients.json"  # of patients made up
FIELD = 200.0  # micrometres that a drawn image stands for
SYNTHETIC = "Synthetic: made up by a program, of no patient."
APP = Actor(0, "the app", "admin", "")  # makes the doctor, as the audit log says

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MadeUpRead:
    """A read, and whether the models' answers are shown before it."""

    verdict: str
    comment: str = ""
    reason: str = ""
    shown: bool = True


@dataclass(frozen=True)
class MadeUpExamination:
    """An examination of some drawn images, by name."""

    images: tuple[str, ...]
    specimen: str
    comment: str
    reads: tuple[MadeUpRead, ...] = ()


@dataclass(frozen=True)
class MadeUpPatient:
    """A patient with examinations, the oldest first."""

    birth_year: int
    note: str
    examinations: tuple[MadeUpExamination, ...]


PATIENTS = TypeAdapter(tuple[MadeUpPatient, ...]).validate_json(RECORDS.read_bytes())


def login(settings: Settings) -> tuple[str, str]:
    """Name and password of the demonstration's doctor; the password is made up once and kept."""
    path = settings.data / PASSWORD
    if not path.exists():
        write_files({path: passwords.generate_password().encode()}, mode=0o600)
    return NAME, path.read_text("utf-8").strip()


def begin(clinic: Installation, models: Models) -> Thread:
    """Fill the installation beside the app, until that ends.

    A failure is logged in one line and ends nothing.
    """
    # No daemon: torch aborts the process where such a thread is cut off within it.
    thread = Thread(target=_try_to_fill, args=(clinic, models), name="demo")
    thread.start()
    return thread


def fill(clinic: Installation, models: Models) -> None:
    """Make the demonstration's doctor and, where it has none yet, its patients.

    Raises:
        InputError: The account of that name is an admin's.
        BCDError: A model can't be used, or there is no room.
    """
    doctor = _doctor(clinic)
    filled = clinic.settings.data / FILLED
    if doctor is None or (filled.exists() and _has_patients(clinic, doctor)):
        return

    @cache
    def analysed(image: str) -> Analysed:
        if _app_has_ended():
            raise SystemExit  # of this thread; the next start goes on
        handed_in = HandedIn((EXAMPLES / f"synthetic-{image}.png").read_bytes(), FIELD)
        return analyse(models, [handed_in], models.names)[0]

    for number, patient in enumerate(PATIENTS, 1):
        _complete(clinic, doctor, number, patient, analysed)
    filled.touch()


def _try_to_fill(clinic: Installation, models: Models) -> None:
    try:
        fill(clinic, models)
    except Exception as error:
        why = str(error) if isinstance(error, BCDError) else type(error).__name__
        if not _app_has_ended():
            log.error("the demonstration is not complete: %s", why)


def _app_has_ended() -> bool:
    return not main_thread().is_alive()


def _doctor(clinic: Installation) -> Actor | None:
    """The demonstration's doctor, with the password that everybody is shown; None if closed."""
    name, password = login(clinic.settings)
    with clinic.database.reading() as session:
        account = session.scalar(select(Account).where(Account.name == name))
    if account is None:
        number, _ = accounts.make(clinic, APP, name, "doctor", password)
        return Actor(number, name, "doctor", "")
    if account.role != "doctor":
        raise InputError(
            f"the account {name} is an admin's: the demonstration's doctor needs that name"
        )
    if not account.active:
        return None
    doctor = Actor(account.id, name, "doctor", "")
    if not passwords.check(password, account.password_hash)[0]:
        other = accounts.reset_password(clinic, APP, account.id)
        accounts.change_password(clinic, doctor, other, password)
    return doctor


def _has_patients(clinic: Installation, doctor: Actor) -> bool:
    found = (patients.search_patients(clinic, doctor, archived=one) for one in (False, True))
    return any(page.total for page in found)


def _complete(
    clinic: Installation,
    doctor: Actor,
    number: int,
    patient: MadeUpPatient,
    analysed: Callable[[str], Analysed],
) -> None:
    """Make what is missing of a patient."""
    form = _form(clinic, number, patient)
    row = _made(clinic, doctor, form)
    if row and row.archived_at:
        return
    done = row.examinations if row else 0
    # All that takes long comes before the record, so that it is hardly ever half made.
    images = [tuple(map(analysed, one.images)) for one in patient.examinations[done:]]
    record = row.id if row else patients.create(clinic, doctor, form, synthetic=True)
    for one, found in zip(patient.examinations[done:], images, strict=True):
        details = Details(specimen=one.specimen, comment=f"{SYNTHETIC} {one.comment}")
        examinations.save(clinic, doctor, record, Analysis(found, shown=False), details)
    oldest_first = examinations.list_examinations(clinic, doctor, record)[::-1]
    for kept, one in zip(oldest_first, patient.examinations, strict=False):
        _read(clinic, doctor, kept.id, one.reads)


def _form(clinic: Installation, number: int, patient: MadeUpPatient) -> PatientForm:
    external_id = f"DEMO-{number:02}"
    known = re.fullmatch(clinic.settings.external_id, external_id)
    note = f"{SYNTHETIC} {patient.note}"
    return PatientForm(external_id if known else None, patient.birth_year, note)


def _made(clinic: Installation, doctor: Actor, form: PatientForm) -> PatientRow | None:
    """Return the patient of a form, where it has been made."""
    words = form.external_id or form.note
    for archived in (False, True):
        for row in patients.search_patients(clinic, doctor, words, archived=archived).rows:
            if (row.external_id or row.note) == words:
                return row
    return None


def _read(
    clinic: Installation, doctor: Actor, examination_id: str, wanted: Sequence[MadeUpRead]
) -> None:
    """Record the reads that are missing."""
    if not wanted:
        return
    found, _ = examinations.view(clinic, doctor, examination_id)
    for read in wanted[len(found.reads) :]:
        if read.shown:
            examinations.view(clinic, doctor, examination_id, reveal=True)
        comment = f"{SYNTHETIC} {read.comment}"
        reason = f"{SYNTHETIC} {read.reason}" if read.reason else ""
        reads.record(clinic, doctor, examination_id, read.verdict, comment, reason)
