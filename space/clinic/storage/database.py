"""How the database behind ``BCD_DATABASE_URL`` is opened, and transactions on it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Dialect, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session

from bcd_models.errors import InputError
from clinic.storage.actor import Refused

BUSY_SECONDS = 30  # how long SQLite waits for another writer
SQLITE, POSTGRESQL = "sqlite", "postgresql"
ADVISORY = 0x6263_6401  # any number, the same in every process


class Database:
    """The engine, and transactions on it.

    Args:
        url: ``sqlite:///PATH``, made where there is none yet, or ``postgresql://...``.
        refused: Called with what came out of a session that asked for another's record, once the
            session is over.

    Raises:
        InputError: The URL is of another database, or can't be read.
        OSError: The file can't be made.
    """

    def __init__(self, url: str, refused: Callable[[Refused], None] | None = None) -> None:
        self.url = _url(url)
        self._refused = refused or (lambda _refusal: None)
        sqlite = self.url.get_backend_name() == SQLITE
        options: dict[str, Any] = (
            {"connect_args": {"timeout": BUSY_SECONDS}}
            if sqlite
            # Whatever the server's default: what others committed before the lock counts.
            else {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
        )
        self.engine: Engine = create_engine(self.url, **options)
        one_moment = {} if sqlite else {"isolation_level": "REPEATABLE READ"}  # SQLite's is one
        self._reading = self.engine.execution_options(reading=True, **one_moment)
        if self.sqlite_file:
            self.sqlite_file.touch(mode=0o600)
            _guard(self.engine, self.sqlite_file)
            event.listen(self.engine, "connect", _set_up_sqlite)
        event.listen(self.engine, "begin", _begin_sqlite if sqlite else _begin_postgresql)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads, all of it as of one moment; no writer waits for it."""
        with self._telling(), Session(self._reading) as session:
            yield session

    @property
    def sqlite_file(self) -> Path | None:
        """The file of a SQLite database; None elsewhere."""
        if self.url.get_backend_name() != SQLITE:
            return None
        return Path(self.url.database or "")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose work is committed at the end, or undone where an error comes out.

        One writes at a time, from the first statement on: what it has looked up still holds when
        it writes. So whatever takes long comes before. Objects stay readable after the commit.
        """
        begun = Session(self.engine, expire_on_commit=False)
        with self._telling(), begun as session, session.begin():
            yield session

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except Refused as refusal:
            self._refused(refusal)
            raise


def _url(text: str) -> URL:
    try:
        url = make_url(text)
    except Exception:
        raise InputError("the database's URL can't be read: look at BCD_DATABASE_URL") from None
    if url.get_backend_name() == POSTGRESQL:
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != SQLITE:
        raise InputError(
            f"no database {url.get_backend_name()!r}: BCD_DATABASE_URL takes sqlite or postgresql"
        )
    return url


def _guard(engine: Engine, file: Path) -> None:
    """Never work on a file that was taken away, nor on an empty one made in its place.

    SQLite does both: what is written then is lost, and an empty database throws the log of the
    taken one away.
    """

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Dialect, _record: Any, _arguments: Any, options: dict[str, Any]) -> Any:
        return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, **options)

    @event.listens_for(engine, "connect")
    def connected(_connection: Any, record: Any) -> None:
        record.info["file"] = _identity(file)

    @event.listens_for(engine, "checkout")
    def taken(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["file"] != _identity(file):
            raise DisconnectionError  # so that it is opened anew, if it is there


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # so that the BEGIN below is the only one
    _use_wal(connection)
    for pragma in ("foreign_keys=ON", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a new database to its log; SQLite itself waits for no other that does so now."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _begin_sqlite(connection: Any) -> None:
    # At once a writer: a reader that turns writer could find the database changed, and fail.
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _begin_postgresql(connection: Any) -> None:
    # As on SQLite, one writer at a time: two that both find something missing would both add it.
    if not connection.get_execution_options().get("reading"):
        connection.execute(select(func.pg_advisory_xact_lock(ADVISORY)))
