"""A Hugging Face Hub of a test's own, on loopback, over real HTTP, gone with all it held.

It speaks what huggingface_hub 2 speaks with Xet switched off. huggingface_hub reads its settings
when it is imported, so clients run in processes of their own::

    with running_hub() as hub:
        hub.add_repo("org/name", {"config.json": b"{}"})
        hub.fail("GET .*config", status=503, times=2)
        done = run_client("import huggingface_hub; ...", hub.environment(home))
        assert hub.files("org/name")["config.json"] == b"{}"
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support import hub_api, hub_files  # noqa: F401 - they register their answers
from tests.support.hub_http import Handler, Rights
from tests.support.hub_store import MAIN, Commit, File, Repo, Store, is_large

ROOT = Path(__file__).parents[2]
OWN_SETTINGS = ("HF_", "HUGGING", "TRANSFORMERS_", "XDG_CACHE", "COVERAGE_")

# A client's waits between retries take no time with this in front of its code.
NO_WAITS = "import time; time.sleep = lambda seconds: None\n"


@dataclass(frozen=True)
class Request:
    """One request as it came in: ``path`` with its query, ``token`` whether one came along."""

    method: str
    path: str
    token: bool
    status: int


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests whose "METHOD /path" matches ``pattern``."""

    pattern: str
    times: int
    status: int | None = None
    retry_after: int | None = None
    cut_after: int | None = None
    corrupt: bool = False
    delay: float = 0


@dataclass
class Hub:
    """A running Hub.

    Attributes:
        url: Its address: what HF_ENDPOINT must be.
        cdn: Where it sends clients for large files: another origin, which gets no token.
        token: May read and write everything.
        read_token: May read everything and write nothing.
        stranger_token: Valid, but may read public repositories only.
        full: Whether it refuses whatever would take space.
        page_size: Entries of a tree on one page.
        requests: All requests so far.
    """

    url: str = ""
    cdn: str = ""
    token: str = "hf_loopbackwriter"
    read_token: str = "hf_loopbackreader"
    stranger_token: str = "hf_loopbackstranger"
    full: bool = False
    page_size: int = 1000
    store: Store = field(default_factory=Store)
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def accounts(self) -> dict[str, Rights]:
        """What each valid token's holder is called and may do."""
        return {
            self.token: Rights("writer", read=True, write=True),
            self.read_token: Rights("reader", read=True, write=False),
            self.stranger_token: Rights("stranger", read=False, write=False),
        }

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, bytes] | None = None,
        kind: str = "model",
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """Make a repository, or commit to the one there is; returns the last commit's sha."""
        repo = self.store.repos.get((kind, repo_id))
        if repo is None:
            repo = Repo(repo_id, kind, private, gated)
            self.store.create(repo, "writer")
        added = {path: self._keep(path, data) for path, data in (files or {}).items()}
        if added:
            self.store.commit(repo, MAIN, added, [], "files of a test", "writer")
        return repo.branches[MAIN][-1].oid

    def remove_file(self, repo_id: str, path: str, kind: str = "model") -> None:
        """Commit without a file that was there."""
        self.store.commit(self.repo(repo_id, kind), MAIN, {}, [path], "removed", "writer")

    def tag(self, repo_id: str, tag: str, kind: str = "model") -> None:
        """Tag the last commit."""
        repo = self.repo(repo_id, kind)
        repo.tags[tag] = repo.branches[MAIN][-1]

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        """A repository; KeyError where there is none."""
        return self.store.repos[kind, repo_id]

    def files(self, repo_id: str, kind: str = "model", revision: str = MAIN) -> dict[str, bytes]:
        """All files of a revision but the ``.gitattributes`` that the Hub itself begins with."""
        commit = self.repo(repo_id, kind).commit_at(revision)
        assert commit, f"no revision {revision} in {repo_id}"
        return {
            path: self.store.objects[file.sha256]
            for path, file in sorted(commit.files.items())
            if path != ".gitattributes"
        }

    def commits(self, repo_id: str, kind: str = "model", revision: str = MAIN) -> list[Commit]:
        """The commits after the one that the Hub itself begins with, oldest first."""
        return (self.repo(repo_id, kind).history(revision) or [])[1:]

    def fail(
        self, pattern: str, status: int, times: int = 1, retry_after: int | None = None
    ) -> None:
        """Answer with an error status."""
        self.faults.append(Fault(pattern, times, status=status, retry_after=retry_after))

    def cut(self, pattern: str, after: int, times: int = 1) -> None:
        """Close the connection after so many bytes of an answer's body."""
        self.faults.append(Fault(pattern, times, cut_after=after))

    def corrupt(self, pattern: str, times: int = 1) -> None:
        """Send other bytes of the same length, under the same hash."""
        self.faults.append(Fault(pattern, times, corrupt=True))

    def slow(self, pattern: str, seconds: float, times: int = 1) -> None:
        """Wait before answering."""
        self.faults.append(Fault(pattern, times, delay=seconds))

    def heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self.faults.clear()
        self.full = False

    def find_requests(self, pattern: str) -> list[Request]:
        """Return the requests so far whose "METHOD /path" matches."""
        return [r for r in self.requests if re.search(pattern, f"{r.method} {r.path}")]

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """A client's whole environment: its own cache below ``home``, this Hub and no other."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(OWN_SETTINGS)}
        own = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "*",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        return {**kept, **own, **({"HF_TOKEN": token} if token else {})}

    def take_fault(self, request: str) -> Fault:
        """The first fault that matches, to be used once; one that does nothing where none does."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return Fault("", 0)

    def note(self, method: str, path: str, token: bool, status: int) -> None:
        """Write a request down."""
        with self._lock:
            self.requests.append(Request(method, path, token, status))

    def _keep(self, path: str, data: bytes) -> File:
        return self.store.keep(data, large=is_large(path, data[:512]))


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Start a Hub without repositories on free ports of 127.0.0.1."""
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    servers = [_Server(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def run_client(
    code_or_argv: str | Sequence[str], env: Mapping[str, str], timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run Python code, or a command, as a client of the Hub; its output is text.

    Raises:
        subprocess.TimeoutExpired: It took longer than ``timeout`` seconds.
    """
    return subprocess.run(
        client_argv(code_or_argv),
        env=dict(env),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def client_argv(code_or_argv: str | Sequence[str]) -> list[str]:
    """The command line that ``run_client`` runs."""
    if isinstance(code_or_argv, str):
        return [sys.executable, "-c", code_or_argv]
    return list(code_or_argv)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no news; anything else is a bug of this Hub."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
