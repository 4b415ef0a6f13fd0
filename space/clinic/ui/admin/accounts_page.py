"""An admin's first page: accounts are made, closed, given passwords, and patients handed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import gradio as gr

from bcd_models.errors import InputError
from clinic.accounts import accounts, sign_ins
from clinic.accounts.accounts import AccountRow
from clinic.installation import Installation
from clinic.records import patients
from clinic.storage.actor import Actor, Role
from clinic.ui.frame import QUICK, get_actor, show_success
from clinic.ui.tables import cell, link, moment, table

HEADS = ("Name", "Role", "May sign in", "Hub account", "Patients", "Open sessions", "Made")
NAMES = "2 to 64 small letters, digits, dots, dashes and underscores"
ROLES = (
    ("Doctor, with patients of their own", "doctor"),
    ("Admin, manages accounts and sees no patients", "admin"),
)
CHANGE = """
<h2>Change an account</h2>
<p class="bcd-quiet">A new password ends the account's sessions, and so does closing it. Once it is
  closed, its patients can be handed over to another doctor. Your own account isn't in the list: its
  password is changed under “Account”, and only another admin closes it.</p>
"""

Update = dict[Any, Any]  # by component
Act = Callable[[Installation, Actor | None, AccountRow], str]


def add_accounts_page(app: gr.Blocks, clinic: Installation) -> None:
    """Add the page to the Blocks being built."""
    gr.HTML("<h1>Accounts</h1>", elem_classes="bcd-heading")
    with gr.Accordion("New account", open=False):
        typed = gr.InputHTMLAttributes(autocomplete="off", autocapitalize="none", spellcheck=False)
        name = gr.Textbox(label="Name", info=NAMES, html_attributes=typed)
        role = gr.Radio(ROLES, value="doctor", label="Role")
        make = gr.Button("Make the account", variant="primary", elem_classes="bcd-do")
    listed = gr.HTML()
    said = gr.HTML(elem_classes="bcd-said")
    gr.HTML(CHANGE, elem_classes="bcd-heading")
    chosen = gr.Dropdown([], label="Account", interactive=True)
    with gr.Row():
        password, close, reopen, end = (
            gr.Button(words, min_width=180)
            for words in ("New password", "Close", "Open again", "End sessions")
        )
    with gr.Column(visible=False) as handing:
        taker = gr.Dropdown([], label="Doctor who takes its patients", interactive=True)
        hand_over = gr.Button("Hand over", elem_classes="bcd-do")

    def show(actor: Actor | None, account_id: int | None) -> Update:
        """Return the page as it stands, with an account chosen or none."""
        rows = accounts.list_accounts(clinic, actor)
        others = [row for row in rows if actor and row.id != actor.account_id]
        one = next((row for row in others if row.id == account_id), None)
        doctors = [row for row in rows if row.role == "doctor" and row.active]
        is_open, is_closed = bool(one and one.active), bool(one and not one.active)
        return {
            listed: table(HEADS, [_row(row) for row in rows], "Accounts"),
            chosen: gr.update(choices=[(_label(row), row.id) for row in others], value=account_id),
            password: gr.update(interactive=one is not None),
            end: gr.update(interactive=one is not None),
            close: gr.update(visible=not is_closed, interactive=is_open),
            reopen: gr.update(visible=is_closed),
            handing: gr.update(visible=bool(one and not one.active and one.patients)),
            taker: gr.update(choices=[(row.name, row.id) for row in doctors], value=None),
        }

    def choose(account_id: int | None, request: gr.Request) -> Update:
        return show(get_actor(request), account_id)

    def listen(act: Act) -> Callable[..., Update]:
        """Return a listener that does something to the chosen account."""

        def perform(account_id: int | None, request: gr.Request) -> Update:
            actor = get_actor(request)
            one = _find_row(accounts.list_accounts(clinic, actor), account_id)
            return {said: act(clinic, actor, one), **show(actor, one.id)}

        return perform

    def hand(account_id: int | None, taker_id: int | None, request: gr.Request) -> Update:
        actor = get_actor(request)
        rows = accounts.list_accounts(clinic, actor)
        giver, to = _find_row(rows, account_id), _find_row(rows, taker_id)
        count = _format_count(patients.hand_over(clinic, actor, giver.id, to.id), "patient")
        words = f"{count} of {giver.name} handed over to {to.name}."
        return {said: show_success(words), **show(actor, giver.id)}

    def make_account(wanted: str, role: Role, request: gr.Request) -> Update:
        actor, wanted = get_actor(request), wanted.strip()
        made, password = accounts.create(clinic, actor, wanted, role)
        words = _secret(f"Account {wanted} is made", password)
        return {said: words, name: "", **show(actor, made)}

    outputs = [said, listed, chosen, password, close, reopen, end, handing, taker]
    gr.on([app.load, chosen.input], choose, chosen, outputs, trigger_mode="always_last", **QUICK)
    acts = {password: _reset_password, close: _close, reopen: _reopen, end: _end_sessions}
    for button, act in acts.items():
        button.click(listen(act), chosen, outputs, scroll_to_output=True, **QUICK)
    hand_over.click(hand, [chosen, taker], outputs, scroll_to_output=True, **QUICK)
    create = [make.click, name.submit]
    gr.on(create, make_account, [name, role], [*outputs, name], scroll_to_output=True, **QUICK)


def _reset_password(clinic: Installation, actor: Actor | None, one: AccountRow) -> str:
    new = accounts.reset_password(clinic, actor, one.id)
    return _secret(f"{one.name} has a new password", new)


def _close(clinic: Installation, actor: Actor | None, one: AccountRow) -> str:
    accounts.set_active(clinic, actor, one.id, False)
    return show_success(f"{one.name} is closed; its sessions have ended.")


def _reopen(clinic: Installation, actor: Actor | None, one: AccountRow) -> str:
    accounts.set_active(clinic, actor, one.id, True)
    return show_success(f"{one.name} is open again, with the password it had.")


def _end_sessions(clinic: Installation, actor: Actor | None, one: AccountRow) -> str:
    count = _format_count(sign_ins.end_sessions(clinic, actor, one.id), "session")
    return show_success(f"{count} of {one.name} ended.")


def _find_row(rows: Sequence[AccountRow], account_id: int | None) -> AccountRow:
    for row in rows:
        if row.id == account_id:
            return row
    raise InputError("choose an account first")


def _row(one: AccountRow) -> tuple[str, ...]:
    return (
        link("/audit", one.name, account=one.name),
        one.role,
        "yes" if one.active else "no, closed",
        cell(one.hub_name or ""),
        str(one.patients),
        str(one.sign_ins),
        moment(one.created_at),
    )


def _label(one: AccountRow) -> str:
    return one.name if one.active else f"{one.name} (closed)"


def _format_count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _secret(lead: str, password: str) -> str:
    return f"""
<section class="bcd-card bcd-done" role="status">
  <p class="bcd-lead">{cell(lead)}</p>
  <p>Password: <code class="bcd-secret">{escape(password)}</code></p>
  <p>Note it now: it is not shown again. Whoever gets it should change it under “Account”.</p>
</section>
"""
