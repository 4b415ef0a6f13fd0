"""What a user reads when something fails, and what the log keeps of it."""

from __future__ import annotations

import logging
import traceback

from bcd_models.errors import BCDError

UNEXPECTED = "Something went wrong on the server. Try again; if it stays, tell who runs this page."

log = logging.getLogger(__name__)


def told(error: Exception) -> str:
    """One sentence for the user.

    Errors raised on purpose speak for themselves. Anything else is logged and told neutrally. The
    log holds where it happened and never the error's message, which may name a user's file.
    """
    if isinstance(error, BCDError):
        return str(error)
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("unexpected %s\n%s", type(error).__name__, frames)
    return UNEXPECTED
