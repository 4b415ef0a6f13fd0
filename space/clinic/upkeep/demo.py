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
MPP = 4.0  # micrometres a pixel that a drawn image stands for
SYNTHETIC = "Synthetic: made up by a program, of no patient."
APP = Actor(0, "the app", "admin", "")  # makes the doctor, as the audit log says

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DemoPatient:
    """A patient to make."""

    number: int  # from 1
    birth_year: int
    note: str

    @property
    def examinations(self) -> list[DemoExamination]:
        """Its examinations, the oldest first."""
        return [one for one in EXAMINATIONS if one.patient == self.number]


@dataclass(frozen=True)
class DemoExamination:
    """An examination of some drawn images."""

    number: int  # from 1
    patient: int  # number of its patient
    images: str  # names of its images, blanks between them
    specimen: str
    comment: str = ""

    @property
    def reads(self) -> list[DemoRead]:
        """Its reads, in order."""
        return [one for one in READS if one.examination == self.number]


@dataclass(frozen=True)
class DemoRead:
    """A read to record."""

    examination: int  # number of its examination
    verdict: str
    comment: str = ""
    reason: str = ""
    shown: bool = True  # whether the models' answers are shown before it


PATIENTS = (
    DemoPatient(1, 1957, "Lump in the left breast."),
    DemoPatient(2, 1964, "Found at screening."),
    DemoPatient(3, 1971, "Second look after a fibroadenoma."),
    DemoPatient(4, 1949, "Biopsy first, then excision."),
    DemoPatient(5, 1980, "Cyst on the right side."),
    DemoPatient(6, 1953, "Sent for a second opinion."),
    DemoPatient(7, 1968, "Sent in by the surgery."),
    DemoPatient(8, 1975, "Both sides sampled."),
)
THREE = "malignant-2 benign-1 malignant-1"
EXAMINATIONS = (
    DemoExamination(1, 1, "malignant-1 malignant-2", "core biopsy", "Two fields of one core."),
    DemoExamination(2, 2, "benign-1", "core biopsy"),
    DemoExamination(3, 3, "benign-2 benign-3", "excision", "Both margins."),
    DemoExamination(4, 4, "malignant-3", "core biopsy"),
    DemoExamination(5, 4, "malignant-3 benign-2", "excision", "Tumour and tissue beside it."),
    DemoExamination(6, 5, "benign-3", "core biopsy"),
    DemoExamination(7, 6, THREE, "mastectomy", "Three fields, chosen at random."),
    DemoExamination(8, 7, "malignant-1", "core biopsy", "One field."),
    DemoExamination(9, 8, "benign-1 malignant-3", "core biopsy", "Right side, then left."),
)
READS = (
    DemoRead(1, "invasive", "Both fields alike.", shown=False),
    DemoRead(2, "indeterminate", "Few glands in this field.", shown=False),
    DemoRead(2, "none", reason="Looked at once more beside the models' answers."),
    DemoRead(3, "none"),
    DemoRead(4, "invasive", shown=False),
    DemoRead(5, "invasive", "The second field shows none."),
    DemoRead(6, "none"),
    DemoRead(7, "indeterminate", "The fields differ: more levels needed."),
)


def read_login(settings: Settings) -> tuple[str, str]:
    """Name and password of the demonstration's doctor; the password is made up once and kept."""
    path = settings.data / PASSWORD
    if not path.exists():
        write_files({path: passwords.generate_password().encode()}, mode=0o600)
    return NAME, path.read_text("utf-8").strip()


def start(clinic: Installation, models: Models) -> Thread:
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
    doctor = _find_doctor(clinic)
    filled = clinic.settings.data / FILLED
    if doctor is None or (filled.exists() and _has_patients(clinic, doctor)):
        return

    @cache
    def analyse_example(image: str) -> Analysed:
        if _app_has_ended():
            raise SystemExit  # of this thread; the next start goes on
        handed_in = HandedIn((EXAMPLES / f"synthetic-{image}.png").read_bytes(), MPP)
        return analyse(models, [handed_in], models.names)[0]

    for patient in PATIENTS:
        _complete_patient(clinic, doctor, patient, analyse_example)
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


def _find_doctor(clinic: Installation) -> Actor | None:
    """Return the doctor, with the password that everybody is shown; None if closed."""
    name, password = read_login(clinic.settings)
    with clinic.database.snapshot() as session:
        account = session.scalar(select(Account).where(Account.name == name))
    if account is None:
        number, _ = accounts.create(clinic, APP, name, "doctor", password)
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


def _complete_patient(
    clinic: Installation,
    doctor: Actor,
    patient: DemoPatient,
    analysed: Callable[[str], Analysed],
) -> None:
    """Make what is missing of a patient."""
    form = _build_form(clinic, patient)
    row = _find_patient(clinic, doctor, form)
    if row and row.archived_at:
        return
    done = row.examinations if row else 0
    # All that takes long comes before the record, so that it is hardly ever half made.
    images = [tuple(map(analysed, one.images.split())) for one in patient.examinations[done:]]
    record = row.id if row else patients.create(clinic, doctor, form, synthetic=True)
    for one, found in zip(patient.examinations[done:], images, strict=True):
        details = Details(specimen=one.specimen, comment=f"{SYNTHETIC} {one.comment}")
        examinations.save(clinic, doctor, record, Analysis(found, shown=False), details)
    oldest_first = examinations.list_examinations(clinic, doctor, record)[::-1]
    for kept, one in zip(oldest_first, patient.examinations, strict=False):
        _record_reads(clinic, doctor, kept.id, one.reads)


def _build_form(clinic: Installation, patient: DemoPatient) -> PatientForm:
    external_id = f"DEMO-{patient.number:02}"
    known = re.fullmatch(clinic.settings.external_id, external_id)
    note = f"{SYNTHETIC} {patient.note}"
    return PatientForm(external_id if known else None, patient.birth_year, note)


def _find_patient(clinic: Installation, doctor: Actor, form: PatientForm) -> PatientRow | None:
    """Return the patient of a form, where it has been made."""
    words = form.external_id or form.note
    for archived in (False, True):
        for row in patients.search_patients(clinic, doctor, words, archived=archived).rows:
            if (row.external_id or row.note) == words:
                return row
    return None


def _record_reads(
    clinic: Installation, doctor: Actor, examination_id: str, wanted: Sequence[DemoRead]
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
