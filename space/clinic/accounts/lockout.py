"""Guessing is made slow: attempts to sign in are counted by account name and by address.

An attempt counts before its password is looked at, so that many at once gain nothing, and a
refused one costs no hashing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from bcd_models.errors import BCDError
from clinic.storage import clock
from clinic.storage.tables import Failures

FREE_ATTEMPTS = {"account": 4, "address": 20}  # attempts without a wait
MAX_WAIT_SECONDS = 900  # seconds
MAX_AGE_OF_ATTEMPTS = timedelta(days=1)  # after the last attempt


@dataclass
class TooManyAttempts(BCDError):
    """It takes a wait until the next attempt.

    Attributes:
        seconds: How long.
    """

    seconds: int

    def __str__(self) -> str:
        return f"too many attempts: wait {self.seconds} seconds, then try again"


def count_attempt(session: Session, name: str, address: str) -> None:
    """Count an attempt; TooManyAttempts where it has to wait, and then it doesn't count."""
    counters = [_get_counter(session, kind, of) for kind, of in _list_keys(name, address)]
    now = clock.now()
    until = max(_find_lock_end(counter, now) for counter in counters)
    if until > now:
        raise TooManyAttempts(int((until - now).total_seconds()) + 1)
    for counter, kind in zip(counters, FREE_ATTEMPTS, strict=True):
        _count_up(counter, FREE_ATTEMPTS[kind], now)


def forget_attempts(session: Session, name: str, address: str) -> None:
    """Forget an account's attempts, and the last one of its address.

    The address' others stay: whoever knows one password shall not buy guesses of others with it.
    """
    account, place = (_get_counter(session, kind, of) for kind, of in _list_keys(name, address))
    account.count, account.locked_until = 0, None
    place.count -= 1
    if place.count <= FREE_ATTEMPTS["address"]:
        place.locked_until = None


def _list_keys(name: str, address: str) -> list[tuple[str, str]]:
    """Return a key that holds a name's hash, for a name may be as long as a request."""
    return [("account", hashlib.sha256(name.encode()).hexdigest()), ("address", address[:64])]


def _get_counter(session: Session, kind: str, of: str) -> Failures:
    key = f"{kind}:{of}"
    counter = session.get(Failures, key)
    if counter is None:
        counter = Failures(of=key, count=0, last_at=clock.now())
        session.add(counter)
    return counter


def _find_lock_end(counter: Failures, now: datetime) -> datetime:
    """Return when its lock ends; a clock that was set back since doesn't prolong it."""
    if counter.locked_until is None or counter.last_at > now:
        return now
    return counter.locked_until


def _count_up(counter: Failures, free: int, now: datetime) -> None:
    if now - counter.last_at > MAX_AGE_OF_ATTEMPTS:
        counter.count = 0
    counter.count, counter.last_at = counter.count + 1, now
    beyond = counter.count - free
    wait = min(2**beyond, MAX_WAIT_SECONDS) if beyond >= 0 else 0
    counter.locked_until = now + timedelta(seconds=wait) if wait else None
