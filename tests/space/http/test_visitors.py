"""Whom a request is from, where it may be sent by a proxy, and what is believed of it."""

from __future__ import annotations

from typing import Any

import pytest

from clinic.http import visitors

PROXIES = ("10.0.0.0/24", "2001:db8::1")


def request(peer: str | None = "192.0.2.7", **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    client = (peer, 5000) if peer else None
    return {
        "client": client,
        "scheme": "http",
        "path": "/",
        "query_string": b"",
        "headers": pairs,
    }


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.7", "", "192.0.2.7"),
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),  # no proxy of ours: not believed
        ("10.0.0.5", "", "10.0.0.5"),
        ("10.0.0.5", "198.51.100.1", "198.51.100.1"),
        ("2001:db8::1", "2001:db8::2", "2001:db8::2"),
        ("10.0.0.5", "8.8.8.8, 198.51.100.1", "198.51.100.1"),  # what the visitor wrote is left
        ("10.0.0.5", "8.8.8.8, 198.51.100.1, 10.0.0.6", "198.51.100.1"),
        ("10.0.0.5", "10.0.0.7, 10.0.0.6", "10.0.0.7"),
        ("10.0.0.5", "8.8.8.8, nonsense", "10.0.0.5"),
        (None, "198.51.100.1", ""),
        ("testclient", "198.51.100.1", "testclient"),
    ],
)
def test_the_address_is_the_nearest_that_is_no_proxy(peer, forwarded, address) -> None:
    assert visitors.address(request(peer, x_forwarded_for=forwarded), PROXIES) == address


def test_several_headers_are_one_list() -> None:
    scope = request("10.0.0.5")
    scope["headers"] = [(b"x-forwarded-for", b"8.8.8.8"), (b"x-forwarded-for", b"198.51.100.1")]
    assert visitors.address(scope, PROXIES) == "198.51.100.1"


@pytest.mark.parametrize(
    ("peer", "says", "secure"),
    [
        ("192.0.2.7", "https", False),
        ("10.0.0.5", "https", True),
        ("10.0.0.5", "http", False),
        ("10.0.0.5", "", False),
        ("10.0.0.5", "https, http", False),  # the nearest proxy's word
    ],
)
def test_https_is_believed_of_known_proxies(peer, says, secure) -> None:
    assert visitors.is_secure(request(peer, x_forwarded_proto=says), PROXIES) is secure
    assert visitors.is_secure({**request(), "scheme": "https"}, PROXIES)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Clinic.Example:8443", "clinic.example"),
        ("[::1]:7860", "::1"),
        ("evil.example@clinic.example", "clinic.example"),
        ("[", ""),
        ("", ""),
    ],
)
def test_the_name_of_a_host(host, name) -> None:
    assert visitors.host_name(request(host=host), PROXIES) == name


@pytest.mark.parametrize(
    ("headers", "elsewhere"),
    [
        ({}, False),  # no browser
        ({"origin": "http://clinic.example:7860"}, False),
        ({"origin": "https://clinic.example:7860", "sec_fetch_site": "same-origin"}, False),
        ({"origin": "http://clinic.example"}, True),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"sec_fetch_site": "cross-site"}, True),
        ({"origin": "http://evil.example", "x_forwarded_host": "evil.example"}, True),
    ],
)
def test_another_site_s_requests(headers, elsewhere) -> None:
    scope = request(host="clinic.example:7860", **headers)
    assert visitors.is_from_elsewhere(scope, PROXIES) is elsewhere


def test_a_known_proxy_may_know_the_app_by_another_name() -> None:
    names = {"host": "127.0.0.1:7860", "x_forwarded_host": "clinic.example"}
    scope = request("10.0.0.5", origin="https://clinic.example", **names)
    assert not visitors.is_from_elsewhere(scope, PROXIES)
    assert visitors.host_name(scope, PROXIES) == "clinic.example"


@pytest.mark.parametrize(
    ("path", "query", "sign_in"),
    [
        ("/", b"", "/login"),
        ("/patient", b"id=P-1&sheet=2", "/login?next=%2Fpatient%3Fid%3DP-1%26sheet%3D2"),
        ("//evil.example", b"", "/login?next=%2F%2Fevil.example"),
    ],
)
def test_the_sign_in_knows_the_way_back(path, query, sign_in) -> None:
    assert visitors.sign_in_path({"path": path, "query_string": query}) == sign_in
