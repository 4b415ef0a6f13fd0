"""The app is killed while examinations are saved: what it acknowledged is there, and whole."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from PIL import Image
from sqlalchemy import func, select

from clinic.installation import Installation
from clinic.records import patients
from clinic.records.patient_fields import PatientForm
from clinic.storage import migrations, tallies
from clinic.storage.actor import Actor
from clinic.storage.tables import Examination, Tally
from clinic.storage.tallies import ANY_MODEL, EXAMINATIONS
from clinic.upkeep import verify
from tests.conftest import ROOT
from tests.support.clinic import PASSWORD, PATCHES, actor, installation_with
from tests.support.processes import running
from tests.support.running_app import save_small_model
from tests.support.serving import answer, in_json, sign_in

KILLS = 20
WHOLE_STARTS = (0, KILLS // 2)  # kills of `python space/app.py` itself; the others are of its forks
SAVERS = 4
MAX_SAVES_AWAITED = 4  # acknowledged saves that a kill waits for
MAX_DELAY = 0.8  # seconds after those, so that the kill comes in the midst of others
REPORTS = 2  # of each round's examinations
PATIENCE = 90  # seconds for a start on a busy machine

# Imports and builds what is served once, and for each line forks a process that opens the
# installation as a start does and serves it. Nothing is open and no thread runs when it forks.
FORKING = """
import os, sys
from pathlib import Path
import app, argon2, onnxruntime, uvicorn
from clinic.installation import open_installation
from clinic.settings import Settings

settings = Settings.from_environment()
gate = app.build(settings, Path(os.environ["GRADIO_TEMP_DIR"]))
gate.clinic.database.engine.dispose()
for _ in sys.stdin:
    child = os.fork()
    if not child:
        open_installation(settings).database.engine.dispose()
        app.serve(gate, "127.0.0.1", int(sys.argv[1]))
        os._exit(0)
    print("process", child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@dataclass
class Saved:
    """What the app has acknowledged: the images' hashes by examination."""

    images: dict[str, list[str]] = field(default_factory=dict)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    done: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@dataclass(frozen=True)
class Place:
    """Where the app runs, again and again."""

    data: Path
    port: int
    environment: dict[str, str]
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    model = save_small_model(tmp_path, "small-one")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = tmp_path / f"bcd-space-{port}"  # as the app names it
    kept.mkdir()
    environment = {
        **os.environ,
        "BCD_MODELS": str(model),
        "BCD_DATA_FOLDER": str(tmp_path / "data"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(kept),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'space'}",
        "TMPDIR": str(tmp_path),
    }
    return Place(tmp_path / "data", port, environment, tmp_path / "log")


@contextmanager
def started(place: Place, *command: str) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        place.log.open("a") as log,
        running(
            [sys.executable, *command],
            signal.SIGKILL,
            env=place.environment,
            stderr=log,
            **pipes,
        ) as process,
    ):
        yield process


def line(process: subprocess.Popen[str], begin: str, place: Place) -> str:
    """The rest of the next line that begins so."""
    assert process.stdout
    for said in process.stdout:
        if said.startswith(begin):
            return said.removeprefix(begin).strip()
    raise AssertionError(f"ended before {begin!r}:\n{place.log.read_text()}")


@contextmanager
def whole_start(place: Place) -> Iterator[int]:
    """The app as users start it; yields its process, and waits at the end until it has died."""
    with started(place, str(ROOT / "space" / "app.py"), "--port", str(place.port)) as process:
        line(process, "Open http", place)
        yield process.pid
        assert process.wait(PATIENCE) == -signal.SIGKILL


@contextmanager
def fork(forking: subprocess.Popen[str], place: Place) -> Iterator[int]:
    """The same as a fork."""
    assert forking.stdin
    forking.stdin.write("serve\n")
    forking.stdin.flush()
    number = int(line(forking, "process ", place))
    try:
        line(forking, "Open http", place)
        yield number
        line(forking, "ended", place)
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
        raise


def client_of(place: Place, token: str = "") -> httpx2.Client:
    headers = {"cookie": token} if token else {}
    return httpx2.Client(base_url=place.address, headers=headers, timeout=60)


def picture(rng: random.Random) -> bytes:
    """A patch that nobody has handed in before."""
    with Image.open(rng.choice(PATCHES)) as opened:
        pixels = np.array(opened.convert("RGB"))
    pixels[0] = np.frombuffer(rng.randbytes(pixels[0].size), np.uint8).reshape(pixels[0].shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def save_until_killed(place: Place, token: str, patient: str, seed: int, saved: Saved) -> None:
    """Save one examination after the other, with one or two images each."""
    rng = random.Random(seed)
    with client_of(place, token) as client:
        while True:
            data = [picture(rng) for _ in range(rng.choice((1, 1, 2)))]
            try:
                paths = client.post(
                    "/gradio_api/upload", files=[("files", ("x.png", one)) for one in data]
                ).json()
                images = [in_json(path) for path in paths]
                asked = [patient, images, ["small-one"], 200, 0, "H&E", "not known", "", True]
                saved.begun.release()
                (said,) = answer(client, "save_examination", *asked)  # type: ignore[arg-type]
            except httpx2.HTTPError:
                return
            except AssertionError as error:
                # The stream ended without an answer: the kill, and nothing that the app told.
                if "event: error" in str(error):
                    raise
                return
            saved.images[said["examination"]] = [one["sha256"] for one in said["images"]]
            saved.done.release()


def save_and_kill(
    place: Place, process: int, token: str, patient: str, rng: random.Random
) -> Saved:
    """Several savers at once, and a kill at some moment."""
    saved, told = Saved(), []

    def saving(seed: int) -> None:
        try:
            save_until_killed(place, token, patient, seed, saved)
        except BaseException as error:
            told.append(error)

    threads = [
        threading.Thread(target=saving, args=(rng.getrandbits(64),), daemon=True)
        for _ in range(SAVERS)
    ]
    for thread in threads:
        thread.start()
    waited = [saved.begun, *[saved.done] * rng.randint(0, MAX_SAVES_AWAITED)]
    came = [one.acquire(timeout=PATIENCE) for one in waited]
    time.sleep(rng.uniform(0, MAX_DELAY))
    os.kill(process, signal.SIGKILL)
    for thread in threads:
        thread.join(PATIENCE)
    assert told == []
    assert all(came), "no saves came"
    return saved


def database_is_sound(place: Place, clinic: Installation) -> None:
    with closing(sqlite3.connect(place.data / "clinic.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with clinic.database.engine.connect() as connection:
        at = MigrationContext.configure(connection).get_current_revision()
    assert at == ScriptDirectory.from_config(config).get_current_head()


def is_whole(clinic: Installation, session: Any, number: str, hashes: list[str]) -> None:
    """An examination's rows, images and heat maps."""
    found = session.get(Examination, number)
    assert found, f"{number} was acknowledged and is gone"
    assert [image.sha256 for image in found.images] == hashes
    for image in found.images:
        assert [result.model for result in image.results] == ["small-one"]
        for sha256 in (image.sha256, *(result.heat_sha256 for result in image.results)):
            data = clinic.storage.read(sha256)
            assert hashlib.sha256(data).hexdigest() == sha256
            with Image.open(io.BytesIO(data)) as opened:
                opened.load()


def counted(session: Any, owner: int) -> int:
    """How many examinations the tallies count for a doctor."""
    wanted = select(func.sum(Tally.count)).where(
        Tally.owner_id == owner,
        Tally.kind == EXAMINATIONS,
        Tally.model == ANY_MODEL,
        Tally.span.startswith("M"),
    )
    return session.scalar(wanted) or 0


def everything_is_there(clinic: Installation, owner: int, saved: dict[str, list[str]]) -> int:
    """All that was acknowledged is there and counted; returns how many examinations there are."""
    with clinic.database.snapshot() as session:
        for number, hashes in saved.items():
            is_whole(clinic, session, number, hashes)
        kept = set(session.scalars(select(Examination.id)))
        assert set(saved) <= kept
        assert counted(session, owner) == len(kept)
        assert tallies.are_sound(session)
        assert clinic.log.find_problems(session) == []
    return len(kept)


def is_mended(clinic: Installation) -> tuple[int, int]:
    """Nothing but leftovers is found, and after their repair nothing; returns how many."""
    found = verify.verify(clinic, repair=True)
    assert found.broken == ()
    assert not found.miscounted
    assert verify.verify(clinic).problems == []
    return len(found.orphans), found.unfinished


def reports_can_be_made(place: Place, token: str, numbers: list[str]) -> None:
    with client_of(place, token) as client:
        for number in numbers:
            reply = client.get(f"/files/examinations/{number}/report.pdf")
            assert reply.status_code == 200, reply.text
            assert reply.content.startswith(b"%PDF")


@contextmanager
def a_doctors_installation(place: Place) -> Iterator[tuple[Installation, Actor, str]]:
    with installation_with(place.data, "ada") as clinic:
        ada = actor(clinic, "ada")
        yield clinic, ada, patients.create(clinic, ada, PatientForm())


@pytest.mark.slow
@pytest.mark.timeout(1800)  # it takes two minutes; a busy machine takes longer for the same
@pytest.mark.parametrize("seed", [20])
def test_what_was_acknowledged_outlives_a_kill(place: Place, seed: int) -> None:
    rng, token = random.Random(seed), ""
    saved: dict[str, list[str]] = {}
    newest: list[str] = []
    kept, leftovers, rounds = 0, (0, 0), []
    with (
        a_doctors_installation(place) as (clinic, ada, patient),
        started(place, "-c", FORKING, str(place.port)) as forking,
    ):
        for number in range(KILLS + 1):
            start = whole_start(place) if number in WHOLE_STARTS else fork(forking, place)
            with start as process:
                if not token:
                    with client_of(place) as client:
                        reply = sign_in(client, "ada", PASSWORD)  # type: ignore[arg-type]
                    token = reply.headers["set-cookie"].partition(";")[0]
                database_is_sound(place, clinic)
                before, kept = kept, everything_is_there(clinic, ada.account_id, saved)
                assert kept - before >= len(newest)
                leftovers = tuple(map(sum, zip(leftovers, is_mended(clinic), strict=True)))
                reports_can_be_made(place, token, newest[:REPORTS])
                if number == KILLS:
                    os.kill(process, signal.SIGKILL)
                    continue
                found = save_and_kill(place, process, token, patient, rng)
                saved |= found.images
                newest = list(found.images)
                rounds.append(len(newest))
    print(f"seed {seed}: saves acknowledged before each kill {rounds}, together {len(saved)};")
    print(f"{kept} kept; left over: {leftovers[0]} whole files, {leftovers[1]} unfinished")
    assert len(rounds) == KILLS
    assert len(saved) >= KILLS, "too few saves to tell anything"
