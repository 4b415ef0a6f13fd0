"""Installations on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clinic import clock
from clinic.db import Account
from clinic.installation import Installation
from clinic.permissions import Actor, Role
from tests.support.clinic import DATABASES, empty_database, installation_at


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database of each kind; "": SQLite in the data folder."""
    if request.param == "sqlite":
        yield ""
        return
    with empty_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture
def clinic(database_url: str, tmp_path: Path) -> Iterator[Installation]:
    """An installation on each kind of database."""
    with installation_at(tmp_path, database_url) as opened:
        yield opened


@pytest.fixture
def doctors(clinic: Installation) -> dict[str, Actor]:
    """Two doctors and an admin; without passwords, whose hashing takes its time."""
    roles: dict[str, Role] = {"admin": "admin", "ada": "doctor", "grace": "doctor"}
    with clinic.database.transaction() as session:
        made = [Account(name=name, role=roles[name], created_at=clock.now()) for name in roles]
        session.add_all(made)
        session.flush()
        return {one.name: Actor(one.id, one.name, one.role, "10.0.0.1") for one in made}


@pytest.fixture
def ada(doctors: dict[str, Actor]) -> Actor:
    """A doctor."""
    return doctors["ada"]
