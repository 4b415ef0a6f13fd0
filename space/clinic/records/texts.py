"""Free text that users type: what is accepted of it."""

from __future__ import annotations

from bcd_models.errors import InputError

MAX_LENGTH = 2000
CONTROLS = "\n\t"  # that a text may hold


def check_text(text: str, what: str) -> str:
    """Return a text, stripped; InputError where it is too long or holds control characters."""
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise InputError(f"a {what} has at most {MAX_LENGTH} characters, this one {len(text)}")
    if not all(letter.isprintable() or letter in CONTROLS for letter in text):
        raise InputError(f"the {what} holds control characters: type it again")
    return text
