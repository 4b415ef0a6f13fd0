"""The whole app in the tests' own process, called as browsers and scripts call it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal
from httpx2 import Response
from starlette.testclient import TestClient

from clinic.accounts import passwords
from clinic.analysis.models import Models
from clinic.http.gate import Gate
from clinic.http.grants import Grants
from clinic.installation import Installation
from clinic.records import patients
from clinic.records.patient_fields import PatientForm
from clinic.storage import clock
from clinic.storage.actor import Actor, Role
from clinic.storage.tables import Account
from tests.support.clinic import PASSWORD, installation_at

SITE = "http://clinic.example"
PAGE = {"accept": "text/html"}
FORM = {**PAGE, "content-type": "application/x-www-form-urlencoded"}


@cache
def _password_hash() -> str:
    return passwords.hash_password(PASSWORD)


def add_account(clinic: Installation, role: Role = "doctor") -> Actor:
    """A new account whose password is ``PASSWORD``; hashed once, as that takes its time."""
    name = f"{role}-{secrets.token_hex(4)}"
    with clinic.database.transaction() as session:
        account = Account(
            name=name, role=role, password_hash=_password_hash(), created_at=clock.now()
        )
        session.add(account)
        session.flush()
        return Actor(account.id, name, role, "10.0.0.1")


@dataclass(frozen=True)
class Serving:
    """The running app.

    Attributes:
        clinic: Its installation.
        models: On offer.
        folder: Where Gradio keeps its files.
        gate: What is served.
        portal: To the loop that it runs in.
    """

    clinic: Installation
    models: Models
    folder: Path
    gate: Gate
    portal: BlockingPortal

    def visitor(self, actor: Actor | None = None, address: str = "", **headers: str) -> TestClient:
        """Somebody with cookies and an address of their own, signed in where there is an actor."""
        address = address or ".".join(str(10 + secrets.randbelow(240)) for _ in range(4))
        client = TestClient(
            self.gate, SITE, headers=headers, follow_redirects=False, client=(address, 5000)
        )
        client.portal = self.portal
        if actor:
            assert sign_in(client, actor.name).status_code == 200
        return client

    def raw(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Iterable[bytes] = (),
    ) -> tuple[int, str]:
        """Status and text of a request that no client has put in order; of a stream its begin."""
        names = {"host": "clinic.example", **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.encode(), text.encode()) for name, text in names.items()],
        }
        answered: tuple[int, str] = self.portal.call(_raw, self.gate, scope, iter(body))
        return answered

    def set_up(self, **settings: Any) -> Serving:
        """The same apps with other settings."""
        from clinic.web import build_own_app

        clinic = replace(self.clinic, settings=self.clinic.settings.model_copy(update=settings))
        grants = Grants()
        own = build_own_app(clinic, self.models, self.folder, grants)
        apps = replace(self.gate.apps, own=own)
        gate = replace(self.gate, clinic=clinic, apps=apps, grants=grants)
        return replace(self, clinic=clinic, gate=gate)

    def files(self) -> list[Path]:
        """What lies in Gradio's folder."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


@dataclass
class SignedIn:
    """A doctor of the running app, signed in, with a patient that nobody else has."""

    serving: Serving
    actor: Actor
    client: TestClient
    patient: str

    @property
    def clinic(self) -> Installation:
        """Where the doctor works."""
        return self.serving.clinic


def sign_in_doctor(serving: Serving) -> SignedIn:
    """Sign in a new doctor of the running app."""
    actor = add_account(serving.clinic)
    patient = patients.create(serving.clinic, actor, PatientForm())
    return SignedIn(serving, actor, serving.visitor(actor), patient)


async def _raw(gate: Gate, scope: dict[str, Any], body: Iterator[bytes]) -> tuple[int, str]:
    pieces: Iterator[dict[str, Any]] = chain(
        ({"body": piece, "more_body": True} for piece in body), [{"body": b""}]
    )
    begun, status, parts = asyncio.Event(), 0, []

    async def receive() -> dict[str, Any]:
        piece = next(pieces, None)
        if piece is not None:
            return {"type": "http.request", **piece}
        await begun.wait()
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            begun.set()
        parts.append(message.get("body", b""))

    await gate(scope, receive, send)
    return status, b"".join(parts).decode("utf-8", "replace")


@contextmanager
def serving_at(root: Path, models: Models) -> Iterator[Serving]:
    """The app over an installation on SQLite below a folder."""
    folder = root / "gradio"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, installation_at(root) as clinic:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        from clinic.web import build_app  # Gradio reads those while it is imported

        async def built() -> Gate:
            return build_app(clinic, models, folder)

        gate = asyncio.run(built())  # in a loop, or each component makes one and leaves it open
        with TestClient(gate) as running:
            assert running.portal
            yield Serving(clinic, models, folder, gate, running.portal)


def sign_in(client: TestClient, name: str, password: str = PASSWORD, **more: Any) -> Response:
    """Sign in as a script does, or as a browser with ``headers=FORM``."""
    given = {"username": name, "password": password, **more.pop("data", {})}
    return client.post("/login", data=given, **more)


def upload(client: TestClient, data: bytes, name: str = "patch.png") -> str:
    """Hand in a file; returns the path to name it by."""
    reply = client.post("/gradio_api/upload", files={"files": (name, data)})
    assert reply.status_code == 200
    (path,) = reply.json()
    return str(path)


def in_json(path: str) -> dict[str, Any]:
    """A file as an input of a call."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def start_call(client: TestClient, endpoint: str, *data: Any) -> str:
    """Call an endpoint; returns the event."""
    reply = client.post(f"/gradio_api/call/{endpoint}", json={"data": data})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["event_id"])


def answer(client: TestClient, endpoint: str, *data: Any) -> list[Any]:
    """Call an endpoint and wait; returns what it answers."""
    event = start_call(client, endpoint, *data)
    stream = client.get(f"/gradio_api/call/{endpoint}/{event}").text
    assert "event: complete" in stream, stream
    answered: list[Any] = json.loads(stream.rpartition("data: ")[2])
    return answered
