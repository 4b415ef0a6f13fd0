"""What all pages share: their head with the way to the others, who is signed in, failures."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Literal, ParamSpec, TypedDict

import gradio as gr

from bcd_models.prediction import NOTICE
from clinic.analysis.wording import printable
from clinic.http.failures import user_message
from clinic.storage.actor import Actor

TITLE = "Breast histology patch check"
WHAT = """
<p>Says whether H&amp;E-stained breast tissue looks like invasive ductal carcinoma to a neural
  network, how sure it is, and which regions speak for it.</p>
"""
LINKS = {
    "guest": (),
    "doctor": (
        ("Worklist", "/"),
        ("Patients", "/patients"),
        ("Try images", "/try"),
        ("Whole slide", "/slide"),
        ("Dashboard", "/dashboard"),
        ("Check a report", "/check"),
        ("Account", "/account"),
    ),
    "admin": (
        ("Accounts", "/"),
        ("Dashboard", "/dashboard"),
        ("Audit log", "/audit"),
        ("Settings", "/settings"),
        ("Check a report", "/check"),
        ("Account", "/account"),
    ),
}


class _Private(TypedDict):
    api_visibility: Literal["private"]


class _Quick(_Private):
    show_progress: Literal["hidden"]


# Arguments of listeners that scripts shall not find, and of those that answer at once, too.
PRIVATE: _Private = {"api_visibility": "private"}
QUICK: _Quick = {"show_progress": "hidden", **PRIVATE}

P = ParamSpec("P")


def add_head(app: gr.Blocks, role: str, here: str) -> None:
    """Begin a page: title, the way to the role's other pages, notice.

    Args:
        app: The Blocks, at the page.
        role: "guest", "doctor" or "admin".
        here: Path of the page.
    """
    shown = gr.HTML(_head(role, here, ""))
    gr.HTML(f'<p class="bcd-notice" role="note">{escape(NOTICE)}</p>', elem_id="bcd-notice")

    def greet(request: gr.Request) -> str:
        actor = get_actor(request)
        return _head(role, here, actor.name if actor else "")

    if role != "guest":
        app.load(greet, None, shown, **QUICK)


def get_actor(request: gr.Request) -> Actor | None:
    """Return who sent a request, as the gate has found out; None for a guest."""
    return getattr(request.request.state, "actor", None) if request.request else None


def read_query(request: gr.Request, name: str) -> str:
    """Return what the page's address asks for, such as the id in ``/patient?id=P-...``; or ""."""
    return str(dict(request.query_params).get(name, ""))


def show_failures(function: Callable[P, str]) -> Callable[P, str]:
    """Show a listener's failure in place of the HTML it returns."""

    @wraps(function)
    def wrap(*arguments: P.args, **named: P.kwargs) -> str:
        try:
            return function(*arguments, **named)
        except Exception as error:
            return alert(user_message(error))

    return wrap


def alert(sentence: str, lead: str = "That did not work") -> str:
    """Return a failure that stays on the page."""
    return f"""
<section class="bcd-card bcd-alert" role="alert">
  <p class="bcd-lead"><span class="bcd-mark" aria-hidden="true">!</span>{escape(lead)}</p>
  <p>{escape(printable(sentence))}</p>
</section>
"""


def show_success(words: str) -> str:
    """Return a success that stays on the page."""
    return f"""
<section class="bcd-card bcd-done" role="status"><p>{escape(printable(words))}</p></section>
"""


def go_to(path: str) -> str:
    """Return JavaScript for ``then(js=...)`` that opens a page of ours with an id from a component.

    The component's value, as the first input, is the id; "" stays on the page.
    """
    return f"(id) => {{ if (id) window.location.assign('{path}' + encodeURIComponent(id)); }}"


def _head(role: str, here: str, name: str) -> str:
    links = "".join(
        f'<a href="{path}"{" aria-current=page" if path == here else ""}>{label}</a>'
        for label, path in LINKS[role]
    )
    if role == "guest":
        return f"""
<header class="bcd-head">
  <div class="bcd-top"><h1>{TITLE}</h1><a class="bcd-sign" href="/login">Sign in</a></div>
  {WHAT}
</header>
"""
    return f"""
<header class="bcd-head">
  <div class="bcd-top">
    <p class="bcd-title">{TITLE}</p>
    <form class="bcd-out" method="post" action="/logout">
      <span>{escape(name)}</span><button class="bcd-sign" type="submit">Sign out</button>
    </form>
  </div>
  <nav class="bcd-nav" aria-label="Pages">{links}</nav>
</header>
"""
