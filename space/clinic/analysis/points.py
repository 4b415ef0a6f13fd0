"""The operating point that pages begin with: a doctor's own, or the installation's."""

from __future__ import annotations

from bcd_models.errors import InputError
from clinic.accounts.permissions import require_doctor
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.storage.actor import Actor
from clinic.storage.tables import Account


def read_own_point(clinic: Installation, models: Models, actor: Actor | None) -> str | None:
    """Return a doctor's own default; None where there is none, or no model has it any more.

    NotSignedIn or NotAllowed where the actor is no doctor.
    """
    doctor = require_doctor(actor)
    with clinic.database.snapshot() as session:
        point = session.get_one(Account, doctor.account_id).point
    try:
        return None if point is None else models.check_point(point)
    except InputError:
        return None


def choose_own_point(
    clinic: Installation, models: Models, actor: Actor | None, point: str | None
) -> None:
    """Keep a doctor's own default; "": each model's own, None: the installation's. It is logged.

    Raises:
        NotSignedIn, NotAllowed: The actor is no doctor.
        InputError: No model has such a point.
    """
    doctor = require_doctor(actor)
    chosen = None if point is None else models.check_point(point)
    with clinic.database.transaction() as session:
        session.get_one(Account, doctor.account_id).point = chosen
        subject = f"account {doctor.account_id}"
        clinic.log.write(session, "point_chosen", actor=doctor, subject=subject, point=chosen)
