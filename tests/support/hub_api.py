"""The loopback Hub's answers: one method a kind of request."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

from tests.support.hub_store import KINDS, MAIN, Commit, File, Repo, is_large

if TYPE_CHECKING:
    from tests.support.hub import Hub

REPO = r"/api/(?P<kind>model|dataset|space)s/(?P<id>[^/]+/[^/]+)"
WEB = r"/(?:(?P<kinds>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)"


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
            body = json.dumps({"error": str(refusal)}).encode()
            self.send(body, refusal.status, {**refusal.headers, "Content-Type": "application/json"})
        finally:
            token = "Authorization" in self.headers
            self.hub.note(_request(self.command, self.path, token, self.status))

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

    def send_json(self, document: Any, **headers: str) -> None:
        self.send(json.dumps(document).encode(), 200, {"Content-Type": "application/json", **headers})

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
                named = {k: unquote(v) for k, v in found.groupdict(default="").items()}
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

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> None:
        if self.rights is None:
            raise Refusal(401, "Invalid username or password.")
        role = "write" if self.rights.write else "read"
        access = {"displayName": "loopback", "role": role, "createdAt": "2026-01-01T00:00:00.000Z"}
        auth = {"type": "access_token", "accessToken": access}
        self.send_json(
            {"type": "user", "name": self.rights.name, "fullname": "", "orgs": [], "auth": auth}
        )

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self) -> None:
        asked = self.read_json()
        errors, warnings = _check_card(asked["content"], asked["repoType"])
        document = {"errors": errors, "warnings": warnings}
        status = 400 if errors else 200
        self.send(json.dumps(document).encode(), status, {"Content-Type": "application/json"})

    @route("POST", "/api/repos/create")
    def create_repo(self) -> None:
        author = self.writer()
        asked = self.read_json()
        kind = asked.get("type") or "model"
        repo_id = f"{asked.get('organization') or author}/{asked['name']}"
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repo = Repo(repo_id, kind, private, sdk=asked.get("sdk"))
        with self.hub.store.lock:
            there = (kind, repo_id) in self.hub.store.repos
            if not there:
                self.hub.store.create(repo, author)
        document = {"url": f"{self.hub.url}/{repo.prefix}{repo_id}", "name": repo_id}
        if there:
            document["error"] = f"You already created this {kind} repo"
        status = 409 if there else 200
        self.send(json.dumps(document).encode(), status, {"Content-Type": "application/json"})

    @route("DELETE", "/api/repos/delete")
    def delete_repo(self) -> None:
        author = self.writer()
        asked = self.read_json()
        repo_id = f"{asked.get('organization') or author}/{asked['name']}"
        repo = self._repo(asked.get("type") or "model", repo_id)
        del self.hub.store.repos[repo.kind, repo.id]
        self.send_json({})

    @route("GET", REPO + r"(?:/revision/(?P<revision>[^/]+))?")
    def info(self, repo: Repo, revision: str) -> None:
        commit = self.commit_at(repo, revision or MAIN)
        self.send_json(_info(repo, commit, self._card(commit), bool(self.query.get("blobs"))))

    def _card(self, commit: Commit) -> dict[str, Any] | None:
        file = commit.files.get("README.md")
        text = self.hub.store.objects[file.sha256].decode() if file else ""
        return front_matter(text)

    @route("GET", REPO + "/auth-check")
    def auth_check(self, repo: Repo) -> None:
        self.commit_at(repo, MAIN)
        self.send_json({})

    @route("GET", REPO + "/refs")
    def refs(self, repo: Repo) -> None:
        heads = {name: commits[-1].oid for name, commits in repo.branches.items()}
        tags = {name: commit.oid for name, commit in repo.tags.items()}
        self.send_json(
            {
                "branches": [_ref("heads", *pair) for pair in heads.items()],
                "tags": [_ref("tags", *pair) for pair in tags.items()],
                "converts": [],
                "pullRequests": [],
            }
        )

    @route("GET", REPO + "/commits/(?P<revision>[^/]+)")
    def commits(self, repo: Repo, revision: str) -> None:
        self.commit_at(repo, revision)
        self.send_json(
            [
                {
                    "id": commit.oid,
                    "title": commit.title,
                    "message": commit.message,
                    "authors": [{"user": commit.author}],
                    "date": commit.date,
                }
                for commit in reversed(repo.history(revision) or [])
            ]
        )

    @route("POST", REPO + "/(?P<what>branch|tag)/(?P<name>[^/]+)")
    def add_ref(self, repo: Repo, what: str, name: str) -> None:
        self.writer()
        asked = self.read_json() if self.body else {}
        if name in (repo.branches if what == "branch" else repo.tags):
            raise Refusal(409, f"{what} {name} already exists")
        if what == "tag":  # a tag's address names what is tagged
            repo.tags[asked["tag"]] = self.commit_at(repo, name)
        else:
            start = asked.get("startingPoint") or MAIN
            self.commit_at(repo, start)
            repo.branches[name] = list(repo.history(start) or [])
        self.send_json({})

    @route("GET", REPO + "/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
    def tree(self, repo: Repo, revision: str, path: str) -> None:
        commit = self.commit_at(repo, revision)
        entries = tree_entries(commit, path, self.query.get("recursive", "").lower() == "true")
        if path and not entries:
            raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
        start = int(self.query.get("cursor", 0))
        end = start + self.hub.page_size
        headers = {}
        if end < len(entries):
            base = urlsplit(self.path).path
            query = f"recursive={self.query.get('recursive', 'False')}&cursor={end}"
            headers["Link"] = f'<{self.hub.url}{base}?{query}>; rel="next"'
        self.send_json(entries[start:end], **headers)

    @route("POST", REPO + "/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, repo: Repo, revision: str) -> None:
        commit = self.commit_at(repo, revision)
        if self.headers.get("Content-Type", "").startswith("application/json"):
            paths = self.read_json()["paths"]
        else:
            paths = parse_qs(self.body.decode()).get("paths", [])
        entries = tree_entries(commit, "", recursive=True)
        self.send_json([entry for entry in entries if entry["path"] in paths])

    @route("POST", REPO + "/preupload/(?P<revision>[^/]+)")
    def preupload(self, repo: Repo, revision: str) -> None:
        self.writer()
        commit = self.commit_at(repo, revision)
        answers = []
        for asked in self.read_json()["files"]:
            path, there = asked["path"], commit.files.get(asked["path"])
            large = is_large(path, base64.b64decode(asked["sample"]))
            answer = {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
                "oid": there.etag if there else None,
            }
            answers.append(answer)
        self.send_json({"files": answers})

    @route("POST", REPO + "/commit/(?P<revision>[^/]+)")
    def commit(self, repo: Repo, revision: str) -> None:
        author = self.writer()
        self.room()
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        header = next(line["value"] for line in lines if line["key"] == "header")
        added = {
            line["value"]["path"]: self._added(line) for line in lines if "ile" in line["key"][1:5]
        }
        removed = [_removed(line) for line in lines if line["key"].startswith("deleted")]
        with self.hub.store.lock:
            parent = self.commit_at(repo, revision)
            if header.get("parentCommit") not in (None, parent.oid):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            if revision not in repo.branches:
                raise Refusal(404, f"{revision} is no branch", "RevisionNotFound")
            made = self.hub.store.commit(
                repo, revision, added, removed, header["summary"], author, header["description"]
            )
        url = f"{self.hub.url}/{repo.prefix}{repo.id}/commit/{made.oid}"
        self.send_json({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})
