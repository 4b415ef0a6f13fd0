"""Signing in and out: sessions in the database, known by the hash of a token."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from bcd_models.errors import BCDError, InputError
from clinic.accounts import lockout, passwords
from clinic.accounts.permissions import require_account, require_admin
from clinic.installation import Installation
from clinic.storage import clock, shown_images
from clinic.storage.actor import Actor, NotAllowed
from clinic.storage.paging import Page, fetch_page
from clinic.storage.tables import Account, SignIn

MAX_LIFE_FACTOR = 3  # times the hours without use
MIN_UPDATE_INTERVAL = timedelta(minutes=1)  # a request writes no more often


@dataclass(frozen=True)
class SessionRow:
    """What an admin sees of a session."""

    account_id: int  # whose it is
    account: str  # that account's name
    address: str  # where it was begun from
    created_at: datetime  # when
    seen_at: datetime  # when it was last used, to the minute
    expires_at: datetime  # when it ends unless it is used


class SignInFailed(BCDError):
    """Name and password don't belong together; which of them is wrong is never said."""

    def __init__(self) -> None:
        super().__init__("name or password is wrong")


def sign_in(clinic: Installation, name: str, password: str, address: str) -> str:
    """Begin a session; returns its token, which is kept nowhere.

    Raises:
        SignInFailed: No such account, another password, or the account is closed: all alike, in
            words and time.
        TooManyAttempts: The account or the address has to wait.
    """
    name = name.strip().lower()
    try:
        with clinic.database.transaction() as session:
            lockout.count_attempt(session, name, address)
            account = session.scalar(select(Account).where(Account.name == name))
    except lockout.TooManyAttempts:
        _log_failure(clinic, address, "locked out")
        raise
    # Hashing takes a quarter of a second: no transaction waits for it.
    right, renewed = passwords.check(password, account.password_hash if account else None)
    if account and right:
        with clinic.database.transaction() as session:
            # It may have been closed since, or been given another password.
            current = session.get_one(Account, account.id)
            if current.active and current.password_changed_at == account.password_changed_at:
                lockout.forget_attempts(session, name, address)
                current.password_hash = renewed or current.password_hash
                return _begin(clinic, session, current, address)
    _log_failure(clinic, address, "refused")
    raise SignInFailed


def sign_in_from_hub(clinic: Installation, hub_name: str, address: str) -> str:
    """Begin a session for a Hub account that the settings allow; its first makes a doctor.

    NotAllowed where it is not on the list, or its account is closed.
    """
    known = {name.casefold() for name in clinic.settings.hub_accounts}
    hub_name = hub_name.casefold()
    if hub_name not in known:
        _log_failure(clinic, address, "not on the list")
        raise NotAllowed("this Hub account may not sign in here")
    with clinic.database.transaction() as session:
        account = session.scalar(select(Account).where(Account.hub_name == hub_name))
        if account is None:
            account = Account(
                name=f"hub:{hub_name}"[:64],
                role="doctor",
                hub_name=hub_name,
                created_at=clock.now(),
            )
            session.add(account)
            session.flush()
        if not account.active:
            raise NotAllowed("this account is closed")
        return _begin(clinic, session, account, address)


def find_actor(clinic: Installation, token: str | None, address: str) -> Actor | None:
    """Return whose session a token is; None where it is unknown or over, or the account closed."""
    if not token:
        return None
    with clinic.database.snapshot() as session:
        found = session.get(SignIn, _hash(token))
        now = clock.now()
        if found is None or found.expires_at <= now or not found.account.active:
            return None
        unused = abs(now - found.seen_at)  # the clock may have been set back
        if unused >= _idle(clinic):
            return None
        account = found.account
        actor = _actor(account, address)
        is_fresh = unused < MIN_UPDATE_INTERVAL
    if not is_fresh:
        _prolong_session(clinic, _hash(token), now)
    return actor


def sign_out(clinic: Installation, token: str | None) -> None:
    """End a session, where there is one."""
    with clinic.database.transaction() as session:
        found = session.get(SignIn, _hash(token or ""))
        if found is None:
            return
        session.delete(found)
        clinic.log.write(session, "signed_out", actor=_actor(found.account, found.address))


def list_open_sessions(
    clinic: Installation, actor: Actor | None, page: int = 1
) -> Page[SessionRow]:
    """Return open sessions, the last used first; NotSignedIn or NotAllowed to all but admins."""
    require_admin(actor)
    columns = (
        Account.id.label("account_id"),
        Account.name.label("account"),
        SignIn.address,
        SignIn.created_at,
        SignIn.seen_at,
        SignIn.expires_at,
    )
    rows = (
        select(*columns)
        .join(Account)
        .where(SignIn.expires_at > clock.now())
        .order_by(SignIn.seen_at.desc(), SignIn.token_sha256)
    )
    with clinic.database.snapshot() as session:
        return fetch_page(session, rows, page, SessionRow)


def end_sessions(clinic: Installation, actor: Actor | None, account_id: int) -> int:
    """End all sessions of an account: one's own, or as an admin anyone's; returns how many.

    NotSignedIn or NotAllowed where it is another's, and the actor no admin.
    """
    known = require_account(actor)
    if known.account_id != account_id and known.role != "admin":
        raise NotAllowed("only an admin may end another's sessions")
    with clinic.database.transaction() as session:
        ended = delete_sessions(session, account_id)
        clinic.log.write(
            session, "session_ended", actor=known, subject=f"account {account_id}", count=ended
        )
    return ended


def delete_sessions(session: Session, account_id: int) -> int:
    """End all sessions of an account within a transaction; returns how many."""
    ended = session.execute(
        delete(SignIn).where(SignIn.account_id == account_id).returning(SignIn.token_sha256)
    )
    return len(ended.all())


def check_own_password(clinic: Installation, actor: Actor, password: str) -> str | None:
    """Return what is kept of the actor's password.

    Raises:
        InputError: It is another.
        TooManyAttempts: It was guessed too often.
    """
    with clinic.database.transaction() as session:
        lockout.count_attempt(session, actor.name, actor.address)
        kept = session.get_one(Account, actor.account_id).password_hash
    right, _ = passwords.check(password, kept)
    if not right:
        raise password_error()
    with clinic.database.transaction() as session:
        lockout.forget_attempts(session, actor.name, actor.address)
    return kept


def password_error() -> InputError:
    """Return what is raised where the old password isn't the account's."""
    return InputError("the present password is wrong")


def _begin(clinic: Installation, session: Session, account: Account, address: str) -> str:
    token, now = secrets.token_urlsafe(32), clock.now()
    session.execute(delete(SignIn).where(SignIn.expires_at <= now))
    shown_images.forget_old(session)
    session.add(
        SignIn(
            token_sha256=_hash(token),
            account_id=account.id,
            created_at=now,
            seen_at=now,
            expires_at=now + _idle(clinic),
            address=address[:64],
        )
    )
    clinic.log.write(session, "signed_in", actor=_actor(account, address))
    return token


def _actor(account: Account, address: str) -> Actor:
    return Actor(account.id, account.name, account.role, address)


def _prolong_session(clinic: Installation, token_sha256: str, now: datetime) -> None:
    with clinic.database.transaction() as session:
        found = session.get(SignIn, token_sha256)
        if found:  # it may have ended meanwhile
            found.seen_at = now
            found.created_at = min(found.created_at, now)
            latest = found.created_at + MAX_LIFE_FACTOR * _idle(clinic)
            found.expires_at = min(now + _idle(clinic), latest)


def _log_failure(clinic: Installation, address: str, why: str) -> None:
    with clinic.database.transaction() as session:
        clinic.log.write(session, "sign_in_failed", actor=None, address=address[:64], why=why)


def _idle(clinic: Installation) -> timedelta:
    return timedelta(hours=clinic.settings.session_hours)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
