"""The ids that the app issues: short, without letters that look alike, not to be guessed."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Literal

LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
LENGTH = 10

RECORD_ID = re.compile(f"[PE]-[{LETTERS}]{{{LENGTH}}}")  # of a patient or an examination

Kind = Literal["P", "E", "R"]  # patient, examination, report


def issue_id(kind: Kind) -> str:
    """Return a new id, such as ``P-7K3QX9MDAT``; 50 random bits."""
    return f"{kind}-{''.join(secrets.choice(LETTERS) for _ in range(LENGTH))}"


def derive_id(kind: Kind, state: bytes) -> str:
    """Return the id of something that is the same whenever its state is."""
    number = int.from_bytes(hashlib.sha256(state).digest())
    letters = (LETTERS[number >> 5 * place & 31] for place in range(LENGTH))
    return f"{kind}-{''.join(letters)}"
