"""One's own account: another password, and the end of all sessions."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from bcd_models.errors import InputError
from clinic.accounts import accounts, sign_ins
from clinic.accounts.passwords import MAX_LENGTH, MIN_LENGTH
from clinic.accounts.permissions import require_account
from clinic.analysis.models import Models
from clinic.analysis.points import choose_own_point, read_own_point
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
POINT = """
<h2>Operating point</h2>
<p class="bcd-quiet">What New examination, Try images and Whole slide begin with. Scripts name it in
  each call.</p>
"""
KEPT = "Kept. Your pages begin with it from now on."
CHANGED = "The password is changed. All sessions have ended; the sign-in page opens."
ENDED = "All sessions have ended; the sign-in page opens."
# The answer reaches the browser over a stream, which it opens only once an event has begun, with
# the session that the event is to end.
STREAM_SECONDS = 1.0  # seconds for that
LEAVE = "() => setTimeout(() => window.location.assign('/login?out=1'), 2500)"  # time to read


def add_account_page(app: gr.Blocks, role: str, clinic: Installation, models: Models) -> None:
    """Add the page to the Blocks being built; a doctor chooses an operating point there, too."""
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

    if role == "doctor" and len(models.point_choices) > 1:
        _add_own_point(app, clinic, models)
    fields = [present, new, again]
    for listener in (
        gr.on([change.click, again.submit], change_password, fields, [said, *fields], **QUICK),
        end.click(sign_out, None, said, **QUICK),
    ):
        listener.success(None, None, None, js=LEAVE, **PRIVATE)


def _add_own_point(app: gr.Blocks, clinic: Installation, models: Models) -> None:
    first = models.check_point(clinic.settings.point)
    called = next(label for label, name in models.point_choices if name == first)
    # A number, which no point is named.
    choices: list[tuple[str, str | int | float]] = [
        (f"the administrator's choice, now {called}", -1),
        *models.point_choices,
    ]
    with gr.Column(elem_classes="bcd-narrow"):
        gr.HTML(POINT, elem_classes="bcd-heading")
        chosen = gr.Radio(choices, value=-1, label="Begin with", interactive=False)
        keep = gr.Button("Keep as my default", elem_classes="bcd-do")
        said = gr.HTML()

    def begin(request: gr.Request) -> dict[str, Any]:
        own = read_own_point(clinic, models, get_actor(request))
        return gr.update(value=-1 if own is None else own, interactive=True)

    def choose(point: str | int, request: gr.Request) -> str:
        own = None if isinstance(point, int) else point
        choose_own_point(clinic, models, get_actor(request), own)
        return show_success(KEPT)

    app.load(begin, None, chosen, **QUICK)
    chosen.input(lambda: "", None, said, **QUICK)
    keep.click(choose, chosen, said, **QUICK)


def _field(label: str, kind: str) -> gr.Textbox:
    typed = gr.InputHTMLAttributes(autocomplete=kind)
    return gr.Textbox(label=label, type="password", max_length=MAX_LENGTH, html_attributes=typed)
