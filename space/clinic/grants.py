"""Which of Gradio's files, sessions and events belong to which account.

Gradio lets anyone who knows a file's path, a session's hash or an event's id use it. Here each
belongs to the account that it was first given to; nobody else's request gets through.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any

MOST = 20_000  # of the newest are remembered; older ones are refused to all


class Grants:
    """Who was given what. Safe to use from threads.

    Args:
        folder: Where Gradio keeps its files.
    """

    def __init__(self, folder: str) -> None:
        self._owners: OrderedDict[str, int] = OrderedDict()
        self._lock = Lock()
        self._file = re.compile(re.escape(folder) + r"/([^\"'\\\s?#]+)")

    def claim(self, owner: int, things: Iterable[str]) -> bool:
        """Give what is nobody's yet; False where one of them is another's."""
        with self._lock:
            return all(
                [self._owners.setdefault(thing, owner) == owner for thing in self._new(things)]
            )

    def holds(self, owner: int, things: Iterable[str]) -> bool:
        """Whether all of it was given to an account."""
        with self._lock:
            return all(self._owners.get(thing) == owner for thing in things)

    def files_in(self, text: str) -> set[str]:
        """The files that a text names."""
        return {f"file {name}" for name in self._file.findall(text)}

    def _new(self, things: Iterable[str]) -> Iterator[str]:
        for thing in things:
            if thing not in self._owners and len(self._owners) >= MOST:
                self._owners.popitem(last=False)
            yield thing


def sessions_in(said: Any) -> set[str]:
    """The session that a request's JSON names."""
    session = said.get("session_hash") if isinstance(said, dict) else None
    return {f"session {session}"} if isinstance(session, str) else set()


def events_in(said: Any) -> set[str]:
    """The event that a JSON names."""
    event = said.get("event_id") if isinstance(said, dict) else None
    return {f"event {event}"} if isinstance(event, str) else set()
