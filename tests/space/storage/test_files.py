"""Stored files: whole or not there, once each, gone with the last row that names them."""

from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from clinic.installation import Installation
from clinic.storage import clock, references
from clinic.storage.files import Storage, StorageError
from clinic.storage.tables import Account, Examination, ExaminedImage, Patient
from tests.conftest import ROOT
from tests.support.processes import running


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def test_bytes_come_back(storage: Storage, tmp_path: Path) -> None:
    sha256 = storage.put(b"tissue")
    assert sha256 == hashlib.sha256(b"tissue").hexdigest() == storage.put(b"tissue")
    assert storage.read(sha256) == b"tissue"
    assert list(storage.list_hashes()) == [sha256]
    assert storage.path(sha256).stat().st_mode & 0o077 == 0 or (
        storage.path(sha256).parent.stat().st_mode & 0o077 == 0
    )


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/x"])
def test_nothing_but_a_hash_leads_to_a_file(storage: Storage, name: str) -> None:
    with pytest.raises(StorageError, match="no SHA-256"):
        storage.read(name)


def test_a_damaged_or_missing_file_is_told(storage: Storage) -> None:
    sha256 = storage.put(b"tissue")
    storage.path(sha256).write_bytes(b"tissuE")
    with pytest.raises(StorageError, match="is damaged"):
        storage.read(sha256)
    storage.delete(sha256)
    storage.delete(sha256)
    with pytest.raises(StorageError, match="can't be read"):
        storage.read(sha256)


FILL = """
import resource, sys
from pathlib import Path
from clinic.storage.files import Storage, StorageError
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    Storage(Path(sys.argv[1])).put(b"x" * 5000)
except StorageError as error:
    print(error)
"""
WRITE = """
import os, sys
from pathlib import Path
from clinic.storage.files import Storage
storage = Storage(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    storage.put(os.urandom(200_000))
"""


def run(code: str, folder: Path, **options) -> AbstractContextManager[subprocess.Popen[str]]:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'space'}"}
    return running([sys.executable, "-c", code, folder], env=environment, text=True, **options)


def test_a_full_disk_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    with run(FILL, tmp_path, stdout=subprocess.PIPE) as filling:
        said, _ = filling.communicate()
    assert "a file can't be stored: File too large" in said
    assert list(storage.list_hashes()) == storage.list_unfinished() == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_killed_writer_leaves_whole_files_and_marked_ones(
    storage: Storage, tmp_path: Path
) -> None:
    for _ in range(5):
        with run(WRITE, tmp_path, stdout=subprocess.PIPE) as writing:
            assert writing.stdout is not None
            assert writing.stdout.readline() == "ready\n"
            threading.Event().wait(0.05)
            writing.kill()
    stored = list(storage.list_hashes())
    assert stored
    assert all(len(storage.read(sha256)) == 200_000 for sha256 in stored)
    assert len(storage.list_unfinished()) <= 5


def test_a_file_goes_with_the_last_row_that_names_it(clinic: Installation) -> None:
    when = clock.now()
    with clinic.storage.lock_for_saving(), clinic.database.transaction() as session:
        shared, own, loose = (clinic.storage.put(data) for data in (b"shared", b"own", b"loose"))
        owner = Account(name="ada", role="doctor", created_at=when)
        patient = Patient(id="P-1", owner=owner, created_at=when, changed_at=when)
        for place, files in {"E-1": [shared, own], "E-2": [shared]}.items():
            images = [
                ExaminedImage(position=n, sha256=sha256, format="PNG", width=5, height=5)
                for n, sha256 in enumerate(files, 1)
            ]
            session.add(
                Examination(
                    id=place, patient=patient, maker=owner, created_at=when, stain="H&E",
                    specimen="core", images=images,
                )
            )  # fmt: skip
    with clinic.database.transaction() as session:
        session.delete(session.get_one(Examination, "E-1"))
    gone = references.delete_unreferenced(clinic.database, clinic.storage, [shared, own])
    assert gone == [own]
    assert sorted(clinic.storage.list_hashes()) == sorted([shared, loose])
    with clinic.database.transaction() as session:
        session.delete(session.get_one(Patient, "P-1"))
    references.delete_unreferenced(clinic.database, clinic.storage, clinic.storage.list_hashes())
    assert list(clinic.storage.list_hashes()) == []


def test_nothing_is_forgotten_while_its_row_is_on_the_way(clinic: Installation) -> None:
    with clinic.storage.lock_for_saving():
        sha256 = clinic.storage.put(b"tissue")
        forgetting = threading.Thread(
            target=references.delete_unreferenced, args=(clinic.database, clinic.storage, [sha256])
        )
        forgetting.start()
        forgetting.join(0.3)
        assert forgetting.is_alive()
        assert clinic.storage.read(sha256) == b"tissue"
    forgetting.join(30)
    assert list(clinic.storage.list_hashes()) == []
