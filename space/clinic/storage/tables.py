"""The tables, and how the database behind ``BCD_DATABASE_URL`` is opened.

Times are stored in UTC and come back aware of it. Lengths of texts are checked by the services.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    URL,
    CheckConstraint,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from bcd_models.errors import InputError
from clinic.storage.actor import Refused, Role

BUSY_SECONDS = 30  # how long SQLite waits for another writer
SQLITE, POSTGRESQL = "sqlite", "postgresql"
ADVISORY = 0x6263_6401  # any number, the same in every process
OWNED = "all, delete-orphan"


class Instant(TypeDecorator[datetime]):
    """A moment: handed over with a time zone, stored in UTC, given back in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """To UTC; ValueError where the time zone is missing."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """From UTC; SQLite gives moments back without a zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """What all tables share."""

    # Named, so that migrations can speak of them on SQLite too.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {datetime: Instant, dict[str, Any]: JSON, list[str]: JSON}


class Account(Base):
    """Who may sign in."""

    __tablename__ = "account"
    __table_args__ = (CheckConstraint("role IN ('admin', 'doctor')", name="role"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)  # of lower case
    role: Mapped[Role] = mapped_column(String(16))
    password_hash: Mapped[str | None] = mapped_column(String(255))  # None: the Hub signs in only
    hub_name: Mapped[str | None] = mapped_column(String(96), unique=True)
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]
    password_changed_at: Mapped[datetime | None]


class SignIn(Base):
    """A session: whoever shows the token that hashes to this is the account."""

    __tablename__ = "sign_in"

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    account_id: Mapped[int] = mapped_column(
        ForeignKey("account.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    address: Mapped[str] = mapped_column(String(64))

    account: Mapped[Account] = relationship()


class Failures(Base):
    """Sign-ins that failed one after the other, of one account name or one address."""

    __tablename__ = "failures"

    of: Mapped[str] = mapped_column(String(160), primary_key=True)  # "account:…", "address:…"
    count: Mapped[int]
    last_at: Mapped[datetime]
    locked_until: Mapped[datetime | None]


class Patient(Base):
    """A record without a name; ``id`` is issued by the app."""

    __tablename__ = "patient"
    __table_args__ = (
        UniqueConstraint("owner_id", "external_id"),
        Index("patient_of_owner", "owner_id", "archived_at"),
    )

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="RESTRICT"))
    external_id: Mapped[str | None] = mapped_column(String(64))
    birth_year: Mapped[int | None]
    note: Mapped[str] = mapped_column(Text, default="")
    synthetic: Mapped[bool] = mapped_column(default=False)  # a demonstration's, drawn by a program
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column()  # counted up by each change

    owner: Mapped[Account] = relationship()
    examinations: Mapped[list[Examination]] = relationship(
        back_populates="patient", cascade=OWNED, order_by="Examination.created_at"
    )

    __mapper_args__: ClassVar = {"version_id_col": version}


class Examination(Base):
    """A patient's images analysed together."""

    __tablename__ = "examination"
    __table_args__ = (Index("examination_of_patient", "patient_id", "created_at"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    patient_id: Mapped[str] = mapped_column(ForeignKey("patient.id", ondelete="CASCADE"))
    made_by: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="RESTRICT"))
    created_at: Mapped[datetime] = mapped_column(index=True)
    stain: Mapped[str] = mapped_column(String(32))
    specimen: Mapped[str] = mapped_column(String(32))
    comment: Mapped[str] = mapped_column(Text, default="")

    patient: Mapped[Patient] = relationship(back_populates="examinations")
    maker: Mapped[Account] = relationship()
    images: Mapped[list[ExaminedImage]] = relationship(
        back_populates="examination", cascade=OWNED, order_by="ExaminedImage.position"
    )
    reads: Mapped[list[Read]] = relationship(
        back_populates="examination", cascade=OWNED, order_by="Read.number"
    )
    looks: Mapped[list[Look]] = relationship(back_populates="examination", cascade=OWNED)
    reports: Mapped[list[StoredReport]] = relationship(
        back_populates="examination", cascade=OWNED, order_by="StoredReport.made_at"
    )


class ExaminedImage(Base):
    """One image of an examination; its bytes lie in the storage by ``sha256``."""

    __tablename__ = "examined_image"
    __table_args__ = (UniqueConstraint("examination_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    examination_id: Mapped[str] = mapped_column(ForeignKey("examination.id", ondelete="CASCADE"))
    position: Mapped[int]  # from 1
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    format: Mapped[str] = mapped_column(String(8))  # PNG, JPEG, ...
    width: Mapped[int]
    height: Mapped[int]
    field_width_um: Mapped[float | None]  # None: not known

    examination: Mapped[Examination] = relationship(back_populates="images")
    results: Mapped[list[Result]] = relationship(
        back_populates="image", cascade=OWNED, order_by="Result.id"
    )


class Result(Base):
    """What one model said of one image at the time; its heat map lies in the storage."""

    __tablename__ = "result"
    __table_args__ = (
        UniqueConstraint("image_id", "model"),
        Index("result_of_model", "model", "made_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("examined_image.id", ondelete="CASCADE"))
    made_at: Mapped[datetime]
    model: Mapped[str] = mapped_column(String(96))
    model_version: Mapped[str] = mapped_column(String(32))
    weights_sha256: Mapped[str] = mapped_column(String(64))
    label: Mapped[str] = mapped_column(String(16))
    probability: Mapped[float]
    decision: Mapped[str] = mapped_column(String(16))
    reasons: Mapped[list[str]]
    threshold: Mapped[float]
    refer_low: Mapped[float | None]
    refer_high: Mapped[float | None]
    heat_sha256: Mapped[str] = mapped_column(String(64), index=True)

    image: Mapped[ExaminedImage] = relationship(back_populates="results")


class Look(Base):
    """That the models' results of an examination were shown to somebody, and when first."""

    __tablename__ = "look"

    examination_id: Mapped[str] = mapped_column(
        ForeignKey("examination.id", ondelete="CASCADE"), primary_key=True
    )
    account_id: Mapped[int] = mapped_column(
        ForeignKey("account.id", ondelete="RESTRICT"), primary_key=True
    )
    at: Mapped[datetime]

    examination: Mapped[Examination] = relationship(back_populates="looks")


class ShownImage(Base):
    """That a model's answer about an image was shown to somebody, on any page, and when last."""

    __tablename__ = "shown_image"

    account_id: Mapped[int] = mapped_column(
        ForeignKey("account.id", ondelete="RESTRICT"), primary_key=True
    )
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    at: Mapped[datetime]


class Read(Base):
    """A pathologist's verdict; an amendment is a further row, never a change of this one."""

    __tablename__ = "read"
    __table_args__ = (
        UniqueConstraint("examination_id", "number"),
        CheckConstraint("verdict IN ('invasive', 'none', 'indeterminate')", name="verdict"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    examination_id: Mapped[str] = mapped_column(ForeignKey("examination.id", ondelete="CASCADE"))
    number: Mapped[int]  # from 1; the largest counts
    verdict: Mapped[str] = mapped_column(String(16))
    comment: Mapped[str] = mapped_column(Text, default="")
    reason: Mapped[str] = mapped_column(Text, default="")  # of an amendment
    by: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="RESTRICT"))
    at: Mapped[datetime]
    result_shown: Mapped[bool]  # had answers about its images been shown to the reader before?

    examination: Mapped[Examination] = relationship(back_populates="reads")
    reader: Mapped[Account] = relationship()


class StoredReport(Base):
    """A report as it was handed out; its bytes lie in the storage by ``sha256``."""

    __tablename__ = "report"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    examination_id: Mapped[str] = mapped_column(
        ForeignKey("examination.id", ondelete="CASCADE"), index=True
    )
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    made_at: Mapped[datetime]
    made_by: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="RESTRICT"))

    examination: Mapped[Examination] = relationship(back_populates="reports")


class Tally(Base):
    """How many there are of something; see ``clinic.storage.tallies``."""

    __tablename__ = "tally"
    __table_args__: ClassVar = {"sqlite_with_rowid": False}  # read in the order of its key

    owner_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    model: Mapped[str] = mapped_column(String(196), primary_key=True)
    span: Mapped[str] = mapped_column(String(11), primary_key=True)
    key: Mapped[str] = mapped_column(String(32), primary_key=True)
    count: Mapped[int]


class AuditEntry(Base):
    """One act; ``mac`` chains it to the entry before, with a key that is not in the database."""

    __tablename__ = "audit_entry"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1, no gap
    at: Mapped[datetime]
    account_id: Mapped[int | None]
    account_name: Mapped[str] = mapped_column(String(64))  # "" for a stranger
    action: Mapped[str] = mapped_column(String(48), index=True)
    subject: Mapped[str] = mapped_column(String(64), index=True)  # "patient P-…", "account ada"
    address: Mapped[str] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]]
    mac: Mapped[str] = mapped_column(String(64))


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
            {"connect_args": {"timeout": BUSY_SECONDS}} if sqlite else {"pool_pre_ping": True}
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
