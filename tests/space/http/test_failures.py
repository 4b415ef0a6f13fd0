"""Errors reach users as one sentence, and the log learns nothing about them."""

import logging

from bcd_models.errors import ImageError
from clinic.http.failures import UNEXPECTED, user_message
from clinic.ui import result


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_errors_on_purpose_speak_for_themselves(caplog):
    assert user_message(raised(ImageError("a.png is empty"))) == "a.png is empty"
    assert not caplog.records


def test_anything_else_is_told_neutrally_and_logged_without_names(caplog):
    with caplog.at_level(logging.ERROR):
        assert user_message(raised(FileNotFoundError("/uploads/Jane Doe.png"))) == UNEXPECTED
    assert "FileNotFoundError" in caplog.text
    assert "in raised" in caplog.text
    assert "Jane" not in caplog.text


def test_the_page_shows_markup_as_text():
    shown = result.show_failure("<img src=x onerror=alert(1)>\u202e")
    assert "&lt;img src=x onerror=alert(1)&gt;\ufffd" in shown
    assert "<img" not in shown
