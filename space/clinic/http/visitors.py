"""Where a request comes from, and how: what a proxy says of it is believed of known ones only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers

Scope = Mapping[str, Any]  # of an ASGI request


def header(scope: Scope, name: str) -> str:
    """Return a header's value, or ""; several are joined."""
    return ", ".join(Headers(raw=list(scope["headers"])).getlist(name))


def address(scope: Scope, proxies: Sequence[str]) -> str:
    """Return the visitor's address: the nearest one that isn't a known proxy's."""
    nearest = _peer(scope)
    forwarded = [part.strip() for part in header(scope, "x-forwarded-for").split(",")]
    while _is_in_networks(nearest, proxies) and forwarded and _is_address(forwarded[-1]):
        nearest = forwarded.pop()
    return nearest


def host(scope: Scope, proxies: Sequence[str]) -> str:
    """Return the name, and the port if any, that the visitor's browser knows the app by."""
    return _read_forwarded(scope, "x-forwarded-host", proxies) or header(scope, "host")


def host_name(scope: Scope, proxies: Sequence[str]) -> str:
    """Return that name alone, in small letters; "" where there is none."""
    try:
        return urlsplit(f"//{host(scope, proxies)}").hostname or ""
    except ValueError:
        return ""


def is_secure(scope: Scope, proxies: Sequence[str]) -> bool:
    """Return whether the visitor's browser speaks https."""
    return (_read_forwarded(scope, "x-forwarded-proto", proxies) or scope.get("scheme")) == "https"


def wants_page(scope: Scope) -> bool:
    """Return whether it is a browser that asks for a page."""
    return "text/html" in header(scope, "accept")


def is_from_elsewhere(scope: Scope, proxies: Sequence[str]) -> bool:
    """Return whether another site's page sent it."""
    if header(scope, "sec-fetch-site") == "cross-site":
        return True
    origin = header(scope, "origin")
    return bool(origin) and origin.partition("://")[2] != host(scope, proxies)


def sign_in_path(scope: Scope) -> str:
    """Return where to sign in so as to come back to what was asked for."""
    query = scope["query_string"].decode("latin-1")
    wanted = scope["path"] + (f"?{query}" if query else "")
    return "/login" if wanted == "/" else f"/login?next={quote(wanted, safe='')}"


def _peer(scope: Scope) -> str:
    return (scope.get("client") or ("",))[0]


def _read_forwarded(scope: Scope, name: str, proxies: Sequence[str]) -> str:
    """Return what the nearest proxy says; "" where it is none of ours."""
    if not _is_in_networks(_peer(scope), proxies):
        return ""
    return header(scope, name).rpartition(",")[2].strip()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_in_networks(text: str, networks: Sequence[str]) -> bool:
    return _is_address(text) and any(
        ip_address(text) in ip_network(network, strict=False) for network in networks
    )
