"""What the loopback Hub holds: repositories, commits, and bytes kept by their hash."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

KINDS = ("model", "dataset", "space")
MAIN = "main"
LARGE = (".safetensors", ".bin", ".pt", ".parquet", ".arrow", ".onnx", ".npy", ".zip")
ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE)


def is_large(path: str, sample: bytes) -> bool:
    """Whether a file goes to large-file storage: by its suffix, or because it is no text."""
    return path.endswith(LARGE) or b"\0" in sample


@dataclass(frozen=True)
class File:
    """A file of a commit; its bytes are in the store under ``sha256``."""

    sha256: str
    size: int
    git_oid: str
    large: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.git_oid


@dataclass(frozen=True)
class Commit:
    """One commit; ``files`` is the whole tree after it."""

    oid: str
    title: str
    message: str
    author: str
    date: str
    files: Mapping[str, File]


@dataclass
class Repo:
    """A repository; each branch is its commits, oldest first."""

    id: str
    kind: str
    private: bool = False
    gated: bool = False
    sdk: str | None = None
    branches: dict[str, list[Commit]] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """What stands before the id in web addresses."""
        return "" if self.kind == "model" else f"{self.kind}s/"

    def history(self, revision: str) -> list[Commit] | None:
        """The commits up to a branch, tag or commit sha, oldest first; None where there is none."""
        if revision in self.branches:
            return self.branches[revision]
        wanted = self.tags[revision].oid if revision in self.tags else revision
        for commits in self.branches.values():
            oids = [commit.oid for commit in commits]
            if wanted in oids:
                return commits[: oids.index(wanted) + 1]
        return None

    def commit_at(self, revision: str) -> Commit | None:
        history = self.history(revision)
        return history[-1] if history else None


class Store:
    """All repositories of one Hub and the bytes of their files. Safe to use from threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}

    def create(self, repo: Repo, author: str) -> None:
        """Add a repository with the commit that the real Hub begins with too."""
        with self.lock:
            self.repos[repo.kind, repo.id] = repo
            repo.branches[MAIN] = []
            self.commit(
                repo, MAIN, {".gitattributes": self.keep(ATTRIBUTES)}, [], "initial commit", author
            )

    def keep(self, data: bytes | str, large: bool = False) -> File:
        """Store bytes; returns the file that stands for them."""
        data = data.encode() if isinstance(data, str) else data
        sha256 = hashlib.sha256(data).hexdigest()
        self.objects[sha256] = data
        return self.pointer(sha256) if large else File(sha256, len(data), _git_oid(data), False)

    def pointer(self, sha256: str) -> File:
        """A large file whose bytes are stored already; KeyError where they are not."""
        size = len(self.objects[sha256])
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return File(sha256, size, _git_oid(text.encode()), True)

    def commit(
        self,
        repo: Repo,
        branch: str,
        added: Mapping[str, File],
        removed: list[str],
        title: str,
        author: str,
        message: str = "",
    ) -> Commit:
        """Append a commit to a branch; a removed path ending in "/" is a folder."""
        with self.lock:
            commits = repo.branches[branch]
            files = dict(commits[-1].files) if commits else {}
            for gone in removed:
                files = {
                    path: file
                    for path, file in files.items()
                    if path != gone and not (gone.endswith("/") and path.startswith(gone))
                }
            files.update(added)
            date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            tree = "".join(f"{path} {file.git_oid}\n" for path, file in sorted(files.items()))
            told = f"{repo.kind} {repo.id} {branch} {len(commits)} {date} {title}\n{tree}"
            oid = hashlib.sha1(told.encode()).hexdigest()
            commits.append(Commit(oid, title, message, author, date, files))
            return commits[-1]


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
