"""Who may do what. Every service asks here before it does anything."""

from __future__ import annotations

from clinic.storage.actor import Actor, NotAllowed, NotSignedIn, Role


def need_doctor(actor: Actor | None) -> Actor:
    """Return the actor, a doctor.

    Raises:
        NotSignedIn: Nobody is signed in.
        NotAllowed: An admin is: admins see no patients.
    """
    return _need(actor, "doctor")


def need_admin(actor: Actor | None) -> Actor:
    """Return the actor, an admin; NotSignedIn or NotAllowed otherwise."""
    return _need(actor, "admin")


def need_account(actor: Actor | None) -> Actor:
    """Return the actor, of either role; NotSignedIn otherwise."""
    if actor is None:
        raise NotSignedIn("sign in first")
    return actor


def _need(actor: Actor | None, role: Role) -> Actor:
    known = need_account(actor)
    if known.role != role:
        raise NotAllowed(f"only {'a doctor' if role == 'doctor' else 'an admin'} may do this")
    return known
