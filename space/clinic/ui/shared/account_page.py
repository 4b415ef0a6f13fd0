"""One's own account: another password, and the end of all sessions."""

from __future__ import annotations

import time

import gradio as gr

from bcd_models.errors import InputError
from clinic.accounts import accounts, sign_ins
from clinic.accounts.passwords import MAX_LENGTH, MIN_LENGTH
from clinic.accounts.permissions import require_account
from clinic.installation import Installation
from clinic.ui.frame import PRIVATE, QUICK, get_actor, show_success
from clinic.upkeep import demo

WHAT = f"""
<h1>Account</h1>
<h2>Change the password</h2>
<p class="bcd-quiet">A password has {MIN_LENGTH} to {MAX_LENGTH} characters. When it is changed,
  every session of this account ends, and you sign in anew.</p>
"""
EVERYWHERE = """
<h2>Sign out everywhere</h2>
<p class="bcd-quiet">Ends every session of this account, on this device and all others.</p>
"""
CHANGED = "The password is changed. All sessions have ended; the sign-in page opens."
ENDED = "All sessions have ended; the sign-in page opens."
# The answer reaches the browser over a stream, which it opens only once an event has begun, with
# the session that the event is to end.
STREAM_SECONDS = 1.0  # seconds for that
LEAVE = "() => setTimeout(() => window.location.assign('/login?out=1'), 2500)"  # time to read


def add_account_page(clinic: Installation) -> None:
    """Add the page to the Blocks being built."""
    with gr.Column(elem_classes="bcd-narrow"):
        gr.HTML(WHAT, elem_classes="bcd-heading")
        present = _field("Present password", "current-password")
        new = _field("New password", "new-password")
        again = _field("New password again", "new-password")
        change = gr.Button("Change the password", variant="primary", elem_classes="bcd-do")
        said = gr.HTML()
        gr.HTML(EVERYWHERE, elem_classes="bcd-heading")
        end = gr.Button("Sign out everywhere", elem_classes="bcd-do")

    def change_password(
        present: str, new: str, again: str, request: gr.Request
    ) -> tuple[str, str, str, str]:
        actor = require_account(get_actor(request))
        if new != again:
            raise InputError("the new password is not the same in both fields: type it again")
        if clinic.settings.demo and actor.name == demo.NAME:
            raise InputError("the demonstration's password is everybody's: it stays as it is")
        time.sleep(STREAM_SECONDS)
        accounts.change_password(clinic, actor, present, new)
        return show_success(CHANGED), "", "", ""

    def sign_out(request: gr.Request) -> str:
        actor = require_account(get_actor(request))
        time.sleep(STREAM_SECONDS)
        sign_ins.end_sessions(clinic, actor, actor.account_id)
        return show_success(ENDED)

    fields = [present, new, again]
    for listener in (
        gr.on([change.click, again.submit], change_password, fields, [said, *fields], **QUICK),
        end.click(sign_out, None, said, **QUICK),
    ):
        listener.success(None, None, None, js=LEAVE, **PRIVATE)


def _field(label: str, kind: str) -> gr.Textbox:
    typed = gr.InputHTMLAttributes(autocomplete=kind)
    return gr.Textbox(label=label, type="password", max_length=MAX_LENGTH, html_attributes=typed)
