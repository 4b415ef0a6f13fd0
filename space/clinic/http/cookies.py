"""The one cookie: a session's token."""

from __future__ import annotations

import os

from starlette.requests import cookie_parser

NAME = "bcd_session"


def read_token(header: str) -> str:
    """Return the token in a Cookie header, or "", whatever else apps of this host have set."""
    return cookie_parser(header).get(NAME, "")


def format_session_cookie(token: str, *, secure: bool) -> str:
    """Return a Set-Cookie header that keeps a token until the browser is closed.

    Scripts never see it. On the Hub the app lies in a frame of another site, where browsers keep
    only cookies that say all of this; elsewhere the cookie goes to no request from another site,
    links excepted.
    """
    if "SPACE_ID" in os.environ:
        return f"{NAME}={token}; Path=/; HttpOnly; SameSite=None; Secure; Partitioned"
    return f"{NAME}={token}; Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"


def format_expired_cookie(*, secure: bool) -> str:
    """Return a Set-Cookie header that takes the cookie away."""
    return f"{format_session_cookie('', secure=secure)}; Max-Age=0"
