"""What an admin sees of the installation itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete

from clinic.accounts import sign_ins
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.storage import clock
from clinic.storage.actor import Actor
from clinic.storage.database import Database
from clinic.storage.tables import AuditEntry, SignIn
from clinic.upkeep import system
from tests.support.clinic import settings_at


@pytest.fixture
def admin(doctors: dict[str, Actor]) -> Actor:
    return next(one for one in doctors.values() if one.role == "admin")


def begun(clinic: Installation, actor: Actor, token: str, hours: float = 1) -> None:
    """A session that was used just now."""
    now = clock.now()
    expires = now + timedelta(hours=hours)
    with clinic.database.transaction() as session:
        session.add(
            SignIn(
                token_sha256=token * 64,
                account_id=actor.account_id,
                created_at=now - timedelta(hours=2),
                seen_at=now,
                expires_at=expires,
                address="10.0.0.7",
            )
        )


def faults(clinic: Installation, admin: Actor, models: Models) -> dict[str, str]:
    return {one.name: one.fault for one in system.check_health(clinic, admin, models) if one.fault}


def test_open_sessions_are_listed_without_what_opens_them(clinic, admin, ada) -> None:
    begun(clinic, ada, "a")
    begun(clinic, admin, "b", hours=-1)
    (row,) = sign_ins.list_open_sessions(clinic, admin).rows
    assert (row.account_id, row.account, row.address) == (ada.account_id, "ada", "10.0.0.7")
    assert row.seen_at - row.created_at == timedelta(hours=2)
    assert "a" * 64 not in repr(row)


def test_weights_that_gave_answers_are_listed_beside_those_on_offer(
    clinic, admin, saved, small_models, tmp_path
) -> None:
    saved()
    one, other = system.list_models_in_use(clinic, admin, small_models)
    assert [one.name, other.name] == small_models.names
    assert one.weights_sha256 == small_models.describe(one.name).weights_sha256
    assert (one.offered, one.answers) == (True, 2)
    assert one.newest is not None

    left = Models([str(small_models.describe(other.name).folder)])
    first, gone = system.list_models_in_use(clinic, admin, left)
    assert (first.name, first.offered) == (other.name, True)
    assert (gone.name, gone.offered, gone.answers) == (one.name, False, 2)


def test_a_model_that_never_answered_has_no_newest_answer(clinic, admin, small_models) -> None:
    known = system.list_models_in_use(clinic, admin, small_models)
    assert [(one.answers, one.newest) for one in known] == [(0, None)] * 2


def test_room_is_that_of_all_records(clinic, admin, saved: Callable[..., str]) -> None:
    saved()
    room = system.measure_room(clinic, admin)
    stored = [clinic.storage.path(sha256).stat().st_size for sha256 in clinic.storage.list_hashes()]
    assert (room.patients, room.examinations) == (1, 1)
    assert (room.files, room.file_bytes) == (len(stored), sum(stored))
    assert len(stored) == 6  # two images, two heat maps of each
    file = clinic.database.sqlite_file
    assert room.database == ("SQLite" if file else "PostgreSQL")
    assert (room.database_bytes or 0) > (100_000 if file else -1)
    assert room.free_bytes > 0


def test_all_is_well_at_first(clinic, admin, saved, small_models) -> None:
    saved()
    assert [one.name for one in system.check_health(clinic, admin, small_models)] == [
        "Database",
        "Room on the disk",
        "Audit log",
        *(f"Model {name}" for name in small_models.names),
    ]
    assert not faults(clinic, admin, small_models)


def test_a_full_disk_is_told(clinic, admin, small_models, monkeypatch) -> None:
    monkeypatch.setattr(system, "MIN_FREE_BYTES", 1 << 60)
    assert "uploads are refused" in faults(clinic, admin, small_models)["Room on the disk"]


def test_a_log_that_was_cut_off_is_told(clinic, admin, saved, small_models) -> None:
    saved()
    newest = clinic.log.read_head().number
    with clinic.database.transaction() as session:
        session.execute(delete(AuditEntry).where(AuditEntry.number == newest))
    told = "rows were cut off: run python -m clinic verify"  # and no number, as anybody may ask
    assert faults(clinic, admin, small_models)["Audit log"] == told
    for _ in range(3):  # and once others have grown in their place
        saved()
        assert faults(clinic, admin, small_models)["Audit log"] == told
    (clinic.settings.data / "audit.heads").write_text("nonsense\n")
    assert system.find_log_fault(clinic) == "it can't be read"


def test_models_that_went_or_changed_are_told(clinic, admin, small_models, tmp_path: Path) -> None:
    folders = [small_models.describe(name).folder for name in small_models.names]
    copies = [shutil.copytree(folder, tmp_path / folder.name) for folder in folders]
    models = Models([str(copy) for copy in copies])
    shutil.rmtree(copies[0])
    weights = copies[1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    found = faults(clinic, admin, models)
    assert "start the app anew" in found[f"Model {models.names[1]}"]
    assert "answers until the app is started anew" in found[f"Model {models.names[0]}"]


def test_settings_in_force_hold_no_secret(clinic, admin, tmp_path) -> None:
    shown = system.list_settings(clinic, admin)
    assert shown["BCD_EXTERNAL_ID"] == clinic.settings.external_id
    assert shown["BCD_HOSTS"] == "any"
    assert "BCD_ADMIN_PASSWORD" not in shown
    secret = settings_at(tmp_path, "postgresql://clinic:hidden@db.example/clinic")
    said = dict(system._describe_settings(secret, Database(secret.database)))
    assert "hidden" not in str(said)
    assert "db.example" in said["BCD_DATABASE_URL"]
