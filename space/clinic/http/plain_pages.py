"""The pages that need no Gradio: signing in, what isn't there, and one sentence."""

from __future__ import annotations

from html import escape
from pathlib import Path

from starlette.responses import HTMLResponse, JSONResponse, Response

from bcd_models.prediction import NOTICE
from clinic.http import visitors
from clinic.http.visitors import Scope

STYLE = Path(__file__).with_suffix(".css").read_text("utf-8")
# In a tab of its own: the Hub shows its sign-in in no frame.
HUB = """
<p><a class="button" target="_blank" href="/oauth/huggingface/login?_target_url=/hub">Sign in with
  Hugging Face</a></p>
"""
START = '<p><a class="button" href="/">To the start</a></p>'


def render_sign_in(
    *,
    next_path: str = "",
    failure: str = "",
    note: str = "",
    demo: tuple[str, str] | None = None,
    guests: bool = True,
    hub: bool = False,
) -> str:
    """Return the page to sign in on.

    Args:
        next_path: Where to go afterwards.
        failure: Why the last attempt failed.
        note: What just happened otherwise.
        demo: Name and password of a demonstration's doctor, shown to all.
        guests: Whether there is a guest page to link to.
        hub: Whether Hub accounts may sign in.
    """
    return _page(
        "Sign in",
        f"""
<script>sessionStorage.clear()</script>
<h1>Breast histology patch check</h1>
<p>For the department: patients, examinations, reads and reports.</p>
{f'<p class="alert" role="alert">{escape(failure)}</p>' if failure else ""}
{f'<p role="status">{escape(note)}</p>' if note else ""}
<form method="post" action="/login">
  <input type="hidden" name="next" value="{escape(next_path)}">
  <label>Name
    <input name="username" autocomplete="username" autocapitalize="none" spellcheck="false"
      maxlength="64" required autofocus></label>
  <label>Password
    <input name="password" type="password" autocomplete="current-password" maxlength="256"
      required></label>
  <button type="submit">Sign in</button>
</form>
{_demo(*demo) if demo else ""}
{HUB if hub else ""}
{'<p><a href="/">Try one image without signing in</a></p>' if guests else ""}
""",
    )


def render_not_found() -> str:
    """Return what is shown where there is no page."""
    return _page(
        "Not found", f"<h1>There is no such page</h1><p>Or none for this account.</p>{START}"
    )


def respond_with_sentence(scope: Scope, status: int, sentence: str) -> Response:
    """Return an answer of one sentence, such as why a file can't be had: to a browser as a page."""
    if visitors.wants_page(scope):
        alert = f'<p class="alert" role="alert">{escape(sentence)}</p>'
        body = f"<h1>This can't be shown</h1>{alert}{START}"
        return HTMLResponse(_page("Not available", body), status)
    return JSONResponse({"detail": sentence}, status)


def _demo(name: str, password: str) -> str:
    return f"""
<section class="box demo" aria-label="Demonstration">
  <p>This is a demonstration: every record is synthetic, every image drawn by a program.</p>
  <p>Name <code>{escape(name)}</code><br>Password <code>{escape(password)}</code></p>
</section>
"""


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}, breast histology patch check</title>
<link rel="icon" href="data:,">
<style>
{STYLE}</style>
</head>
<body>
<main>
{body}
<p class="notice" role="note">{escape(NOTICE)}</p>
</main>
</body>
</html>
"""
