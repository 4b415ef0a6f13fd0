"""The loopback Hub's HTTP: requests in, rights checked, answers out, faults on the way."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hub_store import Commit, Repo

if TYPE_CHECKING:
    from tests.support.hub import Hub

REPO = r"/api/(?P<kind>model|dataset|space)s/(?P<id>[^/]+/[^/]+)"
WEB = r"/(?:(?P<kinds>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)"
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Rights:
    """Who a token's holder is, and whether private repositories and writing are open to them."""

    name: str
    read: bool
    write: bool


class Refusal(Exception):
    """An answer that says no, in the Hub's own headers."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **headers}
        if code:
            self.headers["X-Error-Code"] = code


Route = tuple[str, re.Pattern[str], Callable[..., None]]
ROUTES: list[Route] = []


def route(methods: str, pattern: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register an answer for requests whose path matches; named groups become arguments."""

    def register(answer: Callable[..., None]) -> Callable[..., None]:
        ROUTES.extend((method, re.compile(pattern), answer) for method in methods.split())
        return answer

    return register


class Handler(BaseHTTPRequestHandler):
    """One connection of a client; ``hub`` is set by a subclass for each running Hub."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Requests are in the Hub's own log."""

    def handle_any(self) -> None:
        self.status = 0
        length = int(self.headers.get("Content-Length", 0))
        self.body = self._chunks() if self._is_chunked() else self.rfile.read(length)
        self.fault = self.hub.take_fault(f"{self.command} {self.path}")
        time.sleep(self.fault.delay)
        try:
            if self.fault.status:
                after = self.fault.retry_after
                headers = {} if after is None else {"Retry-After": str(after)}
                raise Refusal(self.fault.status, "the loopback Hub was told to fail", **headers)
            self._dispatch()
        except Refusal as refusal:
            self.send_json({"error": str(refusal)}, refusal.status, **refusal.headers)
        finally:
            token = "Authorization" in self.headers
            self.hub.note(self.command, self.path, token, self.status)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Send an answer, with whatever fault this request was to suffer."""
        self.status = status
        if self.fault.corrupt:
            body = bytes(255 - byte for byte in body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault.cut_after is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[: self.fault.cut_after])
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def send_json(self, document: Any, status: int = 200, **headers: str) -> None:
        self.send(json.dumps(document).encode(), status, {**JSON, **headers})

    def read_json(self) -> Any:
        return json.loads(self.body)

    def _is_chunked(self) -> bool:
        return self.headers.get("Transfer-Encoding", "").lower() == "chunked"

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _dispatch(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        self.rights = self._rights()
        for method, pattern, answer in ROUTES:
            found = pattern.fullmatch(url.path)
            if method == self.command and found:
                named: dict[str, Any] = {
                    k: unquote(v) for k, v in found.groupdict(default="").items()
                }
                if "id" in named:
                    kind = named.pop("kind", "") or named.pop("kinds", "")[:-1] or "model"
                    named.pop("kinds", None)
                    named["repo"] = self._repo(kind, named.pop("id"))
                answer(self, **named)
                return
        raise Refusal(404, f"the loopback Hub knows no {self.command} {url.path}")

    def _rights(self) -> Rights | None:
        sent = self.headers.get("Authorization")
        if sent is None:
            return None
        rights = self.hub.accounts.get(sent.removeprefix("Bearer "))
        if rights is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return rights

    def _repo(self, kind: str, repo_id: str) -> Repo:
        """The repository; who may not read it is told the same as if it weren't there."""
        repo = self.hub.store.repos.get((kind, repo_id.removesuffix(".git")))
        if repo is None or (repo.private and not (self.rights and self.rights.read)):
            if self.rights is None:
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return repo

    def writer(self) -> str:
        """The name of who asks, if they may write."""
        if self.rights is None:
            raise Refusal(401, "Invalid username or password.")
        if not self.rights.write:
            raise Refusal(403, "You don't have the rights to write here: use another token")
        return self.rights.name

    def commit_at(self, repo: Repo, revision: str) -> Commit:
        if repo.gated and not (self.rights and self.rights.read):
            status = 403 if self.rights else 401
            raise Refusal(status, f"Access to {repo.kind} {repo.id} is restricted.", "GatedRepo")
        commit = repo.commit_at(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def room(self) -> None:
        if self.hub.full:
            raise Refusal(403, "Storage limit reached: free some space, or get more")
