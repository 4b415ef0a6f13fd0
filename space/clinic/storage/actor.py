"""Who acts, and what comes of asking for what isn't theirs: all below knows these alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bcd_models.errors import BCDError

Role = Literal["admin", "doctor"]


class NotSignedIn(BCDError):
    """The act needs a sign-in."""


class NotAllowed(BCDError):
    """The act is not this account's."""


class NotFound(BCDError):
    """There is none, or none that this account may know of: both read alike."""


@dataclass(frozen=True)
class Actor:
    """Who acts."""

    account_id: int  # the account's
    name: str  # the account's
    role: Role  # what it may do
    address: str  # where the request came from


class Refused(NotFound):
    """A record was asked for that isn't there, or is another's: both read alike, and are logged.

    Args:
        actor: Who asked.
        kind: Of the record, such as "patient".
        record_id: As asked for.
    """

    def __init__(self, actor: Actor, kind: str, record_id: str) -> None:
        super().__init__(f"there is no such {kind}")
        self.actor, self.kind, self.record_id = actor, kind, record_id
