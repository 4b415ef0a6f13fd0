"""What a user reads when something fails, and what the log keeps of it."""

from __future__ import annotations

import logging
import traceback

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoneFree

from bcd_models.errors import BCDError

UNEXPECTED = "Something went wrong on the server. Try again; if it stays, tell who runs this page."
UNREACHABLE = (
    "The records can't be reached just now. Try again in a minute; if it stays, tell who runs this "
    "page."
)

log = logging.getLogger(__name__)


def told(error: Exception) -> str:
    """One sentence for the user.

    Errors raised on purpose speak for themselves. Anything else is logged and told neutrally. The
    log holds where it happened and never the error's message, which may name a user's file.
    """
    if isinstance(error, BCDError):
        return str(error)
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("unexpected %s\n%s", _kind(error), frames)
    return UNREACHABLE if is_passing(error) else UNEXPECTED


def is_passing(error: Exception) -> bool:
    """Whether it is the database that is away, full or busy, so that trying again may help."""
    return isinstance(error, (OperationalError, InterfaceError, NoneFree))


def status_of(error: Exception) -> int:
    """The HTTP status of what nobody raised on purpose."""
    return 503 if is_passing(error) else 500


def _kind(error: Exception) -> str:
    """Its class, and a database's own name for it, neither of which holds a user's words."""
    names = [type(error).__name__]
    if isinstance(error, DBAPIError) and error.orig:
        names.append(getattr(error.orig, "sqlite_errorname", type(error.orig).__name__))
    return " ".join(names)
