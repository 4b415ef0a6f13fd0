"""The gate that every request passes: who may reach which app, page, file and event.

Three Gradio apps lie behind it at the same address: the guests', the doctors' and the admins'. A
request reaches the one of its session's role, so that nobody can call another's functions. What is
not on the lists here is not reached by anyone.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from clinic import cookies, sign_ins, visitors
from clinic.grants import Grants, events_in, sessions_in
from clinic.installation import Installation
from clinic.permissions import Actor
from clinic.signing_in import not_found_page

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]

OWN = ("/login", "/logout", "/healthz", "/files/", "/oauth/", "/hub")
UPLOAD = "/gradio_api/upload"
STATIC = re.compile(r"/(assets|static|svelte)/.+|(/gradio_api)?/theme\.css|/favicon\.ico")
OPEN = re.compile(r"/manifest\.json|/robots\.txt|/gradio_api/(app_id|startup-events)")
CALLS = re.compile(
    r"/config|/gradio_api/(info|queue/(join|data)|call/.+|heartbeat/[^/]+|reset|cancel|file=.+"
    r"|upload|upload_progress)"
)
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
MOST_JSON, MOST_UPLOAD = 1 << 20, 64 << 20  # bytes of a request

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors {frames}"
)


class TooLarge(Exception):
    """A request holds more than is taken."""


@dataclass(frozen=True)
class Apps:
    """What lies behind the gate.

    Attributes:
        own: Sign-in, files, uploads, health.
        guest: Anyone's.
        doctor: Needs a doctor's session.
        admin: Needs an admin's.
        pages: Paths of each one's pages besides "/".
    """

    own: Starlette
    guest: Starlette
    doctor: Starlette
    admin: Starlette
    pages: Mapping[str, frozenset[str]]

    @asynccontextmanager
    async def running(self, _app: Starlette) -> AsyncIterator[None]:
        """All of them, from the server's start to its end."""
        async with AsyncExitStack() as stack:
            for app in (self.guest, self.doctor, self.admin):
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield


@dataclass(frozen=True)
class Gate:
    """The ASGI app that is served.

    Attributes:
        clinic: The installation.
        apps: Behind the gate.
        folder: Where Gradio keeps its files.
        frames: Sites that may show the app in a frame, for the content security policy.
    """

    clinic: Installation
    apps: Apps
    folder: str
    frames: str = "'self'"
    grants: Grants = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "grants", Grants(self.folder))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self.apps.own(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"]
        guarded = self._guarded(send, STATIC.fullmatch(path) is not None)
        most = MOST_UPLOAD if path == UPLOAD else MOST_JSON
        try:
            await self._serve(scope, _limited(receive, most), guarded)
        except TooLarge:
            await _refused(413, f"a request holds at most {most >> 20} MB")(scope, receive, guarded)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refused_at_once(scope)
        if refused:
            await refused(scope, receive, send)
            return
        path, settings = scope["path"], self.clinic.settings
        scope.setdefault("state", {})["address"] = visitors.address(scope, settings.proxies)
        if path.startswith(OWN) or STATIC.fullmatch(path):
            app = self.apps.own if path.startswith(OWN) else self.apps.guest
            await app(scope, receive, send)
            return
        token = cookies.token_in(visitors.header(scope, "cookie"))
        actor = await run_in_threadpool(
            sign_ins.actor_of, self.clinic, token, scope["state"]["address"]
        )
        if actor is None:
            await self._stranger(scope, receive, send, stale=bool(token))
        else:
            await self._signed_in(actor, scope, receive, send)

    def _refused_at_once(self, scope: Scope) -> Response | None:
        hosts = self.clinic.settings.hosts
        if hosts and visitors.header(scope, "host").partition(":")[0] not in hosts:
            return _refused(400, "this app is not reached by that name")
        if scope["method"] in UNSAFE and visitors.is_from_elsewhere(scope):
            return _refused(403, "another site's page may not do this")
        return None

    async def _stranger(self, scope: Scope, receive: Receive, send: Send, stale: bool) -> None:
        """Whoever has no session: sees the guests' app, where there is one."""
        path, page = scope["path"], visitors.wants_page(scope)
        of_others = path in self.apps.pages["doctor"] | self.apps.pages["admin"]
        guests = self.clinic.settings.guests
        if page and stale:
            response: Response = RedirectResponse(_to_sign_in(scope), 303)
            secure = visitors.is_secure(scope, self.clinic.settings.proxies)
            response.headers["set-cookie"] = cookies.forgotten(secure=secure)
            await response(scope, receive, send)
        elif page and (of_others or not guests):
            await RedirectResponse(_to_sign_in(scope), 303)(scope, receive, send)
        elif not guests or (stale and not OPEN.fullmatch(path)):
            await _refused(401, "sign in first")(scope, receive, send)
        elif not self._is_served(path, "guest"):
            await _not_found(scope)(scope, receive, send)
        elif path == UPLOAD:
            await self.apps.own(scope, receive, send)
        elif CALLS.fullmatch(path):
            await self.apps.guest(scope, receive, send)
        else:
            await self.apps.guest(_without_query(scope), receive, send)

    async def _signed_in(self, actor: Actor, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if not self._is_served(path, actor.role):
            await _not_found(scope)(scope, receive, send)
            return
        scope["state"]["actor"] = actor
        app = self.apps.doctor if actor.role == "doctor" else self.apps.admin
        if not CALLS.fullmatch(path):
            await app(_without_query(scope), receive, send)
            return
        # What was given to whom can only be seen in bodies that aren't compressed.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        if path == UPLOAD:
            await self.apps.own(scope, receive, self._granting(actor, send))
            return
        body = await _body(receive) if scope["method"] == "POST" else b""
        if not self._may(actor, scope, body):
            await _refused(404, "there is nothing of that name")(scope, receive, send)
            return
        await app(scope, _replayed(body, receive), self._granting(actor, send))

    def _is_served(self, path: str, role: str) -> bool:
        pages = self.apps.pages[role]
        return path == "/" or path in pages or bool(OPEN.fullmatch(path) or CALLS.fullmatch(path))

    def _may(self, actor: Actor, scope: Scope, body: bytes) -> bool:
        """Whether all that a request names is the account's, or nobody's yet where that may be."""
        path, query = unquote(scope["path"]), parse_qs(scope["query_string"].decode("latin-1"))
        said = _json(body)
        asked = self.grants.files_in(path) | self.grants.files_in(_plain(body))
        asked |= {f"session {session}" for session in query.get("session_hash", ())}
        new = sessions_in(said)
        kind, _, rest = path.removeprefix("/gradio_api/").partition("/")
        if kind == "heartbeat":
            new.add(f"session {rest}")
        if kind == "call" and scope["method"] == "GET":
            asked.add(f"event {rest.rpartition('/')[2]}")
        if kind in ("cancel", "reset"):
            asked |= events_in(said)
        if path.startswith("/gradio_api/file=") and not self.grants.files_in(path):
            return False
        owner = actor.account_id
        return self.grants.holds(owner, asked) and self.grants.claim(owner, new)

    def _granting(self, actor: Actor, send: Send) -> Send:
        """Note which files and events an answer gives to the account."""
        rest = ""

        async def noting(message: Message) -> None:
            nonlocal rest
            if message["type"] == "http.response.body":
                lines = (rest + message.get("body", b"").decode("utf-8", "replace")).split("\n")
                rest = lines.pop() if message.get("more_body") else ""
                for line in lines:
                    self._grant(actor, line)
            await send(message)

        return noting

    def _grant(self, actor: Actor, line: str) -> None:
        event = _json(line.removeprefix("data: "))
        given = self.grants.files_in(line) | events_in(event)
        given |= {thing.replace("event ", "session ", 1) for thing in events_in(event)}
        self.grants.claim(actor.account_id, given)

    def _guarded(self, send: Send, static: bool) -> Send:
        """Answers with our headers, and without those that would let other sites read them."""
        policy = POLICY.format(frames=self.frames)
        ours = {**HEADERS, "content-security-policy": policy}
        if not static:
            ours["cache-control"] = "no-store"

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [
                    (name, value)
                    for name, value in message.get("headers", [])
                    if name.decode("latin-1").lower() not in ours
                    and not name.lower().startswith(b"access-control-")
                ]
                added = [(name.encode(), value.encode()) for name, value in ours.items()]
                message["headers"] = [*kept, *added]
            await send(message)

        return guarded


def _without_query(scope: Scope) -> Scope:
    """A page's request: its query is for the page's listeners, and Gradio would take it for its own."""
    return {**scope, "query_string": b""}


def _to_sign_in(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    wanted = scope["path"] + (f"?{query}" if query else "")
    return "/login" if wanted == "/" else f"/login?next={quote(wanted, safe='')}"


def _not_found(scope: Scope) -> Response:
    if visitors.wants_page(scope):
        return HTMLResponse(not_found_page(), 404)
    return _refused(404, "there is nothing of that name")


def _refused(status: int, why: str) -> Response:
    return JSONResponse({"detail": why}, status)


def _limited(receive: Receive, most: int) -> Receive:
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise TooLarge
        return message

    return limited


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _plain(body: bytes) -> str:
    """A JSON body with nothing escaped in it, so that no spelling of a path hides it."""
    said = _json(body)
    return body.decode("utf-8", "replace") if said is None else json.dumps(said, ensure_ascii=False)


def pages_of(paths: list[str]) -> frozenset[str]:
    """Paths of an app's pages as they are asked for."""
    return frozenset(f"/{path}" for path in paths if path)


def real_folder(folder: str) -> str:
    """A folder as Gradio names it in its answers."""
    return str(Path(folder).resolve())
