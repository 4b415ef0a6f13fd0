"""Who may do what. Every service asks here before it does anything."""

from __future__ import annotations

from clinic.storage.actor import Actor, NotAllowed, NotSignedIn, Role


def require_doctor(actor: Actor | None) -> Actor:
    """Return the actor, a doctor; NotSignedIn, or NotAllowed to admins, who see no patients."""
    return _require_role(actor, "doctor")


def require_admin(actor: Actor | None) -> Actor:
    """Return the actor, an admin; NotSignedIn or NotAllowed otherwise."""
    return _require_role(actor, "admin")


def require_account(actor: Actor | None) -> Actor:
    """Return the actor, of either role; NotSignedIn otherwise."""
    if actor is None:
        raise NotSignedIn("sign in first")
    return actor


def _require_role(actor: Actor | None, role: Role) -> Actor:
    known = require_account(actor)
    if known.role != role:
        raise NotAllowed(f"only {'a doctor' if role == 'doctor' else 'an admin'} may do this")
    return known
