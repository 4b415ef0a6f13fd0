"""What a user reads when something fails, and what the log keeps of it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoneFree

from bcd_models.errors import BCDError

UNEXPECTED = (
    "Something went wrong on the server. Try again; if it stays, contact the administrator."
)
UNREACHABLE = (
    "The records can't be reached just now. Try again in a minute; if it stays, contact the "
    "administrator."
)
# The database is away, full or busy: trying again may help.
TRANSIENT = (OperationalError, InterfaceError, NoneFree)
UNEXPECTED_STATUS = {**dict.fromkeys(TRANSIENT, 503), Exception: 500}

log = logging.getLogger(__name__)


def user_message(error: Exception) -> str:
    """Return one sentence for the user, as ``describe_failure`` does; log what was unexpected.

    The log holds where it happened and never the error's message, which may name a user's file.
    """
    if not isinstance(error, BCDError):
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("unexpected %s\n%s", _name_kind(error), frames)
    return describe_failure(error)


def describe_failure(error: Exception) -> str:
    """Return one sentence on an error; those that weren't raised on purpose are told neutrally."""
    if isinstance(error, BCDError):
        return str(error)
    return UNREACHABLE if isinstance(error, TRANSIENT) else UNEXPECTED


def find_status(
    error: Exception, statuses: Mapping[type[Exception], int] = UNEXPECTED_STATUS
) -> int:
    """Return the HTTP status of an error: its class's own, or that of the nearest base."""
    known = (statuses[one] for one in type(error).__mro__ if one in statuses)
    return next(known, 500)


def _name_kind(error: Exception) -> str:
    """Name an error's class, and what the database calls it; neither holds a user's words."""
    names = [type(error).__name__]
    if isinstance(error, DBAPIError) and error.orig:
        names.append(getattr(error.orig, "sqlite_errorname", type(error.orig).__name__))
    return " ".join(names)
