"""Pieces of ASGI: requests and answers changed on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]


class Answer:
    """Sends an answer with headers of ours in place of the apps' own.

    Args:
        send: To the visitor.
        headers: Of every answer.

    Attributes:
        begun: Whether the visitor has something of it.
    """

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self.begun = False
        self._send, self._headers = send, headers

    async def __call__(self, message: Message) -> None:
        """Send a piece of it."""
        if message["type"] == "http.response.start":
            self.begun = True
            theirs = [(name.lower(), value) for name, value in message.get("headers", ())]
            message["headers"] = theirs
            MutableHeaders(raw=theirs).update(self._headers)
        await self._send(message)


def drop_headers(scope: Scope, *names: bytes) -> Scope:
    """Return a request without some of its headers; without an Origin, Gradio allows none."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return {**scope, "headers": [pair for pair in headers if pair[0] not in names]}


def limit_body(receive: Receive, most: int) -> Receive:
    """Raise HTTPException 413, which FastAPI hands on, where a request's body is larger."""
    taken = 0

    async def receive_limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise HTTPException(413, f"a request holds at most {most >> 20} MB")
        return message

    return receive_limited


def replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a request's body again, after it was read."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_replayed


def disconnect_after(end: asyncio.Event, receive: Receive) -> Receive:
    """Receive as if the visitor had gone, once something has ended."""

    async def receive_until() -> Message:
        coming = asyncio.ensure_future(receive())
        ended = asyncio.ensure_future(end.wait())
        try:
            await asyncio.wait((coming, ended), return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else {"type": "http.disconnect"}
        finally:
            coming.cancel()
            ended.cancel()

    return receive_until
