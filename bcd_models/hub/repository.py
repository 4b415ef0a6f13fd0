"""The Hugging Face Hub: whole files of one commit, one commit a push, errors in one line.

huggingface_hub does the talking. What it leaves to its caller is here: all files of a load come
from one commit, bytes are checked against the hash they are listed under and thrown out of the
cache where they don't match, and what went wrong is told without ever naming a token.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bcd_models.config import SCHEMA_VERSION
from bcd_models.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

SCHEMA_TAG = f"schema-{SCHEMA_VERSION}"
REACH_SECONDS = 5
MAX_WAIT = 300  # seconds: the window of the Hub's own rate limits
PASSING = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class HubOptions:
    """How files are fetched from the Hub; passed to huggingface_hub as they are.

    Without a revision it is what is tagged for the schema that this library reads, and the main
    branch where nothing is.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


def fetch(
    repo_id: str,
    first: str,
    others: Callable[[Path], Iterable[str]],
    optional: Callable[[Path], Iterable[str]],
    options: HubOptions,
) -> Path:
    """Download files of one commit of a model repository into the cache.

    Args:
        repo_id: "owner/name".
        first: The file that is fetched first; the commit it comes from is everyone's.
        others: Given that file's folder, the further files needed.
        optional: The same, of files that come along where the repository has them.
        options: Revision, token, cache.

    Returns:
        The commit's folder in the cache.

    Raises:
        HubError: A file can't be had; the message says why and what to do.
    """
    if options.force_download and options.local_files_only:
        raise HubError("force_download and local_files_only contradict each other: choose one")
    check_token(options.token)
    folder = _fetch_first(repo_id, first, options).parent
    pinned = replace(options, revision=folder.name)
    for name in others(folder):
        _file(repo_id, name, pinned)
    for name in optional(folder):
        if _may_exist(repo_id, name, pinned):
            with suppress(HubError):  # it need not be there
                _file(repo_id, name, pinned)
    return folder


def push(
    folder: Path,
    repo_id: str,
    message: str,
    token: str | None,
    private: bool | None,
) -> str:
    """Upload a folder as a model repository in one commit, or in none where nothing changed.

    Returns:
        The address of the commit that now holds the folder's files.

    Raises:
        HubError: The Hub refuses, or stays out of reach.
    """
    from huggingface_hub import HfApi

    check_token(token)
    api = HfApi(token=token)

    def upload() -> str:
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(folder_path=folder, repo_id=repo.repo_id, commit_message=message)
        tag_schema(api, repo.repo_id, str(commit.oid))
        return str(commit.commit_url)

    # As a whole it can be repeated: what has arrived is not sent again, nor committed twice.
    return _call_hub(upload, repo_id, tries=5)


def tag_schema(api: HfApi, repo_id: str, commit: str) -> None:
    """Let the tag of this library's schema name a commit, whatever it named before."""
    refs = api.list_repo_refs(repo_id)
    named = {tag.name: tag.target_commit for tag in refs.tags}
    if named.get(SCHEMA_TAG) == commit:
        return
    if SCHEMA_TAG in named:
        api.delete_tag(repo_id, tag=SCHEMA_TAG)
    api.create_tag(repo_id, tag=SCHEMA_TAG, revision=commit)


def reach() -> None:
    """Ask the Hub for the head of its first page, once.

    Raises:
        HubError: Nothing answers there, or with an error of its own.
    """
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_SECONDS).raise_for_status()
    except Exception as error:
        raise HubError(reason(error, constants.ENDPOINT)) from None


def check_token(token: str | bool | None) -> None:
    """Refuse what no request can carry; the error of whoever tried would show the token."""
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and token.strip()):
        raise HubError("the token is empty or holds a line break or letter that no token has")


def reason(error: BaseException, repo_id: str) -> str:
    """What went wrong with a repository, and what to do, on one line that holds no token."""
    from huggingface_hub import errors

    error = _root(error)
    told = {
        errors.GatedRepoError: f"the Hub's {repo_id} is gated: ask for access on its page, then "
        "pass your token",
        errors.RepositoryNotFoundError: f"the Hub has no {repo_id}, or it is private: check the "
        "name, or pass a token that may read it",
        errors.LocalTokenNotFoundError: "no token is saved on this machine: run hf auth login, or "
        "pass one",
        errors.HFValidationError: f"{repo_id} is no Hub id (owner/name)",
        errors.OfflineModeIsEnabled: "HF_HUB_OFFLINE is set: unset it",
    }
    for kind, text in told.items():
        if isinstance(error, kind):
            return text
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"the Hub's {repo_id} is not in the cache, and {_why_no_network(error)}"
    if status := _status(error):
        return _about_status(status, error, repo_id)
    if isinstance(error, OSError) and error.errno:
        return f"{error.filename or 'the cache'} can't be written: {error.strerror}"
    if isinstance(error, ValueError):  # a card's metadata, for one
        return f"the Hub's {repo_id} can't be used: {_one_line(error)}"
    # No more of it is shown: an error of the connection may quote the token.
    return f"the connection to the Hub failed ({type(error).__name__}): try again"


class _NoRevisionError(HubError):
    """A revision that the repository, or without the network the cache, doesn't hold."""


def _fetch_first(repo_id: str, name: str, options: HubOptions) -> Path:
    if options.revision is None:
        with suppress(_NoRevisionError):
            return _file(repo_id, name, replace(options, revision=SCHEMA_TAG))
    return _file(repo_id, name, options)


def _file(repo_id: str, name: str, options: HubOptions) -> Path:
    """A file's path in the cache, its bytes checked; what doesn't match is fetched once more."""
    for _ in range(2):
        path = _download(repo_id, name, options)
        if _is_whole(path):
            return path
        _discard(path)
    raise HubError(f"the Hub's bytes of {repo_id}/{name} don't match their hash: try again later")


def _download(repo_id: str, name: str, options: HubOptions) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RevisionNotFoundError,
    )

    def call() -> Path:
        try:
            return Path(hf_hub_download(repo_id, name, **vars(options)))
        except RemoteEntryNotFoundError:
            raise HubError(
                f"the Hub's {repo_id} has no {name}: not a model of bcd-models, whose weights are "
                "always safetensors, never pickles"
            ) from None
        except LocalEntryNotFoundError as error:
            raise (_NoRevisionError if options.revision == SCHEMA_TAG else HubError)(
                reason(error, repo_id)
            ) from None
        except RevisionNotFoundError:
            raise _NoRevisionError(
                f"the Hub's {repo_id} has no revision {options.revision}: name a branch, tag or "
                "commit of it"
            ) from None

    return _call_hub(call, repo_id, tries=2)  # huggingface_hub itself has tried more often


def _may_exist(repo_id: str, name: str, options: HubOptions) -> bool:
    """Whether to ask for a file that need not be there.

    Once known to be absent from a commit it always is, and huggingface_hub would wait for the
    network each time; without the network only what is in the cache can be had.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(
        repo_id, name, cache_dir=options.cache_dir, revision=options.revision
    )
    return isinstance(cached, str) or (cached is None and not options.local_files_only)


def _is_whole(path: Path) -> bool:
    """Whether a cached file's bytes are those that the Hub lists it with.

    huggingface_hub checks the length alone. It names what the cache's links point to after the
    hash: SHA-256 of large files, git's SHA-1 of others. Without links the hash is not known.
    """
    if not path.is_symlink():
        return True
    try:
        wanted, data = path.readlink().name, path.read_bytes()
    except FileNotFoundError:  # another process has just discarded it
        return False
    except OSError as error:
        raise HubError(f"{path} can't be read: {error.strerror}") from None
    if re.fullmatch("[0-9a-f]{64}", wanted):
        return hashlib.sha256(data).hexdigest() == wanted
    if re.fullmatch("[0-9a-f]{40}", wanted):
        return _git_sha1(data) == wanted
    return True


def _git_sha1(data: bytes) -> str:
    """What git names bytes by; it is the Hub's choice, and guards against accidents alone."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _discard(path: Path) -> None:
    """Take a file out of the cache, and with it out of every commit that holds the same bytes."""
    try:
        with suppress(FileNotFoundError):  # another process may be at it too
            (path.parent / path.readlink()).unlink()
        path.unlink(missing_ok=True)
    except OSError as error:
        raise HubError(f"{path} is damaged and can't be removed: {error.strerror}") from None


def retry(call: Callable[[], T], tries: int = 5) -> T:
    """Call the Hub, and again after a wait where what failed may pass.

    Rate limits, 5xx and broken connections may. huggingface_hub repeats uploads and listings by
    itself, not what makes repositories and commits.

    Raises:
        Exception: Whatever the last call raised.
    """
    for attempt in range(tries - 1):
        try:
            return call()
        except Exception as error:
            # huggingface_hub lets through nearly anything: its own errors, httpx's, the disk's,
            # and ValueErrors and RuntimeErrors around them.
            if not _may_pass(error):
                raise
            time.sleep(max(2**attempt, _asked_to_wait(error)))
    return call()


def _call_hub(call: Callable[[], T], repo_id: str, tries: int) -> T:
    """Call the Hub, trying again; HubError says what went wrong in one line."""
    try:
        return retry(call, tries)
    except HubError:
        raise
    except Exception as error:
        raise HubError(reason(error, repo_id)) from None


def _may_pass(error: Exception) -> bool:
    """Whether time may heal it."""
    from huggingface_hub.errors import HfHubHTTPError

    transport_error = HfHubHTTPError.__bases__[0]  # httpx's or httpx2's, by the release
    root, status = _root(error), _status(error)
    # A gateway's page may come where JSON should.
    broken = isinstance(root, (transport_error, json.JSONDecodeError))
    return status in PASSING if status else broken


def _asked_to_wait(error: Exception) -> int:
    """Seconds the Hub asks to wait before the next attempt, 0 where it doesn't say."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    response = getattr(_root(error), "response", None)
    if response is None:
        return 0
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit and limit.remaining == 0:
        return min(limit.reset_in_seconds + 1, MAX_WAIT)
    after = response.headers.get("Retry-After", "")
    return min(int(after), MAX_WAIT) if after.isdigit() else 0


def _root(error: BaseException) -> BaseException:
    """What huggingface_hub wrapped in a RuntimeError or ValueError that says less."""
    while isinstance(error, (RuntimeError, ValueError)) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException | None) -> int | None:
    response = getattr(error and _root(error), "response", None)
    return None if response is None else int(response.status_code)


def _about_status(status: int, error: BaseException, repo_id: str) -> str:
    told = str(getattr(error, "server_message", "") or "").split("\n")[0]
    if status == 401:
        return "the Hub refuses the token: make a new one in your settings there"
    if status == 403:
        return f"the Hub forbids this for {repo_id}: {told or 'use a token that may'}"
    after = "try again later" if status in PASSING else told or "it does not say why"
    return f"the Hub answers {status} for {repo_id}: {after}"


def _why_no_network(error: BaseException) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    cause = error.__cause__
    if cause is None or isinstance(cause, OfflineModeIsEnabled):
        return (
            "the network may not be used: load it once without local_files_only and HF_HUB_OFFLINE"
        )
    status = _status(cause)
    what = f"the Hub answers {status}" if status else "the Hub can't be reached"
    return f"{what}: connect and load it once, or download the folder"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
