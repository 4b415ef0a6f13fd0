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
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session

from bcd_models.errors import InputError
from clinic.storage.actor import Refused
from clinic.storage.tables import Base

MAX_WAIT_SECONDS = 30  # how long SQLite waits for another writer
SQLITE, POSTGRESQL = "sqlite", "postgresql"
ADVISORY_LOCK = 0x6263_6401  # any number, the same in every process


class Database:
    """The engine, and transactions on it.

    Args:
        url: ``sqlite:///PATH``, made where there is none yet, or ``postgresql://...``.
        report_refusal: Called with each ``Refused`` that ends a session, once that is over.

    Raises:
        InputError: The URL is of another database, or can't be read.
        OSError: The file can't be made.
    """

    def __init__(self, url: str, report_refusal: Callable[[Refused], None] | None = None) -> None:
        self.url = _parse_url(url)
        self._report_refusal = report_refusal
        sqlite = self.url.get_backend_name() == SQLITE
        options: dict[str, Any] = (
            {"connect_args": {"timeout": MAX_WAIT_SECONDS}}
            if sqlite
            # Whatever the server's default: what others committed before the lock counts.
            else {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
        )
        self.engine: Engine = create_engine(self.url, **options)
        one_moment = {} if sqlite else {"isolation_level": "REPEATABLE READ"}  # SQLite's is one
        self._read_engine = self.engine.execution_options(reading=True, **one_moment)
        if self.sqlite_file:
            self.sqlite_file.touch(mode=0o600)
            _refuse_replaced_file(self.engine, self.sqlite_file)
            event.listen(self.engine, "connect", _set_up_sqlite)
        event.listen(self.engine, "begin", _begin_sqlite if sqlite else _begin_postgresql)

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Yield a session that only reads, all of it as of one moment; no writer waits for it."""
        with self._report_refusals(), Session(self._read_engine) as session:
            yield session

    @property
    def sqlite_file(self) -> Path | None:
        """The file of a SQLite database; None elsewhere."""
        if self.url.get_backend_name() != SQLITE:
            return None
        return Path(self.url.database or "")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session whose work is committed at the end, or undone where an error comes out.

        One writes at a time, from the first statement on: what it has looked up still holds when
        it writes. So whatever takes long comes before. Objects stay readable after the commit.
        """
        with self._report_refusals(), Session(self.engine, expire_on_commit=False) as session:
            with session.begin():
                yield session

    @contextmanager
    def _report_refusals(self) -> Iterator[None]:
        try:
            yield
        except Refused as refusal:
            if self._report_refusal:
                self._report_refusal(refusal)
            raise


def build_insert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """Return an insert that can update rows which are there, in the database's own dialect."""
    is_postgresql = session.get_bind().dialect.name == POSTGRESQL
    return postgresql.Insert(table) if is_postgresql else sqlite.Insert(table)


def _parse_url(text: str) -> URL:
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


def _refuse_replaced_file(engine: Engine, file: Path) -> None:
    """Never work on a file that was removed, nor on an empty one made in its place."""
    # SQLite does both: what is written then is lost, and an empty database throws the log of the
    # taken one away.

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Dialect, _record: Any, _arguments: Any, options: dict[str, Any]) -> Any:
        return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, **options)

    @event.listens_for(engine, "connect")
    def remember(_connection: Any, record: Any) -> None:
        record.info["file"] = _identify(file)

    @event.listens_for(engine, "checkout")
    def compare(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["file"] != _identify(file):
            raise DisconnectionError  # so that it is opened again, if it is there


def _identify(file: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # so that the BEGIN below is the only one
    _use_wal(connection)
    for pragma in ("foreign_keys=ON", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a new database to its write-ahead log; SQLite itself waits for no other that does."""
    until = time.monotonic() + MAX_WAIT_SECONDS
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
        connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
