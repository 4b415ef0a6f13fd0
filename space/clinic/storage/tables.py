"""The tables.

Times are stored in UTC and come back aware of it. Lengths of texts are checked by the services.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from bcd_models.config import Label
from bcd_models.decision import Decision
from clinic.storage.actor import Role

OWNED = "all, delete-orphan"


class Instant(TypeDecorator[datetime]):
    """A moment: handed over with a time zone, stored in UTC, given back in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Convert to UTC; ValueError where the time zone is missing."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Take as UTC; SQLite gives moments back without a zone."""
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
    type_annotation_map: ClassVar = {
        datetime: Instant,
        dict[str, Any]: JSON,
        list[str]: JSON,
        list[dict[str, Any]]: JSON,
    }


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
    # a doctor's own operating point, "": each model's; None: the installation's
    point: Mapped[str | None] = mapped_column(String(64))


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

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


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
    runtime: Mapped[str] = mapped_column(String(64), default="")  # "": before it was kept
    label: Mapped[Label] = mapped_column(String(16))
    probability: Mapped[float]
    decision: Mapped[Decision] = mapped_column(String(16))
    reasons: Mapped[list[str]]
    threshold: Mapped[float]
    point: Mapped[str] = mapped_column(String(64), default="")  # "": none, or before it was kept
    missed_of_100: Mapped[
        int | None
    ]  # carcinoma patches that it missed in testing; None: not known
    refer_low: Mapped[float | None]
    refer_high: Mapped[float | None]
    heat_sha256: Mapped[str] = mapped_column(String(64), index=True)
    mpp: Mapped[float | None]  # micrometres a pixel; None: not known
    scale: Mapped[str] = mapped_column(String(64), default="")  # "": before it was kept
    # row by row, None where there is no tissue; empty where there is one tile
    tile_probabilities: Mapped[list[list[float | None]]] = mapped_column(JSON, default=list)
    # as in a ``Prediction``; empty too before they were kept
    findings: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    tile_findings: Mapped[list[list[str | None]]] = mapped_column(JSON, default=list)
    ignored: Mapped[list[dict[str, Any]]] = mapped_column(default=list)

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
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - read by its key

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
