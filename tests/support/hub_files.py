"""The loopback Hub's uploads and downloads of files."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

from tests.support.hub_http import WEB, Handler, Refusal, route
from tests.support.hub_store import Repo


@route("POST", WEB + "/info/lfs/objects/batch")
def lfs_batch(ask: Handler, repo: Repo) -> None:
    ask.writer()
    ask.room()
    objects = []
    for wanted in ask.read_json()["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in ask.hub.store.objects:
            answer["actions"] = {
                "upload": {"href": f"{ask.hub.cdn}/upload/{wanted['oid']}"},
                "verify": {"href": f"{ask.hub.url}/{repo.prefix}{repo.id}/lfs-verify"},
            }
        objects.append(answer)
    ask.send_json({"transfer": "basic", "objects": objects})


@route("PUT", "/upload/(?P<sha256>[0-9a-f]{64})")
def upload(ask: Handler, sha256: str) -> None:
    ask.room()
    if hashlib.sha256(ask.body).hexdigest() != sha256:
        raise Refusal(400, "the bytes don't match the hash they were announced with")
    ask.hub.store.keep(ask.body)
    ask.send(b"")


@route("POST", WEB + "/lfs-verify")
def lfs_verify(ask: Handler, repo: Repo) -> None:
    told = ask.read_json()
    if len(ask.hub.store.objects.get(told["oid"], b"")) != told["size"]:
        raise Refusal(400, f"{told['oid']} did not arrive whole")
    ask.send_json({})


@route("GET HEAD", WEB + "/(?:resolve|raw)/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(ask: Handler, repo: Repo, revision: str, path: str) -> None:
    commit = ask.commit_at(repo, revision)
    headers = {"X-Repo-Commit": commit.oid}
    file = commit.files.get(path)
    if file is None:
        raise Refusal(404, "Entry not found", "EntryNotFound", **headers)
    headers |= {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    if file.large:
        headers |= {
            "X-Linked-ETag": f'"{file.etag}"',
            "X-Linked-Size": str(file.size),
            "Location": f"{ask.hub.cdn}/cdn/{file.sha256}/{quote(path)}",
        }
        ask.send(b"Found. Redirecting", 302, headers)
        return
    _send_range(ask, ask.hub.store.objects[file.sha256], headers)


@route("GET HEAD", "/cdn/(?P<sha256>[0-9a-f]{64})/(?P<path>.+)")
def content(ask: Handler, sha256: str, path: str) -> None:
    _send_range(ask, ask.hub.store.objects[sha256], {"ETag": f'"{sha256}"'})


def _send_range(ask: Handler, data: bytes, headers: dict[str, str]) -> None:
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", ask.headers.get("Range", ""))
    if not wanted:
        ask.send(data, 200, headers)
        return
    start = int(wanted[1])
    if start >= len(data):
        raise Refusal(416, "Range not satisfiable", **{"Content-Range": f"bytes */{len(data)}"})
    part = data[start : int(wanted[2]) + 1 if wanted[2] else None]
    headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
    ask.send(part, 206, headers)
