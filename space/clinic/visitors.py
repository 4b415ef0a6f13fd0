"""Where a request comes from, and how: what a proxy says of it is believed of known ones only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

Scope = Mapping[str, Any]  # of an ASGI request


def header(scope: Scope, name: str) -> str:
    """A header's value, or ""; several are joined."""
    wanted = name.lower().encode()
    return ", ".join(value.decode("latin-1") for key, value in scope["headers"] if key == wanted)


def address(scope: Scope, proxies: Sequence[str]) -> str:
    """The visitor's address: the nearest one that isn't a known proxy's."""
    nearest = (scope.get("client") or ("",))[0]
    forwarded = [part.strip() for part in header(scope, "x-forwarded-for").split(",")]
    while _is_of(nearest, proxies) and forwarded and _is_address(forwarded[-1]):
        nearest = forwarded.pop()
    return nearest


def is_secure(scope: Scope, proxies: Sequence[str]) -> bool:
    """Whether the visitor's browser speaks https."""
    if _is_of((scope.get("client") or ("",))[0], proxies):
        forwarded = header(scope, "x-forwarded-proto").split(",")[-1].strip()
        if forwarded:
            return forwarded == "https"
    return scope.get("scheme") == "https"


def wants_page(scope: Scope) -> bool:
    """Whether it is a browser that asks for a page."""
    return "text/html" in header(scope, "accept")


def is_from_elsewhere(scope: Scope) -> bool:
    """Whether another site's page sent it."""
    origin, fetched = header(scope, "origin"), header(scope, "sec-fetch-site")
    if fetched == "cross-site":
        return True
    return bool(origin) and origin.partition("://")[2] != header(scope, "host")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_of(text: str, networks: Sequence[str]) -> bool:
    return _is_address(text) and any(
        ip_address(text) in ip_network(network, strict=False) for network in networks
    )
