"""The loopback Hub's answers about repositories: one function a kind of request."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.support.hub_http import REPO, Handler, Refusal, route
from tests.support.hub_store import MAIN, Commit, File, Repo, is_large

SDKS = ("gradio", "docker", "static", "streamlit")


@route("HEAD", "/")
def first_page(ask: Handler) -> None:
    ask.send(b"")


@route("GET", "/api/whoami-v2")
def whoami(ask: Handler) -> None:
    if ask.rights is None:
        raise Refusal(401, "Invalid username or password.")
    role = "write" if ask.rights.write else "read"
    access = {"displayName": "loopback", "role": role, "createdAt": "2026-01-01T00:00:00.000Z"}
    auth = {"type": "access_token", "accessToken": access}
    ask.send_json(
        {"type": "user", "name": ask.rights.name, "fullname": "", "orgs": [], "auth": auth}
    )


@route("POST", "/api/validate-yaml")
def validate_yaml(ask: Handler) -> None:
    asked = ask.read_json()
    errors, warnings = _check_card(asked["content"], asked["repoType"])
    ask.send_json({"errors": errors, "warnings": warnings}, 400 if errors else 200)


@route("POST", "/api/repos/create")
def create_repo(ask: Handler) -> None:
    author = ask.writer()
    asked = ask.read_json()
    kind = asked.get("type") or "model"
    repo_id = f"{asked.get('organization') or author}/{asked['name']}"
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    repo = Repo(repo_id, kind, private, sdk=asked.get("sdk"))
    with ask.hub.store.lock:
        there = (kind, repo_id) in ask.hub.store.repos
        if not there:
            ask.hub.store.create(repo, author)
    document = {"url": f"{ask.hub.url}/{repo.prefix}{repo_id}", "name": repo_id}
    if there:
        document["error"] = f"You already created this {kind} repo"
    ask.send_json(document, 409 if there else 200)


@route("DELETE", "/api/repos/delete")
def delete_repo(ask: Handler) -> None:
    author = ask.writer()
    asked = ask.read_json()
    repo_id = f"{asked.get('organization') or author}/{asked['name']}"
    repo = ask._repo(asked.get("type") or "model", repo_id)
    del ask.hub.store.repos[repo.kind, repo.id]
    ask.send_json({})


@route("GET", REPO + r"(?:/revision/(?P<revision>[^/]+))?")
def info(ask: Handler, repo: Repo, revision: str) -> None:
    commit = ask.commit_at(repo, revision or MAIN)
    ask.send_json(_info(repo, commit, _card(ask, commit), bool(ask.query.get("blobs"))))


def _card(ask: Handler, commit: Commit) -> Any:
    file = commit.files.get("README.md")
    text = ask.hub.store.objects[file.sha256].decode() if file else ""
    return front_matter(text)


@route("GET", REPO + "/auth-check")
def auth_check(ask: Handler, repo: Repo) -> None:
    ask.commit_at(repo, MAIN)
    ask.send_json({})


@route("GET", REPO + "/refs")
def refs(ask: Handler, repo: Repo) -> None:
    heads = {name: commits[-1].oid for name, commits in repo.branches.items()}
    tags = {name: commit.oid for name, commit in repo.tags.items()}
    ask.send_json(
        {
            "branches": [_ref("heads", *pair) for pair in heads.items()],
            "tags": [_ref("tags", *pair) for pair in tags.items()],
            "converts": [],
            "pullRequests": [],
        }
    )


@route("GET", REPO + "/commits/(?P<revision>[^/]+)")
def commits(ask: Handler, repo: Repo, revision: str) -> None:
    ask.commit_at(repo, revision)
    ask.send_json(
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
def add_ref(ask: Handler, repo: Repo, what: str, name: str) -> None:
    ask.writer()
    asked = ask.read_json() if ask.body else {}
    if name in (repo.branches if what == "branch" else repo.tags):
        raise Refusal(409, f"{what} {name} already exists")
    if what == "tag":  # a tag's address names what is tagged
        repo.tags[asked["tag"]] = ask.commit_at(repo, name)
    else:
        start = asked.get("startingPoint") or MAIN
        ask.commit_at(repo, start)
        repo.branches[name] = list(repo.history(start) or [])
    ask.send_json({})


@route("DELETE", REPO + "/tag/(?P<name>[^/]+)")
def remove_tag(ask: Handler, repo: Repo, name: str) -> None:
    ask.writer()
    if repo.tags.pop(name, None) is None:
        raise Refusal(404, f"there is no tag {name}")
    ask.send_json({})


@route("GET", REPO + "/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
def tree(ask: Handler, repo: Repo, revision: str, path: str) -> None:
    commit = ask.commit_at(repo, revision)
    entries = _entries(commit, path, ask.query.get("recursive", "").lower() == "true")
    if path and not entries:
        raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
    start = int(ask.query.get("cursor", 0))
    end = start + ask.hub.page_size
    headers = {}
    if end < len(entries):
        base = urlsplit(ask.path).path
        query = f"recursive={ask.query.get('recursive', 'False')}&cursor={end}"
        headers["Link"] = f'<{ask.hub.url}{base}?{query}>; rel="next"'
    ask.send_json(entries[start:end], 200, **headers)


@route("POST", REPO + "/paths-info/(?P<revision>[^/]+)")
def paths_info(ask: Handler, repo: Repo, revision: str) -> None:
    commit = ask.commit_at(repo, revision)
    if ask.headers.get("Content-Type", "").startswith("application/json"):
        paths = ask.read_json()["paths"]
    else:
        paths = parse_qs(ask.body.decode()).get("paths", [])
    entries = _entries(commit, "", recursive=True)
    ask.send_json([entry for entry in entries if entry["path"] in paths])


@route("POST", REPO + "/preupload/(?P<revision>[^/]+)")
def preupload(ask: Handler, repo: Repo, revision: str) -> None:
    ask.writer()
    commit = ask.commit_at(repo, revision)
    answers = []
    for asked in ask.read_json()["files"]:
        path, there = asked["path"], commit.files.get(asked["path"])
        large = is_large(path, base64.b64decode(asked["sample"]))
        answer = {
            "path": path,
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": False,
            "oid": there.etag if there else None,
        }
        answers.append(answer)
    ask.send_json({"files": answers})


@route("POST", REPO + "/commit/(?P<revision>[^/]+)")
def commit(ask: Handler, repo: Repo, revision: str) -> None:
    author = ask.writer()
    ask.room()
    lines = [json.loads(line) for line in ask.body.splitlines() if line]
    header = next(line["value"] for line in lines if line["key"] == "header")
    added = {
        line["value"]["path"]: _read_added(ask, line)
        for line in lines
        if line["key"] in ("file", "lfsFile")
    }
    removed = [_read_removed(line) for line in lines if line["key"].startswith("deleted")]
    with ask.hub.store.lock:
        parent = ask.commit_at(repo, revision)
        if header.get("parentCommit") not in (None, parent.oid):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        if revision not in repo.branches:
            raise Refusal(404, f"{revision} is no branch", "RevisionNotFound")
        made = ask.hub.store.commit(
            repo, revision, added, removed, header["summary"], author, header["description"]
        )
    url = f"{ask.hub.url}/{repo.prefix}{repo.id}/commit/{made.oid}"
    ask.send_json({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def front_matter(text: str) -> Any:
    """The YAML between a card's first two lines of dashes; None where there is none."""
    if not text.startswith("---\n") or "\n---" not in text:
        return None
    return yaml.safe_load(text[4:].split("\n---", 1)[0])


def _check_card(text: str, kind: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Errors and warnings on a card's metadata, the gravest of those that the real Hub has."""
    try:
        card = front_matter(text)
    except yaml.YAMLError as error:
        return [{"message": f"invalid YAML: {error}"}], []
    if card is None:
        return [], [{"message": "empty or missing yaml metadata in repo card"}]
    if not isinstance(card, dict):
        return [{"message": "the metadata must be a mapping"}], []
    errors = []
    if kind == "space" and card.get("sdk") not in SDKS:
        errors.append({"message": f'"sdk" must be one of {", ".join(SDKS)}'})
    if not isinstance(card.get("license", ""), (str, list)):
        errors.append({"message": '"license" must be a string'})
    if not isinstance(card.get("tags", []), list):
        errors.append({"message": '"tags" must be an array'})
    return errors, []


def _info(repo: Repo, commit: Commit, card: Any, blobs: bool) -> dict[str, Any]:
    card = card or {}
    first = (repo.history(MAIN) or [commit])[0]
    document = {
        "_id": commit.oid[:24],
        "id": repo.id,
        "author": repo.id.split("/")[0],
        "sha": commit.oid,
        "createdAt": first.date,
        "lastModified": commit.date,
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": card.get("tags", []),
        "cardData": card,
        "siblings": [_sibling(path, file, blobs) for path, file in sorted(commit.files.items())],
    }
    if repo.kind == "model":
        names = {"library_name", "pipeline_tag"} & card.keys()
        document |= {"modelId": repo.id, **{name: card[name] for name in names}}
    if repo.kind == "space":
        document["sdk"] = card.get("sdk") or repo.sdk
    return document


def _sibling(path: str, file: File, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": file.size, "blobId": file.git_oid}
    if blobs and file.large:
        sibling["lfs"] = {"size": file.size, "sha256": file.sha256, "pointerSize": 134}
    return sibling


def _entries(commit: Commit, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """A folder's files and folders as the Hub lists them, ordered by path."""
    inside = f"{folder.rstrip('/')}/" if folder else ""
    entries = {}
    for path, file in commit.files.items():
        if not path.startswith(inside):
            continue
        parts = path.removeprefix(inside).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            parent = inside + "/".join(parts[:depth])
            entries[parent] = {"type": "directory", "oid": commit.oid, "size": 0, "path": parent}
        if recursive or len(parts) == 1:
            entries[path] = _entry(path, file)
    return [entries[path] for path in sorted(entries)]


def _entry(path: str, file: File) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": file.git_oid, "size": file.size, "path": path}
    if file.large:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
    return entry


def _ref(what: str, name: str, oid: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{what}/{name}", "targetCommit": oid}


def _read_added(ask: Handler, line: dict[str, Any]) -> File:
    value = line["value"]
    if line["key"] == "file":
        return ask.hub.store.keep(base64.b64decode(value["content"]))
    if value["oid"] not in ask.hub.store.objects:
        raise Refusal(400, f"no large file {value['oid']} was uploaded for {value['path']}")
    return ask.hub.store.pointer(value["oid"])


def _read_removed(line: dict[str, Any]) -> str:
    path = line["value"]["path"].rstrip("/")
    return f"{path}/" if line["key"] == "deletedFolder" else path
