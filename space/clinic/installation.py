"""One installation: its settings, database, stored files and audit log, opened together."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from bcd_models.errors import InputError
from clinic.settings import DATABASE, Settings
from clinic.storage import tallies
from clinic.storage.actor import Refused
from clinic.storage.audit_log import AuditLog
from clinic.storage.database import Database
from clinic.storage.files import Storage
from clinic.storage.heads import FORMER, HEADS
from clinic.storage.ids import RECORD_ID
from clinic.storage.migrations import migrate


@dataclass(frozen=True)
class Installation:
    """What every service works on."""

    settings: Settings
    database: Database
    storage: Storage
    log: AuditLog


def open_installation(settings: Settings) -> Installation:
    """Open an installation, made where there is none yet; its tables are brought up to date.

    Raises:
        InputError: The data folder or the database can't be used, or the database is gone.
    """
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_lost_database(settings)
        log = AuditLog(settings.data)
        database = Database(settings.database, lambda refusal: _log_refusal(database, log, refusal))
        migrate(database)
        with database.transaction() as session:
            tallies.fill(session)
        return Installation(settings, database, Storage(settings.data), log)
    except OSError as error:
        raise InputError(f"data folder {settings.data} can't be used: {error.strerror}") from None
    except SQLAlchemyError as error:
        kind = type(getattr(error, "orig", None) or error).__name__  # its text may hold a password
        raise InputError(
            f"the database can't be used ({kind}): look at BCD_DATABASE_URL and BCD_DATA_FOLDER"
        ) from None


def _log_refusal(database: Database, log: AuditLog, refusal: Refused) -> None:
    """Write into the audit log that a record was asked for which isn't the doctor's."""
    is_id = RECORD_ID.fullmatch(refusal.record_id)  # anything else may hold a user's words
    subject = f"{refusal.kind} {refusal.record_id}" if is_id else refusal.kind
    with database.transaction() as session:
        log.write(session, "refused", actor=refusal.actor, subject=subject)


def _refuse_lost_database(settings: Settings) -> None:
    """Refuse to start without it: an empty one would throw away what its log still holds."""
    file = settings.data / DATABASE
    was_used = any((settings.data / name).exists() for name in (HEADS, FORMER))
    if not settings.database_url and was_used and not file.exists():
        raise InputError(f"{file} is gone, but not what belongs to it: bring it or a backup back")
