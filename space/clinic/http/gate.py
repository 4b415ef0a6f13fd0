"""The gate that every request passes: who may reach which app, page, file and event.

Three Gradio apps lie behind it at the same address: the guests', the doctors' and the admins'. A
request reaches the one of its session's role, so that nobody can call another's functions. What is
not on the lists here is not reached by anyone.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from clinic.accounts import sign_ins
from clinic.http import asgi, cookies, visitors
from clinic.http.asgi import Answer, Message, Receive, Scope, Send, drop_headers
from clinic.http.failures import find_status, user_message
from clinic.http.grants import GUEST, HEARTBEAT, Grants, list_asked, list_begun, list_given
from clinic.http.plain_pages import render_not_found, respond_with_sentence
from clinic.installation import Installation
from clinic.storage.actor import Actor

PUBLIC_ROUTES = re.compile(r"/(login|logout|healthz|hub)|/oauth/huggingface/(login|callback)")
OWN_ROUTES = re.compile(r"/files/.+|/gradio_api/upload(_progress)?")
UPLOAD_ROUTE = "/gradio_api/upload"
STATIC_ROUTES = re.compile(r"/(assets|static|svelte)/.+|(/gradio_api)?/theme\.css|/favicon\.ico")
OPEN_ROUTES = re.compile(r"/manifest\.json|/robots\.txt|/gradio_api/(app_id|startup-events)")
CALL_ROUTES = re.compile(
    r"/config|/gradio_api/(info|queue/(join|data)|call/.+|heartbeat/[^/]+|reset|cancel|file=.+)"
)
GRANTING_ROUTES = re.compile(r"/gradio_api/(queue|call)/.+")  # the calls that give files and events
METHODS = ("GET", "HEAD", "POST")
MAX_JSON_BYTES, MAX_UPLOAD_BYTES = 1 << 20, 64 << 20  # bytes of a request
UNKNOWN = "there is nothing of that name; if a page sent this, load it again"

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


@dataclass(frozen=True)
class Apps:
    """What lies behind the gate."""

    own: Starlette  # sign-in, files, uploads, health
    guest: Starlette  # anyone's
    doctor: Starlette  # needs a doctor's session
    admin: Starlette  # needs an admin's
    pages: Mapping[str, frozenset[str]]  # paths of each one's pages besides "/"

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the Gradio apps from the server's start to its end."""
        async with AsyncExitStack() as stack:
            for app in (self.guest, self.doctor, self.admin):
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield


@dataclass(frozen=True)
class Gate:
    """The ASGI app that is served."""

    clinic: Installation  # the installation
    apps: Apps  # behind the gate
    grants: Grants  # of files, sessions and events
    # sites that may show the app in a frame, for the content security policy
    frames: str = "'self'"
    ending: asyncio.Event = field(default_factory=asyncio.Event)  # set once the server stops

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self.apps.own(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"]
        answer = Answer(send, self._headers(path))
        most = MAX_UPLOAD_BYTES if path == UPLOAD_ROUTE else MAX_JSON_BYTES
        try:
            await self._serve(scope, asgi.limit_body(receive, most), answer)
        except ClientDisconnect:
            return
        except HTTPException as error:  # too large
            await _refuse(error.status_code, error.detail)(scope, receive, answer)
        except Exception as error:  # whose message may hold what a user typed
            sentence = user_message(error)
            if not answer.begun:
                refused = respond_with_sentence(scope, find_status(error), sentence)
                await refused(scope, receive, answer)

    def end(self) -> None:
        """Let go of open pages, whose heartbeats would keep a server from stopping."""
        self.ending.set()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, state = scope["path"], scope.setdefault("state", {})
        state["address"] = visitors.address(scope, self.clinic.settings.proxies)
        state["secure"] = visitors.is_secure(scope, self.clinic.settings.proxies)
        state["token"] = cookies.read_token(visitors.header(scope, "cookie"))
        refused = self._refuse_anyone(scope)
        if refused:
            await refused(scope, receive, send)
        elif STATIC_ROUTES.fullmatch(path):
            await self.apps.guest(drop_headers(scope, b"origin"), receive, send)
        elif PUBLIC_ROUTES.fullmatch(path):
            await self.apps.own(scope, receive, send)
        else:
            actor = await run_in_threadpool(
                sign_ins.find_actor, self.clinic, state["token"], state["address"]
            )
            await self._route(actor, scope, receive, send)

    def _refuse_anyone(self, scope: Scope) -> Response | None:
        """Return the refusal of what is refused to all."""
        settings = self.clinic.settings
        hosts = {name.lower() for name in settings.hosts}
        if hosts and visitors.host_name(scope, settings.proxies) not in hosts:
            return _refuse(400, "this app is not reached by that name")
        if scope["method"] not in METHODS:
            return _refuse(405, f"only {', '.join(METHODS)} are answered")
        if scope["method"] == "POST" and visitors.is_from_elsewhere(scope, settings.proxies):
            return _refuse(403, "another site's page may not do this")
        return None

    async def _route(self, actor: Actor | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the app of whoever sent it."""
        path, role = scope["path"], actor.role if actor else "guest"
        owner = actor.account_id if actor else GUEST
        scope["state"] |= {"actor": actor, "owner": owner}
        refused = self._refuse_visitor(actor, scope)
        if refused:
            await refused(scope, receive, send)
        elif OWN_ROUTES.fullmatch(path):
            await self.apps.own(scope, receive, send)
        elif CALL_ROUTES.fullmatch(path):
            await self._call(owner, getattr(self.apps, role), scope, receive, send)
        else:
            # A page's query is for its listeners; Gradio would take it for its own.
            page = {**drop_headers(scope, b"origin"), "query_string": b""}
            await getattr(self.apps, role)(page, receive, send)

    def _refuse_visitor(self, actor: Actor | None, scope: Scope) -> Response | None:
        """Return the refusal of what is refused to this visitor."""
        path, pages, is_page = scope["path"], self.apps.pages, visitors.wants_page(scope)
        if actor is None:
            closed = bool(scope["state"]["token"]) or not self.clinic.settings.guests
            if is_page and (closed or path in pages["doctor"] | pages["admin"]):
                return _redirect_to_sign_in(scope)
            if closed:
                return _refuse(401, "sign in first")
        if path == "/" or path in pages[actor.role if actor else "guest"]:
            return None
        if any(known.fullmatch(path) for known in (OWN_ROUTES, OPEN_ROUTES, CALL_ROUTES)):
            return None
        return HTMLResponse(render_not_found(), 404) if is_page else _refuse(404, UNKNOWN)

    async def _call(
        self, owner: int, app: Starlette, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Hand a call to Gradio, where all that it names is the owner's."""
        path, query, said = scope["path"], scope["query_string"].decode("latin-1"), None
        if scope["method"] == "POST":
            said = _parse_json(await Request(scope, receive).body())
            if not isinstance(said, dict):
                await _refuse(422, "a JSON object is needed")(scope, receive, send)
                return
            # As it was understood here, so that nothing can be understood otherwise there.
            receive = asgi.replay_body(json.dumps(said).encode(), receive)
        held = self.grants.holds(owner, list_asked(path, query, said))
        if not held or not self.grants.claim(owner, list_begun(path, said)):
            await _refuse(404, UNKNOWN)(scope, receive, send)
            return
        if GRANTING_ROUTES.fullmatch(path):
            send = self._record_grants(owner, send)
        if path.startswith(HEARTBEAT):
            receive = asgi.disconnect_after(self.ending, receive)
        # What an answer gives can only be seen where it isn't compressed.
        call = drop_headers(scope, b"origin", b"accept-encoding", b"content-length")
        await app(call, receive, send)

    def _record_grants(self, owner: int, send: Send) -> Send:
        """Note which files and events an answer gives to its owner."""
        rest = b""

        async def note_and_send(message: Message) -> None:
            nonlocal rest
            if message["type"] == "http.response.body":
                *lines, rest = (rest + message.get("body", b"")).split(b"\n")
                if not message.get("more_body"):
                    lines.append(rest)
                for line in lines:
                    self.grants.claim(owner, list_given(_parse_json(line.removeprefix(b"data: "))))
            await send(message)

        return note_and_send

    def _headers(self, path: str) -> dict[str, str]:
        """Return what every answer to a path says."""
        ours = {**HEADERS, "content-security-policy": POLICY.format(frames=self.frames)}
        return ours if STATIC_ROUTES.fullmatch(path) else {**ours, "cache-control": "no-store"}


def _redirect_to_sign_in(scope: Scope) -> Response:
    """Redirect to the sign-in, and back afterwards; a session that is over is forgotten."""
    response = RedirectResponse(visitors.sign_in_path(scope), 303)
    response.headers["set-cookie"] = cookies.format_expired_cookie(secure=scope["state"]["secure"])
    return response


def _refuse(status: int, why: str) -> Response:
    return JSONResponse({"detail": why}, status)


def _parse_json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
