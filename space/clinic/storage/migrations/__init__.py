"""Brings a database's tables from any earlier revision to this release's."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from clinic.storage.database import Database

NEWEST = "head"


def migrate(database: Database, revision: str = NEWEST) -> None:
    """Apply what is missing, in one transaction, which all other writers wait for.

    Args:
        database: Empty, or of any earlier revision.
        revision: Which to go to.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
