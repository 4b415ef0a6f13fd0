"""A copy of an installation in one file, taken while the app runs, and the way back."""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path

from sqlalchemy import NullPool, create_engine
from sqlalchemy.orm import Session

from bcd_models.errors import InputError
from bcd_models.hub.atomic import open_whole
from clinic.installation import Installation
from clinic.settings import DATABASE, Settings
from clinic.storage.audit_log import KEY
from clinic.storage.files import FILES
from clinic.storage.heads import FORMER, HEADS
from clinic.storage.references import list_referenced

MEMBER = re.compile(rf"{KEY}|{HEADS}|{FORMER}|{DATABASE}|{FILES}/[0-9a-f]{{2}}/[0-9a-f]{{64}}")


def backup(clinic: Installation, target: Path) -> int:
    """Write a zip of database, stored files and the audit's key and heads: whole, or not at all.

    Of a PostgreSQL database, which its own tools back up, no rows are in it.

    Returns:
        How many stored files are in it.

    Raises:
        InputError: The file is there already, or can't be written.
    """
    if target.exists():
        raise InputError(f"{target} is there already: name another file")
    try:
        # Files can be added meanwhile, none deleted. For its owner alone: it holds the audit's key.
        with (
            clinic.storage.lock_for_saving(),
            open_whole(target, mode=0o600) as file,
            zipfile.ZipFile(file, "w") as archive,
        ):
            return _write(clinic, archive)
    except OSError as error:
        raise InputError(f"{target} can't be written: {error.strerror}") from None


def restore(source: Path, settings: Settings, force: bool = False) -> Path | None:
    """Put a backup's content in place as the data folder.

    Args:
        source: The zip.
        settings: Name the data folder.
        force: Move a data folder that isn't empty aside, instead of refusing.

    Returns:
        Where the former data folder went, or None.

    Raises:
        InputError: The zip is no backup or damaged, or the data folder isn't empty.
    """
    data = settings.data
    in_use = data.exists() and any(data.iterdir())
    if in_use and not force:
        raise InputError(f"{data} is not empty: restore into another folder, or use --force")
    data.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{data.name}.", dir=data.parent))
    try:
        _extract(source, new)
    except InputError:
        shutil.rmtree(new)
        raise
    aside = _find_free_name(data) if in_use else None
    if aside:
        data.rename(aside)
    new.replace(data)
    return aside


def _write(clinic: Installation, archive: zipfile.ZipFile) -> int:
    archive.write(clinic.settings.data / KEY, KEY)
    # Before the rows: heads behind their rows are sound, those ahead of them are not.
    if (clinic.settings.data / HEADS).exists():
        archive.write(clinic.settings.data / HEADS, HEADS)
    with clinic.database.snapshot() as session:
        named = sorted(list_referenced(session))
    if clinic.database.sqlite_file:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / DATABASE
            named = sorted({*named, *_copy_database(clinic.database.sqlite_file, copy)})
            archive.write(copy, DATABASE)
    for sha256 in named:
        archive.write(clinic.storage.path(sha256), f"{FILES}/{sha256[:2]}/{sha256}")
    return len(named)


def _copy_database(database: Path, copy: Path) -> set[str]:
    """Copy a SQLite database as of one moment; returns the hashes that its rows name."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    engine = create_engine(f"sqlite:///{copy}", poolclass=NullPool)
    with Session(engine) as session:
        return list_referenced(session)


def _extract(source: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
            if odd := [name for name in names if not MEMBER.fullmatch(name)]:
                raise InputError(f"{source} is no backup: it holds {odd[0]!r}")
            if KEY not in names:
                raise InputError(f"{source} is no backup: it holds no {KEY}")
            archive.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{source} can't be read: {error}") from None
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


def _find_free_name(data: Path) -> Path:
    number = 1
    while (aside := data.with_name(f"{data.name}.before-{number}")).exists():
        number += 1
    return aside
