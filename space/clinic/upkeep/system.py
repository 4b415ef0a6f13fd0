"""The installation itself, as its admin sees it: health, models in use, room, settings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from bcd_models.errors import BCDError
from bcd_models.hub.folder import read_weights
from clinic.accounts.permissions import require_admin
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.settings import Settings
from clinic.storage.actor import Actor
from clinic.storage.database import Database
from clinic.storage.tables import Account, Examination, Patient, Result

MIN_FREE_BYTES = 256 << 20  # bytes of the disk that uploads leave for the records


@dataclass(frozen=True)
class Check:
    """One thing that has to be well."""

    name: str  # what was looked at
    fault: str = ""  # what is wrong with it, in words; "": nothing is


@dataclass(frozen=True)
class ModelInUse:
    """Weights that are on offer, or that gave answers which are kept."""

    name: str  # the model's
    version: str  # its version
    weights_sha256: str  # SHA-256 of its weights
    offered: bool  # whether they are on offer now
    answers: int  # how many of their answers are kept
    newest: datetime | None  # when the last of those was given; None where there is none


@dataclass(frozen=True)
class Room:
    """What the records take."""

    patients: int  # records of patients, archived ones too
    examinations: int  # of all of them
    files: int  # stored images, heat maps and reports
    file_bytes: int  # of those together
    database: str  # "SQLite" or "PostgreSQL"
    database_bytes: int | None  # of its file; None: another machine's affair
    free_bytes: int  # of the disk that the data folder is on


def can_read_database(database: Database) -> bool:
    """Return whether the database can be read."""
    try:
        with database.snapshot() as session:
            session.execute(select(Account.id).limit(1))
    except SQLAlchemyError:
        return False
    return True


def find_log_fault(clinic: Installation) -> str:
    """Return what a quick look finds wrong with the audit log, without numbers; "" if nothing."""
    try:
        with clinic.database.snapshot() as session:
            is_whole = clinic.log.is_whole(session)
    except (BCDError, SQLAlchemyError):
        return "it can't be read"
    return "" if is_whole else "rows were cut off: run python -m clinic verify"


def check_health(clinic: Installation, actor: Actor | None, models: Models) -> list[Check]:
    """Check all that can be told from inside; NotSignedIn or NotAllowed to all but admins."""
    require_admin(actor)
    return [
        Check("Database", "" if can_read_database(clinic.database) else "it can't be reached"),
        Check("Room on the disk", _find_room_fault(clinic)),
        Check("Audit log", find_log_fault(clinic)),
        *(Check(f"Model {name}", _find_model_fault(models, name)) for name in models.names),
    ]


def list_models_in_use(
    clinic: Installation, actor: Actor | None, models: Models
) -> list[ModelInUse]:
    """Return models on offer first, in their order; NotSignedIn or NotAllowed to all but admins."""
    require_admin(actor)
    weights = (Result.model, Result.model_version, Result.weights_sha256)
    kept = select(*weights, func.count(), func.max(Result.made_at)).group_by(*weights)
    with clinic.database.snapshot() as session:
        answered = {
            (name, version, sha256): (count, newest)
            for name, version, sha256, count, newest in session.execute(kept)
        }
    offered = [_identity(models, name) for name in models.names]
    earlier = sorted(answered.keys() - set(offered))
    return [
        ModelInUse(*one, one in offered, *answered.get(one, (0, None)))
        for one in (*offered, *earlier)
    ]


def measure_room(clinic: Installation, actor: Actor | None) -> Room:
    """Return what is kept and how much of it; NotSignedIn or NotAllowed to all but admins."""
    require_admin(actor)
    with clinic.database.snapshot() as session:
        patients, examinations = (
            session.scalar(select(func.count()).select_from(table)) or 0
            for table in (Patient, Examination)
        )
    sizes = list(clinic.storage.list_sizes())
    file = clinic.database.sqlite_file
    return Room(
        patients=patients,
        examinations=examinations,
        files=len(sizes),
        file_bytes=sum(sizes),
        database="SQLite" if file else "PostgreSQL",
        database_bytes=_measure_database(file) if file else None,
        free_bytes=_measure_free(clinic),
    )


def list_settings(clinic: Installation, actor: Actor | None) -> dict[str, str]:
    """Return settings in words, by variable, no secret among them.

    NotSignedIn or NotAllowed to all but admins.
    """
    require_admin(actor)
    return dict(_describe_settings(clinic.settings, clinic.database))


def _describe_settings(settings: Settings, database: Database) -> Iterator[tuple[str, str]]:
    yield "BCD_MODELS", ", ".join(settings.models)
    yield "BCD_DATA_FOLDER", str(settings.data)
    yield "BCD_DATABASE_URL", database.url.render_as_string(hide_password=True)
    yield "BCD_GUESTS", "yes" if settings.guests else "no"
    yield "BCD_DEMO", "yes" if settings.demo else "no"
    yield "BCD_LETTERHEAD", settings.letterhead
    yield "BCD_EXTERNAL_ID", settings.external_id
    yield "BCD_SESSION_HOURS", f"{settings.session_hours:g}"
    yield "BCD_HOSTS", ", ".join(settings.hosts) or "any"
    yield "BCD_PROXIES", ", ".join(settings.proxies) or "none"
    yield "BCD_POINT", settings.point or "each model's own"
    yield "BCD_HUB_ACCOUNTS", ", ".join(settings.hub_accounts) or "none"


def _identity(models: Models, name: str) -> tuple[str, str, str]:
    offered = models.describe(name)
    return name, offered.config.version, offered.weights_sha256


def _find_room_fault(clinic: Installation) -> str:
    free = _measure_free(clinic)
    if free >= MIN_FREE_BYTES:
        return ""
    return f"{free >> 20} MB are free: uploads are refused below {MIN_FREE_BYTES >> 20} MB"


def _find_model_fault(models: Models, name: str) -> str:
    offered = models.describe(name)
    try:
        _, sha256 = read_weights(offered.folder)
    except BCDError as error:
        return f"{error}; what is loaded already answers until the app is started anew"
    if sha256 == offered.weights_sha256:
        return ""
    return f"{offered.folder} holds other weights than at the start: start the app anew"


def _measure_database(file: Path) -> int:
    """Return bytes of SQLite's file, and of what it has not taken over from its log yet."""
    return sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*"))


def _measure_free(clinic: Installation) -> int:
    return shutil.disk_usage(clinic.settings.data).free
