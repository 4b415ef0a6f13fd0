"""The clinic's own command: sound or not, copied while in use, and brought back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from bcd_models.hub.atomic import UNFINISHED
from clinic.installation import Installation
from clinic.storage import clock, tallies
from clinic.storage.actor import Actor
from clinic.storage.tables import Account, Examination, ExaminedImage, Patient
from clinic.upkeep import backup, verify
from tests.conftest import ROOT
from tests.support.clinic import installation_at, settings_at

ADA = Actor(1, "ada", "doctor", "")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Installation]:
    """An installation on SQLite that holds one patient."""
    with installation_at(tmp_path) as clinic:
        add_patient(clinic)
        yield clinic


def add_patient(clinic: Installation) -> None:
    when = clock.now()
    with clinic.database.transaction() as session:
        owner = Account(name="ada", role="doctor", created_at=when)
        session.add(Patient(id="P-1", owner=owner, created_at=when, changed_at=when))
        clinic.log.write(session, "patient_made", actor=ADA, subject="patient P-1")


def examine(clinic: Installation, number: int) -> None:
    with clinic.storage.lock_for_saving(), clinic.database.transaction() as session:
        image = ExaminedImage(
            position=1,
            sha256=clinic.storage.put(b"image %d" % number),
            format="PNG",
            width=5,
            height=5,
        )
        examination = Examination(
            id=f"E-{number}", patient_id="P-1", made_by=1, created_at=clock.now(), stain="H&E",
            specimen="core", images=[image],
        )  # fmt: skip
        session.add(examination)
        session.flush()
        tallies.change(session, Counter(), tallies.count_examinations(1, [examination]))
        clinic.log.write(session, "examined", actor=ADA, subject=f"examination E-{number}")


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'space'}",
        "BCD_DATA_FOLDER": str(folder),
        "BCD_MODELS": "none",
    }
    return subprocess.run(
        [sys.executable, "-m", "clinic", *arguments],
        env=environment,
        text=True,
        capture_output=True,
        timeout=600,
    )


def test_what_is_missing_damaged_or_left_over_is_found(clinic: Installation) -> None:
    add_patient(clinic)
    for number in range(4):
        examine(clinic, number)
    assert verify.verify(clinic).problems == []
    first, second, *_ = clinic.storage.list_hashes()
    clinic.storage.delete(first)
    clinic.storage.path(second).write_bytes(b"other")
    orphan = clinic.storage.put(b"nobody's")
    clinic.storage.path(orphan).with_name(f"{UNFINISHED}0").write_bytes(b"half")
    clinic.storage.path(orphan).with_name(".new-0").write_bytes(b"half")  # as 0.1.0 called them
    found = verify.verify(clinic, repair=True)
    assert found.files == 4
    assert [first[:12] in problem for problem in found.broken].count(True) == 1
    assert any(second[:12] in problem and "damaged" in problem for problem in found.broken)
    assert (found.orphans, found.unfinished) == ((orphan,), 2)
    again = verify.verify(clinic)
    assert again.problems == list(found.broken)
    with clinic.database.transaction() as session:
        session.execute(text("UPDATE audit_entry SET subject = 'x' WHERE number = 2"))
    assert any("audit row 2" in problem for problem in verify.verify(clinic).broken)


def test_a_backup_taken_in_use_is_whole(kept: Installation, tmp_path: Path) -> None:
    stop, errors = threading.Event(), []

    def save() -> None:
        number = 1
        while not stop.is_set():
            try:
                examine(kept, number)
            except Exception as error:
                errors.append(error)
            number += 1

    examine(kept, 0)
    saving = threading.Thread(target=save)
    saving.start()
    for number in range(3):
        threading.Event().wait(0.2)
        backup.backup(kept, tmp_path / f"{number}.zip")
    stop.set()
    saving.join()
    assert errors == []
    for number in range(3):
        restored = tmp_path / f"restored-{number}"
        backup.restore(tmp_path / f"{number}.zip", settings_at(restored))
        with installation_at(restored) as clinic:
            found = verify.verify(clinic)
            assert found.broken == ()
            assert found.files > 0
            with clinic.database.snapshot() as session:
                assert session.query(Examination).count() == found.files


def test_a_log_that_was_cut_is_never_sound_again(kept: Installation) -> None:
    for number in range(3):
        examine(kept, number)
    with kept.database.transaction() as session:
        session.execute(text("DELETE FROM audit_entry WHERE number > 2"))
    for number in range(3, 6):
        done = command(kept.settings.data, "verify")
        assert done.returncode == 1, done.stderr
        assert "audit rows 3 to 4" in done.stdout
        examine(kept, number)


@pytest.mark.parametrize("former", [False, True])
def test_a_backup_brings_the_log_s_heads_back(
    kept: Installation, tmp_path: Path, former: bool
) -> None:
    """Those of a backup of an earlier release, which held the newest head alone, too."""
    examine(kept, 1)
    source, restored = tmp_path / "copy.zip", tmp_path / "restored"
    head, data = kept.log.read_head(), kept.settings.data
    backup.backup(kept, source)
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert files["audit.heads"] == (data / "audit.heads").read_bytes()
    if former:
        del files["audit.heads"]
        files["audit.head"] = json.dumps(head.__dict__).encode()
        with zipfile.ZipFile(source, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    backup.restore(source, settings_at(restored))
    with installation_at(restored) as clinic:
        assert clinic.log.read_head() == head
        assert verify.verify(clinic).problems == []
        with clinic.database.transaction() as session:
            session.execute(text("DELETE FROM audit_entry WHERE number > 1"))
        examine(clinic, 2)
        assert "audit rows 2 to 2 are missing" in verify.verify(clinic).broken


@pytest.mark.slow
def test_the_command(kept: Installation, tmp_path: Path) -> None:
    examine(kept, 1)
    data, target = kept.settings.data, str(tmp_path / "copy.zip")
    assert command(data, "verify").stdout == "sound: 1 stored files\n"
    assert command(data, "backup", target).returncode == 0
    assert Path(target).stat().st_mode & 0o077 == 0
    again = command(data, "backup", target)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    refused = command(data, "restore", target)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    kept.storage.put(b"nobody's")
    wrong = command(data, "verify")
    assert (wrong.returncode, wrong.stdout) == (1, "1 stored files belong to nothing\n")
    assert command(data, "verify", "--repair").stdout.endswith("mended\n")
    assert command(data, "verify").returncode == 0
    kept.database.engine.dispose()
    back = command(data, "restore", target, "--force")
    assert back.returncode == 0, back.stderr
    assert "before-1" in back.stdout
    assert back.stdout.endswith("sound: 1 stored files\n")


@pytest.mark.parametrize("spoil", ["cut", "other", "odd"])
def test_what_is_no_backup_is_refused(kept: Installation, tmp_path: Path, spoil: str) -> None:
    source = tmp_path / "copy.zip"
    backup.backup(kept, source)
    if spoil == "cut":
        source.write_bytes(source.read_bytes()[:-100])
    else:
        with zipfile.ZipFile(source, "w" if spoil == "other" else "a") as archive:
            archive.writestr("../escape" if spoil == "odd" else "clinic.db", b"")
    done = command(tmp_path / "elsewhere" / "data", "restore", str(source))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "elsewhere" / "data").exists()
    assert not (tmp_path / "elsewhere" / "escape").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_postgresql_installation_is_told_what_is_not_in_it(
    clinic: Installation, tmp_path
) -> None:
    add_patient(clinic)
    examine(clinic, 1)
    assert backup.backup(clinic, tmp_path / "copy.zip") == 1
    with zipfile.ZipFile(tmp_path / "copy.zip") as archive:
        held = backup.DATABASE in archive.namelist()
    assert held == (clinic.database.sqlite_file is not None)
