"""Installations for tests: on SQLite, and on a real PostgreSQL with a database of their own."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import psycopg
from PIL import Image
from psycopg import sql
from skimage.data import chelsea
from sqlalchemy import select

from clinic.accounts import accounts, sign_ins
from clinic.installation import Installation, open_installation
from clinic.settings import Settings
from clinic.storage.actor import Actor
from clinic.storage.tables import Account
from tests.support.running_app import EXAMPLES

DATABASES = ("sqlite", "postgresql")
PASSWORD = "correct horse battery"  # of every account that tests sign in as
NAMES = ("small-one", "small-b2")  # of the models that tests offer
PATCHES = sorted(EXAMPLES.glob("*.png"))


def draw_photograph() -> bytes:
    """A photograph of a patch's size, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(chelsea()).resize((50, 50)).save(buffer, "PNG")
    return buffer.getvalue()


def draw_mixed_field() -> bytes:
    """Three patches and the photograph, two by two, as PNG."""
    photograph = Image.open(io.BytesIO(draw_photograph()))
    parts = [*(Image.open(path).convert("RGB") for path in PATCHES[:3]), photograph]
    field = Image.new("RGB", (100, 100))
    for place, part in zip(product((0, 50), (0, 50)), parts, strict=True):
        field.paste(part, place)
    buffer = io.BytesIO()
    field.save(buffer, "PNG")
    return buffer.getvalue()


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return what it shows."""
        return self.at

    def move(self, **by: float) -> None:
        """Move it by a ``timedelta`` of these."""
        self.at += timedelta(**by)


def settings_at(folder: Path, database_url: str = "") -> Settings:
    """Settings of an installation that offers no model."""
    return Settings(models=(), data=folder / "data", database_url=database_url)


@contextmanager
def installation_at(folder: Path, database_url: str = "") -> Iterator[Installation]:
    """An installation, its connections closed at the end."""
    opened = open_installation(settings_at(folder, database_url))
    yield opened
    opened.database.engine.dispose()


@contextmanager
def installation_with(folder: Path, *doctors: str) -> Iterator[Installation]:
    """An installation whose data lie in a folder, with an admin and some doctors."""
    opened = open_installation(Settings(models=(), data=folder, admin_password=PASSWORD))
    accounts.create_first_admin(opened)
    for name in doctors:
        accounts.create(opened, actor(opened, "admin"), name, "doctor", PASSWORD)
    yield opened
    opened.database.engine.dispose()


def actor(clinic: Installation, name: str) -> Actor:
    """An account, signed in."""
    token = sign_ins.sign_in(clinic, name, PASSWORD, "10.0.0.9")
    found = sign_ins.find_actor(clinic, token, "10.0.0.9")
    assert found
    return found


@contextmanager
def empty_database(server: str) -> Iterator[str]:
    """URL of a new database on a server; the database goes at the end."""
    name = f"clinic_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield server.rpartition("/")[0] + f"/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            connection.execute(drop)


def actor_named(clinic: Installation, name: str) -> Actor:
    """An account by its name, as if it had signed in."""
    with clinic.database.snapshot() as session:
        account = session.scalars(select(Account).where(Account.name == name)).one()
        return Actor(account.id, account.name, account.role, "10.0.0.9")
