"""Accounts: made, listed and closed by an admin; each changes its own password."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bcd_models.errors import InputError
from clinic.accounts import passwords, sign_ins
from clinic.accounts.permissions import require_account, require_admin
from clinic.installation import Installation
from clinic.storage import clock
from clinic.storage.actor import Actor, NotFound, Role
from clinic.storage.tables import Account, Patient, SignIn

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{1,63}"
FIRST_ADMIN = "admin"
COLUMNS = ("id", "name", "role", "active", "hub_name", "created_at")  # that an admin sees


@dataclass(frozen=True)
class AccountRow:
    """What an admin sees of an account."""

    id: int  # its number
    name: str  # what it signs in with
    role: Role  # "admin" or "doctor"
    active: bool  # whether it may sign in
    hub_name: str | None  # the Hub account that signs in as it, or None
    created_at: datetime  # when it was made
    patients: int  # how many it has; which, no admin sees
    sign_ins: int  # how many sessions are open


def create(
    clinic: Installation, actor: Actor | None, name: str, role: Role, password: str = ""
) -> tuple[int, str]:
    """Make an account; returns its number and its password, made up where none is given.

    Raises:
        NotSignedIn, NotAllowed: The actor is no admin.
        InputError: The name is taken or can't be one, or the password is weak.
    """
    admin = require_admin(actor)
    account, password = _prepare_account(name, role, password)
    with clinic.database.transaction() as session:
        _add_account(clinic, session, account, admin)
        return account.id, password


def create_first_admin(clinic: Installation) -> str | None:
    """Make the first admin where there is no account yet.

    Returns:
        The password that was made up, to be shown once; None where there was nothing to make or
        the settings name a password.
    """
    given = clinic.settings.admin_password
    with clinic.database.snapshot() as session:
        if _has_accounts(session):
            return None
    account, password = _prepare_account(FIRST_ADMIN, "admin", given)
    with clinic.database.transaction() as session:
        if _has_accounts(session):  # another process was quicker
            return None
        _add_account(clinic, session, account, None)
    return None if given else password


def list_accounts(clinic: Installation, actor: Actor | None) -> list[AccountRow]:
    """Return all accounts, by name; NotSignedIn or NotAllowed where the actor is no admin."""
    require_admin(actor)
    patients = select(func.count()).where(Patient.owner_id == Account.id)
    is_open = SignIn.expires_at > clock.now()
    sign_ins = select(func.count()).where(SignIn.account_id == Account.id, is_open)
    columns = (
        *(getattr(Account, name) for name in COLUMNS),
        patients.correlate(Account).scalar_subquery().label("patients"),
        sign_ins.correlate(Account).scalar_subquery().label("sign_ins"),
    )
    with clinic.database.snapshot() as session:
        rows = session.execute(select(*columns).order_by(Account.name))
        return [AccountRow(**row._mapping) for row in rows]


def reset_password(clinic: Installation, actor: Actor | None, account_id: int) -> str:
    """Give an account a new password, made up; its sessions end. Errors as in ``set_active``."""
    admin, password = require_admin(actor), passwords.generate_password()
    kept = passwords.hash_password(password)
    with clinic.database.transaction() as session:
        _set_password(clinic, session, _account(session, account_id), kept, admin)
    return password


def change_password(clinic: Installation, actor: Actor | None, old: str, new: str) -> None:
    """Change one's own password; all of one's sessions end, this one too.

    Raises:
        NotSignedIn: Nobody is signed in.
        InputError: The old one is wrong, or the new one weak.
        TooManyAttempts: Old ones were wrong too often.
    """
    known = require_account(actor)
    passwords.refuse_weak(new, known.name)
    checked = sign_ins.check_own_password(clinic, known, old)
    kept = passwords.hash_password(new)
    with clinic.database.transaction() as session:
        account = _account(session, known.account_id)
        if account.password_hash != checked:  # an admin has reset it since
            raise sign_ins.password_error()
        _set_password(clinic, session, account, kept, known)


def set_active(clinic: Installation, actor: Actor | None, account_id: int, active: bool) -> None:
    """Let an account sign in, or no longer: then its sessions end.

    Raises:
        NotSignedIn, NotAllowed, NotFound: The actor is no admin, or there is no such account.
        InputError: It is the last admin that may sign in.
    """
    admin = require_admin(actor)
    with clinic.database.transaction() as session:
        account = _account(session, account_id)
        account.active = active
        if not active:
            _refuse_without_admin(session)
            sign_ins.delete_sessions(session, account_id)
        subject = f"account {account_id}"
        clinic.log.write(session, "account_changed", actor=admin, subject=subject, active=active)


def _prepare_account(name: str, role: Role, password: str) -> tuple[Account, str]:
    """Check and hash, which takes its time: no transaction waits for it."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(
            "an account's name has 2 to 64 small letters, digits, dots, dashes and underscores"
        )
    if role not in ("admin", "doctor"):
        raise InputError(f"no role {role!r}: choose admin or doctor")
    if password:
        passwords.refuse_weak(password, name)
    password = password or passwords.generate_password()
    account = Account(
        name=name,
        role=role,
        password_hash=passwords.hash_password(password),
        created_at=clock.now(),
        password_changed_at=clock.now(),
    )
    return account, password


def _add_account(
    clinic: Installation, session: Session, account: Account, admin: Actor | None
) -> None:
    if session.scalar(select(Account.id).where(Account.name == account.name)):
        raise InputError(f"there is an account {account.name!r} already: choose another name")
    session.add(account)
    session.flush()
    subject = f"account {account.id}"
    clinic.log.write(session, "account_made", actor=admin, subject=subject, role=account.role)


def _has_accounts(session: Session) -> bool:
    return session.scalar(select(Account.id).limit(1)) is not None


def _set_password(
    clinic: Installation, session: Session, account: Account, kept: str, actor: Actor
) -> None:
    account.password_hash, account.password_changed_at = kept, clock.now()
    sign_ins.delete_sessions(session, account.id)
    clinic.log.write(session, "password_changed", actor=actor, subject=f"account {account.id}")


def _account(session: Session, account_id: int) -> Account:
    account = session.get(Account, account_id)
    if account is None:
        raise NotFound(f"there is no account {account_id}")
    return account


def _refuse_without_admin(session: Session) -> None:
    session.flush()
    left = select(func.count()).select_from(Account).where(Account.role == "admin", Account.active)
    if not session.scalar(left):
        raise InputError("this is the last admin: make another one first")
