"""Images that some model's answer was shown about, and to whom: what tells whether a read is blind.

An image is known by the SHA-256 of the PNG that is stored of its pixels once it is saved, so by its
pixels alone, whatever file they come in.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from datetime import timedelta

from PIL import Image
from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from clinic.storage import clock
from clinic.storage.actor import Actor
from clinic.storage.database import Database, build_insert
from clinic.storage.tables import ExaminedImage, ShownImage

MAX_AGE_UNSAVED = timedelta(days=90)  # far beyond the weeks after which readers forget an image


def encode_png(image: Image.Image) -> bytes:
    """Return an image as PNG, without a profile or anything else that its file said."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", icc_profile=None, transparency=None)
    return buffer.getvalue()


def hash_png(png: bytes) -> str:
    """Return what an image is known by, given the PNG of its pixels."""
    return hashlib.sha256(png).hexdigest()


def note_shown(session: Session, account_id: int, hashes: Iterable[str]) -> None:
    """Keep that an answer about each of some images was shown to an account just now."""
    now = clock.now()
    rows = [{"account_id": account_id, "sha256": sha256, "at": now} for sha256 in {*hashes}]
    if not rows:
        return
    insert = build_insert(session, ShownImage)
    again = {"at": insert.excluded.at}
    session.execute(
        insert.on_conflict_do_update(index_elements=["account_id", "sha256"], set_=again), rows
    )


def note_shown_to(database: Database, actor: Actor | None, images: Iterable[Image.Image]) -> None:
    """Keep that answers about some opened images go out to whoever is signed in.

    To be called before they do. Of guests nothing is kept, and ``images`` isn't read.
    """
    if actor is None:
        return
    hashes = [hash_png(encode_png(image)) for image in images]  # takes long, so before the writing
    with database.transaction() as session:
        note_shown(session, actor.account_id, hashes)


def were_shown(session: Session, account_id: int, hashes: Iterable[str]) -> bool:
    """Return whether an answer about any of some images was shown to an account."""
    of_account = select(ShownImage.sha256).where(ShownImage.account_id == account_id)
    found = session.scalar(of_account.where(ShownImage.sha256.in_({*hashes})).limit(1))
    return found is not None


def forget_deleted(session: Session, hashes: Iterable[str]) -> None:
    """Delete the rows of those of some images that no examination names any more."""
    session.execute(delete(ShownImage).where(ShownImage.sha256.in_({*hashes}), _is_unsaved()))


def forget_old(session: Session) -> None:
    """Delete rows older than ``MAX_AGE_UNSAVED`` whose images no examination names."""
    before = clock.now() - MAX_AGE_UNSAVED
    session.execute(delete(ShownImage).where(ShownImage.at < before, _is_unsaved()))


def _is_unsaved() -> ColumnElement[bool]:
    named = select(ExaminedImage.id).where(ExaminedImage.sha256 == ShownImage.sha256)
    return ~named.exists()
