"""The audit log: who did what, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from clinic.accounts import audit as acts
from clinic.accounts.audit import Act
from clinic.installation import Installation
from clinic.ui.frame import PRIVATE, get_actor, read_query, show_failures
from clinic.ui.tables import cell, empty, moment, page_number, pager, table

FILTERS = ("action", "account", "subject")
PATH = "/audit"
HEADS = ("Number", "Time", "Who", "Act", "Subject", "Address", "Detail")
WHAT = """
<h1>Audit log</h1>
<p class="bcd-quiet">Rows are added and never changed, each chained to the one before;
  <code>python -m clinic verify</code> checks the chain. A patient's id also finds the acts on its
  examinations.</p>
"""

# Puts the filters into the page's address, so that Back and a reload find them again.
ADDRESS = f"""
(action, account, subject) => {{
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({{action, account, subject}}))
    if (value && value.trim()) query.set(name, value.trim());
  history.replaceState(null, '', '{PATH}' + (query.size ? '?' + query : ''));
  return [action, account, subject];
}}
"""

Update = dict[str, Any]


def add_audit_page(app: gr.Blocks, clinic: Installation) -> None:
    """Add the page to the Blocks being built."""
    gr.HTML(WHAT, elem_classes="bcd-heading")
    with gr.Row():
        action = gr.Dropdown([], label="Act", interactive=True, min_width=160)
        account = gr.Dropdown([], label="Who", interactive=True, min_width=160)
        subject = gr.Textbox(
            label="Subject: an id, or words such as account 2",
            html_attributes=gr.InputHTMLAttributes(autocomplete="off", enterkeyhint="search"),
            submit_btn="Search",
            elem_classes="bcd-search",
            scale=3,
        )
    shown = gr.HTML()

    @show_failures
    def show(action: str, account: str, subject: str, request: gr.Request, number: int = 1) -> str:
        query = {"action": action, "account": account, "subject": subject.strip()}
        page = acts.search_acts(clinic, get_actor(request), **query, page=number)
        if not page.total:
            return empty("No such act", "The log holds no row that all of this is true of.")
        kept = {name: value for name, value in query.items() if value}
        return table(HEADS, [_row(one) for one in page.rows], "Acts") + pager(page, PATH, **kept)

    def begin(request: gr.Request) -> tuple[Update, Update, str, str]:
        action, account, subject = (read_query(request, name) for name in FILTERS)
        actions, accounts = acts.list_filters(clinic, get_actor(request))
        return (
            _choice("any", [(_words(one), one) for one in actions], action),
            _choice("anybody", [(one, one) for one in accounts], account),
            subject,
            show(action, account, subject, request, page_number(read_query(request, "sheet"))),
        )

    filters = [action, account, subject]
    app.load(begin, None, [*filters, shown], **PRIVATE)
    gr.on(
        [action.input, account.input, subject.submit],
        show,
        filters,
        shown,
        js=ADDRESS,
        show_progress="hidden",
        trigger_mode="always_last",  # a filter chosen while the list comes is not passed over
        **PRIVATE,
    )


def _choice(every: str, choices: Sequence[tuple[str, str]], wanted: str) -> Update:
    """Return what a dropdown offers, what the address asks for included where the log has none."""
    known = {"": every, **{value: words for words, value in choices}}
    known.setdefault(wanted, wanted)
    return gr.update(choices=[(words, value) for value, words in known.items()], value=wanted)


def _row(one: Act) -> tuple[str, ...]:
    return (
        str(one.number),
        moment(one.at),
        cell(one.account or ("not signed in" if one.address else "the app")),
        cell(_words(one.action)),
        cell(f"{one.subject}, {one.named}" if one.named else one.subject),
        cell(one.address),
        cell(", ".join(f"{_plain(name)} {_value(value)}" for name, value in one.detail.items())),
    )


def _words(action: str) -> str:
    return _plain(action).capitalize()


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " and ".join(_plain(str(one)) for one in value) or "none"
    return str(value)
