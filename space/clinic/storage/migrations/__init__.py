"""Brings a database's tables from any earlier revision to this release's."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import func, select

from clinic.storage.database import POSTGRESQL, Database

ADVISORY = 0x6263_6400  # any number, the same in every process
NEWEST = "head"


def migrate(database: Database, revision: str = NEWEST) -> None:
    """Apply what is missing, in one transaction; a second process waits for the first.

    Args:
        database: Empty, or of any earlier revision.
        revision: Which to go to.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with database.engine.begin() as connection:
        if connection.dialect.name == POSTGRESQL:
            connection.execute(select(func.pg_advisory_xact_lock(ADVISORY)))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
