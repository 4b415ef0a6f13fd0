"""The pages that need no Gradio: signing in, what isn't there, and one sentence."""

from __future__ import annotations

from html import escape

from starlette.responses import HTMLResponse, JSONResponse, Response

from bcd_models.prediction import NOTICE
from clinic.http import visitors
from clinic.http.visitors import Scope

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f2a; --quiet: #475569; --line: #cbd5e1; --ground: #fff;
  --page: #f8fafc; --tint: #f5f3ff; --tint-ink: #2e1065; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e8f0; --quiet: #b3bfd0; --line: #475569;
  --ground: #0f172a; --page: #0b1120; --tint: #2a1f4d; --tint-ink: #ede9fe; --bad: #f87171; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { width: 100%; max-width: 26rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
p { margin: .25rem 0 1rem; color: var(--quiet); }
form, .box { background: var(--ground); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.25rem; margin-bottom: 1rem; }
label { display: block; font-weight: 600; margin-bottom: .75rem; }
input { display: block; width: 100%; margin-top: .25rem; padding: .6rem .7rem; font: inherit;
  color: inherit; background: var(--page); border: 1px solid var(--quiet); border-radius: 6px; }
button, .button { display: block; width: 100%; padding: .65rem; font: inherit; font-weight: 600;
  text-align: center; text-decoration: none; color: #fff; background: #6d28d9; border: 0;
  border-radius: 6px; cursor: pointer; }
button:hover, .button:hover { background: #5b21b6; }
:is(button, input, a):focus-visible { outline: 3px solid #8b5cf6; outline-offset: 2px; }
a { color: inherit; }
.notice { padding: .6rem .9rem; border: 1px solid #a78bfa; border-left-width: 6px;
  border-radius: 6px; background: var(--tint); color: var(--tint-ink); font-weight: 600;
  font-size: .92rem; }
.alert { border: 1px solid var(--bad); border-left-width: 6px; border-radius: 6px; padding: .5rem
  .9rem; color: var(--ink); font-weight: 600; }
.demo code { font-size: 1.05rem; user-select: all; overflow-wrap: anywhere; }
"""
# In a tab of its own: the Hub shows its sign-in in no frame.
HUB = """
<p><a class="button" target="_blank" href="/oauth/huggingface/login?_target_url=/hub">Sign in with
  Hugging Face</a></p>
"""


def sign_in_page(
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


def not_found_page() -> str:
    """Return what is shown where there is no page."""
    return _page(
        "Not found",
        "<h1>There is no such page</h1><p>Or none for this account.</p>"
        '<p><a class="button" href="/">To the start</a></p>',
    )


def one_sentence(scope: Scope, status: int, sentence: str) -> Response:
    """Return an answer of one sentence, such as why a file can't be had: to a browser as a page."""
    if visitors.wants_page(scope):
        return HTMLResponse(_told_page(sentence), status)
    return JSONResponse({"detail": sentence}, status)


def _told_page(sentence: str) -> str:
    return _page(
        "Not available",
        f'<h1>This can\'t be shown</h1><p class="alert" role="alert">{escape(sentence)}</p>'
        '<p><a class="button" href="/">To the start</a></p>',
    )


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
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
<p class="notice" role="note">{escape(NOTICE)}</p>
</main>
</body>
</html>
"""
