"""Passwords: what is accepted as one, and its hash (Argon2id)."""

from __future__ import annotations

import secrets
from functools import cache

from pwdlib import PasswordHash

from bcd_models.errors import InputError

MIN_LENGTH, MAX_LENGTH = 10, 256  # characters


@cache
def _get_hasher() -> PasswordHash:
    return PasswordHash.recommended()


@cache
def _get_unmatched_hash() -> str:
    """Return a hash that no password has, so that an unknown name takes as long as a known one."""
    return hash_password(secrets.token_urlsafe(32))


def hash_password(password: str) -> str:
    """Return what is kept of a password."""
    return _get_hasher().hash(password)


def check(password: str, kept: str | None) -> tuple[bool, str | None]:
    """Return whether a password is the one that was kept; takes as long where none was.

    Returns:
        That, and a hash to keep instead where today's parameters are others.
    """
    right, renewed = _get_hasher().verify_and_update(
        password[: MAX_LENGTH + 1], kept or _get_unmatched_hash()
    )
    return right and kept is not None, renewed


def generate_password() -> str:
    """Return a password nobody can guess; 96 random bits."""
    return secrets.token_urlsafe(12)


def refuse_weak(password: str, name: str) -> None:
    """Raise InputError where a password is too short, too long or the account's name."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise InputError(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters")
    if password.casefold() == name.casefold():
        raise InputError("the password must differ from the account's name")
