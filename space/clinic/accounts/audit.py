"""What was done here: the audit log, as an admin reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, String, cast, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from clinic.accounts.permissions import require_admin
from clinic.installation import Installation
from clinic.storage.actor import Actor
from clinic.storage.paging import Page, fetch_page
from clinic.storage.tables import Account, AuditEntry


@dataclass(frozen=True)
class Act:
    """One row of the log."""

    number: int  # from 1, without a gap
    at: datetime  # when it was done
    account: str  # name of who did it; "": nobody who was signed in
    action: str  # what was done, such as "patient_made"
    subject: str  # to what, such as "patient P-7K3QX9MDAT" or "account 2"
    named: str  # today's name of the account that the subject is, or ""
    address: str  # where the request came from; "": from no browser, but from the app itself
    detail: dict[str, Any]  # ids, counts, hashes and names of fields


def search_acts(
    clinic: Installation,
    actor: Actor | None,
    *,
    action: str = "",
    account: str = "",
    subject: str = "",
    page: int = 1,
) -> Page[Act]:
    """Return acts, the newest first.

    Only those of one ``action``, such as "signed_in", of the ``account`` with a name, and with
    words in the ``subject``, such as "patient", "account 2" or an id; a patient's id also finds the
    acts on its examinations.

    Raises:
        NotSignedIn, NotAllowed: The actor is no admin.
    """
    require_admin(actor)
    wanted: list[ColumnElement[bool]] = []
    if action:
        wanted.append(AuditEntry.action == action)
    if account.strip():
        wanted.append(AuditEntry.account_name == account.strip().lower())
    if subject.strip():
        wanted.append(_is_about(" ".join(subject.split())))
    named = select(Account.name).where("account " + cast(Account.id, String) == AuditEntry.subject)
    columns = (
        AuditEntry.number,
        AuditEntry.at,
        AuditEntry.account_name.label("account"),
        AuditEntry.action,
        AuditEntry.subject,
        func.coalesce(named.scalar_subquery(), "").label("named"),
        AuditEntry.address,
        AuditEntry.detail,
    )
    rows = select(*columns).where(*wanted).order_by(AuditEntry.number.desc())
    with clinic.database.snapshot() as session:
        return fetch_page(session, rows, page, Act)


def list_filters(clinic: Installation, actor: Actor | None) -> tuple[list[str], list[str]]:
    """Return what was done so far and by whom, each once; errors as in ``search_acts``."""
    require_admin(actor)
    with clinic.database.snapshot() as session:
        return _each_once(session, AuditEntry.action), _each_once(session, AuditEntry.account_name)


def _is_about(words: str) -> ColumnElement[bool]:
    """Match whole words, so that account 2 is not account 20."""
    padded = " " + AuditEntry.subject + " "
    return or_(
        padded.icontains(f" {words} ", autoescape=True),
        AuditEntry.detail["patient"].as_string() == words.upper(),
    )


def _each_once(session: Session, column: InstrumentedAttribute[str]) -> list[str]:
    return list(session.scalars(select(column).where(column != "").distinct().order_by(column)))
