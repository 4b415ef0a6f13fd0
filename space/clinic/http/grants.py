"""Which of Gradio's files, sessions and events belong to whom.

Gradio lets anyone who knows a file's path, a session's hash or an event's id use it, and takes any
path on the server for an input. Here each belongs to whom it was first given to: nobody else's
request gets through, and none that names a file which was given to nobody.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

GUEST = 0  # all guests are one owner; accounts count from 1
MAX_GRANTS_PER_OWNER = 20_000  # older files and events are refused to all
MAX_GRANT_LENGTH = 1000  # characters of what is remembered
FILE, CALL, HEARTBEAT = (f"/gradio_api/{kind}" for kind in ("file=", "call/", "heartbeat/"))


class Grants:
    """Who was given what. For one event loop, not for threads."""

    def __init__(self) -> None:
        self._owners: dict[str, int] = {}
        self._given: defaultdict[int, deque[str]] = defaultdict(deque)

    def claim(self, owner: int, things: Iterable[str]) -> bool:
        """Give what is nobody's yet; False, and nothing given, where one of them can't be had."""
        things = set(things)
        known = (self._owners.get(one, owner) for one in things)
        if any(of != owner for of in known) or any(len(one) > MAX_GRANT_LENGTH for one in things):
            return False
        given = self._given[owner]
        for one in things:
            if one not in self._owners:
                self._owners[one] = owner
                given.append(one)
        while len(given) > MAX_GRANTS_PER_OWNER:
            del self._owners[given.popleft()]
        return True

    def holds(self, owner: int, things: Iterable[str]) -> bool:
        """Return whether all of it was given to an owner."""
        return all(self._owners.get(one) == owner for one in things)


def name_file(path: str) -> str:
    """Return a file as it is claimed: its path, letter for letter."""
    return f"file {path}"


def list_asked(path: str, query: str, said: Any) -> set[str]:
    """Return what a request, with the JSON ``said`` in a POST, names that its sender must hold."""
    sessions = parse_qs(query, keep_blank_values=True).get("session_hash", ())
    asked = list_files(said) | _find_named(said, "event_id", "event")
    asked |= {f"session {session}" for session in sessions}
    if path.startswith(FILE):
        asked.add(name_file(path.removeprefix(FILE)))
    if path.startswith(CALL) and said is None:
        asked.add(f"event {path.rpartition('/')[2]}")
    return asked


def list_begun(path: str, said: Any) -> set[str]:
    """Return the session that a request names, which may be a new one."""
    begun = _find_named(said, "session_hash", "session")
    if path.startswith(HEARTBEAT):
        begun.add(f"session {path.removeprefix(HEARTBEAT)}")
    return begun


def list_given(said: Any) -> set[str]:
    """Return what an answer's JSON gives: files, an event and the session named after it."""
    return (
        list_files(said)
        | _find_named(said, "event_id", "event")
        | _find_named(said, "event_id", "session")
    )


def list_files(said: Any) -> set[str]:
    """Return the files that a JSON names, at any depth, by their paths letter for letter."""
    found, waiting = set(), [said]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            found |= _find_named(part, "path", "file")
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return found


def _find_named(said: Any, key: str, kind: str) -> set[str]:
    name = said.get(key) if isinstance(said, dict) else None
    return {f"{kind} {name}"} if isinstance(name, str) else set()
