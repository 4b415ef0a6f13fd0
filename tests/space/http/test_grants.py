"""Who was given which file, session and event."""

from __future__ import annotations

import json

import pytest

from clinic.http import grants
from clinic.http.grants import (
    GUEST,
    MAX_GRANTS_PER_OWNER,
    Grants,
    list_asked,
    list_begun,
    list_files,
    list_given,
)

ADA, GRACE = 1, 2
TWO = {"session s", "session t"}


@pytest.fixture
def given() -> Grants:
    made = Grants()
    assert made.claim(ADA, {"session s", "event e", "file /tmp/f"})
    return made


def test_what_is_given_stays_with_whom_it_was_given_to(given) -> None:
    for other in (GRACE, GUEST):
        assert not given.claim(other, {"session s"})
        assert not given.holds(other, {"event e"})
        assert not given.holds(other, {"file /tmp/f"})
    assert given.claim(ADA, {"session s"})
    assert given.holds(ADA, {"event e", "file /tmp/f", "session s"})


def test_what_was_given_to_nobody_is_held_by_nobody(given) -> None:
    assert not given.holds(ADA, {"event e", "file /etc/passwd"})
    assert given.holds(ADA, ())


def test_where_one_thing_is_another_s_nothing_is_given(given) -> None:
    assert not given.claim(GRACE, {"session new", "session s"})
    assert given.claim(ADA, {"session new"})


def test_guests_that_claim_much_push_out_none_but_guests(given) -> None:
    for number in range(MAX_GRANTS_PER_OWNER + 1):
        assert given.claim(GUEST, {f"event {number}"})
    assert not given.holds(GUEST, {"event 0"})
    assert given.holds(GUEST, {"event 1", f"event {MAX_GRANTS_PER_OWNER}"})
    assert given.holds(ADA, {"event e", "file /tmp/f", "session s"})


def test_long_names_are_not_remembered(given) -> None:
    assert not given.claim(GUEST, {f"session {'x' * grants.MAX_GRANT_LENGTH}"})


def test_files_are_found_at_any_depth_in_any_spelling() -> None:
    said = json.loads(r'{"data": [[{"a": {"path": "/tmp/f"}}], {"path": "/t\u006dp//f"}]}')
    assert list_files(said) == {"file /tmp/f", "file /tmp//f"}  # of which one was given
    assert list_files({"path": None, "data": "path"}) == set()
    deep = "x"
    for _ in range(100_000):
        deep = [deep]
    assert list_files(deep) == set()


@pytest.mark.parametrize(
    ("path", "query", "said", "asked"),
    [
        ("/gradio_api/queue/data", "session_hash=s", None, {"session s"}),
        (
            "/gradio_api/queue/data",
            "session_hash=s&session_hash=t",
            None,
            {"session s", "session t"},
        ),
        ("/gradio_api/queue/data", "session_hash=", None, {"session "}),
        ("/gradio_api/queue/data", "session%5Fhash=%73", None, {"session s"}),
        ("/gradio_api/call/predict/e", "", None, {"event e"}),
        ("/gradio_api/call/v2/predict/e", "", None, {"event e"}),
        ("/gradio_api/call/predict/e/", "", None, {"event "}),
        ("/gradio_api/call/predict", "", {"data": []}, set()),
        ("/gradio_api/cancel", "", {"session_hash": "s", "event_id": "e"}, {"event e"}),
        ("/gradio_api/file=/tmp/f", "", None, {"file /tmp/f"}),
        ("/gradio_api/file=https://evil.example/f", "", None, {"file https://evil.example/f"}),
        ("/gradio_api/queue/join", "", {"data": [{"path": "/f"}]}, {"file /f"}),
        ("/config", "", None, set()),
    ],
)
def test_what_a_request_asks_for(path, query, said, asked) -> None:
    assert list_asked(path, query, said) == asked


def test_a_request_may_begin_a_session() -> None:
    assert list_begun("/gradio_api/queue/join", {"session_hash": "s"}) == {"session s"}
    assert list_begun("/gradio_api/heartbeat/s", None) == {"session s"}
    assert list_begun("/gradio_api/queue/join", {"session_hash": 7}) == set()


def test_an_answer_gives_its_files_its_event_and_the_session_named_after_it() -> None:
    said = {"event_id": "e", "output": {"data": [{"path": "/tmp/f"}]}}
    assert list_given(said) == {"event e", "session e", "file /tmp/f"}
    assert list_given("event: complete") == set()
