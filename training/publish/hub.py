"""Files -> a Hub repository that holds just these: compared by hash, sent in one commit."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path
from typing import Literal, cast

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    get_token,
    snapshot_download,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.hf_api import DatasetInfo, RepoFile, SpaceInfo
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from bcd_models.errors import BCDError, HubError, InputError
from bcd_models.hub.repository import reason, retry, tag_schema

Kind = Literal["model", "dataset", "space"]
Info = ModelInfo | DatasetInfo | SpaceInfo

HUB_OWN_FILE = ".gitattributes"  # made with the repository, says what is kept as a large file
EVAL_RESULTS = ".eval_results"  # where the Hub looks for a model's figures
HTTP_CONFLICT = 412


@dataclass(frozen=True)
class Content:
    """What a repository shall hold.

    Attributes:
        kind: "model", "dataset" or "space".
        folder: Its files; hidden ones are nobody's to publish, but for the Hub's own kind.
        message: Of the commit.
    """

    kind: Kind
    folder: Path
    message: str

    def list_files(self) -> dict[str, Path]:
        """Return the files by their path in the repository."""
        paths = {path.relative_to(self.folder): path for path in sorted(self.folder.rglob("*"))}
        return {
            place.as_posix(): path
            for place, path in paths.items()
            if path.is_file()
            and not any(part.startswith(".") and part != EVAL_RESULTS for part in place.parts)
        }


@dataclass(frozen=True)
class Change:
    """One file that differs.

    Attributes:
        sign: "+" added, "~" changed, "-" removed.
        path: In the repository.
        size: In bytes; of the file removed, else of the new one.
    """

    sign: Literal["+", "~", "-"]
    path: str
    size: int


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub, present or not.

    Attributes:
        repo_id: owner/name.
        kind: "model", "dataset" or "space".
    """

    repo_id: str
    kind: Kind

    def __post_init__(self) -> None:
        check_id(self.repo_id)

    def info(self) -> Info | None:
        """Ask what the Hub says of it; None where there is none, or none we may see."""
        try:
            return retry(self._ask)
        except RepositoryNotFoundError:
            return None

    def _ask(self) -> Info:
        return cast(Info, HfApi().repo_info(self.repo_id, repo_type=self.kind))

    def create(self, private: bool) -> None:
        """Make the repository, public unless asked or unless its owner's default is private."""
        retry(
            lambda: HfApi().create_repo(
                self.repo_id,
                repo_type=self.kind,
                private=private or None,
                exist_ok=True,
                space_sdk="gradio" if self.kind == "space" else None,
            )
        )

    def changes(self, content: Content, info: Info | None) -> list[Change]:
        """Return what would have to change for the repository to hold just the content's files."""
        there = self._list_tree(info)
        local = content.list_files()
        changes = [
            Change("~" if name in there else "+", name, path.stat().st_size)
            for name, path in local.items()
            if name not in there or not _is_same(path, there[name])
        ]
        gone = sorted(there.keys() - local.keys() - {HUB_OWN_FILE})
        return changes + [Change("-", name, there[name].size) for name in gone]

    def send(self, content: Content, changes: list[Change], info: Info) -> str:
        """Make changes in one commit, upon the state they were found against and no other.

        An attempt that failed may have reached the Hub all the same, its answer lost: so each one
        first looks whether anything is left to change.

        Returns:
            The SHA of the commit that holds the content.
        """

        def attempt() -> str:
            now = self._ask()
            if not self.changes(content, now):
                return str(now.sha)
            commit = HfApi().create_commit(
                self.repo_id,
                [
                    CommitOperationDelete(change.path, is_folder=False)
                    if change.sign == "-"
                    else CommitOperationAdd(change.path, content.folder / change.path)
                    for change in changes
                ],
                commit_message=content.message,
                repo_type=self.kind,
                parent_commit=info.sha,
            )
            return str(commit.oid)

        return retry(attempt)

    def tag(self, commit: str) -> None:
        """Let the tag of this library's schema name a commit."""
        retry(lambda: tag_schema(HfApi(), self.repo_id, commit))

    @contextmanager
    def download(self, revision: str) -> Iterator[Path]:
        """Download everything of a commit into a cache that holds nothing else."""
        with tempfile.TemporaryDirectory() as cache:
            yield Path(
                retry(
                    lambda: snapshot_download(
                        self.repo_id, repo_type=self.kind, revision=revision, cache_dir=cache
                    )
                )
            )

    def _list_tree(self, info: Info | None) -> dict[str, RepoFile]:
        if info is None or info.sha is None:
            return {}
        entries = retry(
            lambda: list(
                HfApi().list_repo_tree(
                    self.repo_id, recursive=True, revision=info.sha, repo_type=self.kind
                )
            )
        )
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def check_id(repo_id: str) -> None:
    """Raise InputError where that can't be a repository's id."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{repo_id!r} is no Hub id (owner/name): {error}") from None
    if "/" not in repo_id:
        raise InputError(f"{repo_id!r} is no Hub id: it names no owner, write owner/name")


@contextmanager
def explain_hub_errors(repo_id: str) -> Iterator[None]:
    """Turn whatever goes wrong with the Hub into one line of ours."""
    try:
        yield
    except BCDError:
        raise
    except Exception as error:
        # huggingface_hub lets through its own errors, httpx's, the disk's and ValueErrors.
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status == HTTP_CONFLICT:
            raise HubError(
                f"the Hub's {repo_id} was changed by somebody else meanwhile: look at it, then "
                "run this again"
            ) from None
        raise HubError(reason(error, repo_id)) from None


def require_token() -> None:
    """Raise InputError where there is no token to publish with."""
    if not get_token():
        raise InputError("no Hub token: set HF_TOKEN, or run `hf auth login` once")


def check_download(content: Content, folder: Path) -> int:
    """Compare a downloaded repository with what it shall hold.

    Returns:
        How many files are equal: all of them.

    Raises:
        HubError: One is missing, too many or other.
    """
    expected = content.list_files()
    downloaded = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    }
    odd = sorted((downloaded - {HUB_OWN_FILE}) ^ expected.keys())
    shared = downloaded & expected.keys()
    odd += [name for name in shared if not cmp(expected[name], folder / name, shallow=False)]
    if odd:
        raise HubError(f"what the Hub gives back is not what was published: {odd[0]} differs")
    return len(expected)


def _is_same(path: Path, there: RepoFile) -> bool:
    """Return whether a file is the Hub's, by what it keeps of it: SHA-256 or git's SHA-1."""
    if path.stat().st_size != there.size:
        return False
    if there.lfs:
        return _hash_file(path, "sha256") == there.lfs.sha256
    return _hash_file(path, "sha1", f"blob {there.size}\0".encode()) == there.blob_id


def _hash_file(path: Path, kind: str, before: bytes = b"") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, before)).hexdigest()
