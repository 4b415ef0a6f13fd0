"""Installations on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clinic.installation import Installation
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
