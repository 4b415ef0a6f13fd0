"""The app with many at once: nothing lost or mixed up, a full queue says so, memory stays level."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from gradio_client import Client, handle_file
from gradio_client.utils import QueueError, Status
from PIL import Image
from sqlalchemy import select

from bcd_models import BCDClassifier
from clinic.installation import Installation
from clinic.storage.tables import Examination
from clinic.ui.apps import MAX_WAITING
from clinic.upkeep.verify import verify
from tests.benchmarks.record import record
from tests.support import synthetic
from tests.support.clinic import NAMES, PASSWORD, installation_at
from tests.support.running_app import running_app, save_small_model
from tests.support.scripts import connect
from tests.support.serving import add_account

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SECONDS = 60  # of load
GUESTS, SHARED, ALONE = 4, 4, 20  # users without an account; accounts of two users, of one
SIGNING_IN = 2  # at once: of one address' attempts at a time not many are free
PATIENCE = 60  # seconds for a request on a busy machine
PIXELS, SIDE = 50, 8  # of a patch; patches in a row of the tissue they are cut from
BUSY = "Queue is full! Please try again."
MEGAPIXELS = 6  # of an image that takes a while
ROUND, READINGS = (200, 40), 4  # predictions and reports of one round; rounds compared
CALLERS = 4
GROWTH = 1.05


@dataclass
class User:
    """Somebody who calls the app again and again with patches that nobody else has.

    Attributes:
        name: Of the account; "": a guest.
        patches: To hand in, without end.
        folder: Where they lie as files.
        answered: Each patch with the model's name and the app's answer.
        saved: Each patch with the model's name, the patient and the app's answer.
        failed: What was told where a call failed.
    """

    name: str
    client: Client
    patches: Iterator[np.ndarray]
    folder: Path
    answered: list[tuple[np.ndarray, str, dict[str, Any]]] = field(default_factory=list)
    saved: list[tuple[np.ndarray, str, str, dict[str, Any]]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def work(self, until: float) -> None:
        """Call each endpoint in turn, with each model in turn."""
        acts = [self.predict, self.save] if self.name else [self.predict]
        for model in cycle(NAMES):
            for act in acts:
                if time.monotonic() > until:
                    return
                try:
                    act(model)
                except Exception as error:
                    self.failed.append(f"{type(error).__name__}: {error}")

    def predict(self, model: str) -> None:
        patch, file = self._next()
        answer = self.client.predict(file, model, api_name="/predict")
        self.answered.append((patch, model, answer))

    def save(self, model: str) -> None:
        patient = self.client.predict(api_name="/create_patient")["patient"]
        patch, file = self._next()
        answer = self.client.predict(patient, [file], [model], api_name="/save_examination")
        self.saved.append((patch, model, patient, answer))

    def _next(self) -> tuple[np.ndarray, Any]:
        patch = next(self.patches)
        path = self.folder / "patch.png"
        path.write_bytes(png(patch))
        return patch, handle_file(path)


def png(patch: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(patch).save(buffer, "PNG")
    return buffer.getvalue()


def cut(seed: int) -> list[np.ndarray]:
    """Patches that lie side by side in one piece of synthetic tissue."""
    side = SIDE * PIXELS
    tissue = synthetic.tissue(seed, size=(side, side), mpp=4.0, malignant=bool(seed % 2))
    places = range(0, side, PIXELS)
    return [tissue[y : y + PIXELS, x : x + PIXELS] for y in places for x in places]


def endless(seed: int, step: int) -> Iterator[np.ndarray]:
    """Patches of some seeds, of which the first have been drawn already."""
    first = cut(seed)

    def patches() -> Iterator[np.ndarray]:
        yield from first
        for further in count(seed + step, step):
            yield from cut(further)

    return patches()


def client_of(url: str, folder: Path, name: str = "", **options: Any) -> Client:
    auth = (name, PASSWORD) if name else None
    return connect(url, auth=auth, download_files=str(folder), **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    backbones = ("mobilenetv2", "efficientnet_b2")
    return [save_small_model(root, *pair) for pair in zip(NAMES, backbones, strict=True)]


@pytest.fixture(scope="module")
def models(folders: list[Path]) -> dict[str, BCDClassifier]:
    return {folder.name: BCDClassifier.from_pretrained(folder) for folder in folders}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation_at(tmp_path_factory.mktemp("clinic")) as opened:
        yield opened


@pytest.fixture(scope="module")
def names(clinic: Installation) -> list[str]:
    """Each user's account, "" for a guest."""
    shared, alone = ([add_account(clinic).name for _ in range(n)] for n in (SHARED, ALONE))
    return [""] * GUESTS + shared * 2 + alone


@pytest.fixture(scope="module")
def url(folders: list[Path], clinic: Installation) -> Iterator[str]:
    with running_app(folders, {"BCD_DATA_FOLDER": str(clinic.settings.data)}) as address:
        yield address


@pytest.fixture(scope="module")
def users(url: str, names: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[User]:
    """All of them, after their load."""
    root = tmp_path_factory.mktemp("users")

    def arrive(number: int, name: str) -> User:
        folder = root / str(number)
        folder.mkdir()
        return User(name, client_of(url, folder, name), endless(number, len(names)), folder)

    with ThreadPoolExecutor(SIGNING_IN) as pool:
        arrived = list(pool.map(arrive, count(), names))
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(len(arrived)) as pool:
        list(pool.map(lambda user: user.work(until), arrived))
        list(pool.map(lambda user: user.client.close(), arrived))
    return arrived


def test_each_user_gets_on_and_failures_are_of_a_full_queue(users: list[User]) -> None:
    assert {text for user in users for text in user.failed} <= {f"QueueError: {BUSY}"}
    assert all(user.answered for user in users)
    assert all(user.saved for user in users if user.name)


def test_each_answer_is_the_model_s_about_that_very_image(
    users: list[User], models: dict[str, BCDClassifier]
) -> None:
    answered = [one for user in users for one in user.answered]
    expected = [json.loads(models[model].predict(patch).to_json()) for patch, model, _ in answered]
    assert [answer for *_, answer in answered] == expected
    different = {answer["probability"] for answer in expected}
    assert len(different) > 0.99 * len(expected)  # or a mix-up could not be seen


def test_each_acknowledged_examination_is_kept_once_with_its_pixels(
    users: list[User], models: dict[str, BCDClassifier], clinic: Installation
) -> None:
    saved = {
        answer["examination"]: (user.name, patient, model, patch, answer)
        for user in users
        for patch, model, patient, answer in user.saved
    }
    assert len(saved) == sum(len(user.saved) for user in users)
    assert len({patient for _, patient, *_ in saved.values()}) == len(saved)
    with clinic.database.snapshot() as session:
        kept = {one.id: one for one in session.scalars(select(Examination))}
        assert kept.keys() == saved.keys()
        for number, (name, patient, model, patch, answer) in saved.items():
            assert (kept[number].patient_id, kept[number].patient.owner.name) == (patient, name)
            (image,) = kept[number].images
            with Image.open(io.BytesIO(clinic.storage.read(image.sha256))) as stored:
                assert np.array_equal(np.asarray(stored), patch)
            (result,) = image.results
            expected = models[model].predict(patch)
            (told,) = answer["images"][0]["answers"]
            assert told["probability"] == result.probability
            assert result.probability == pytest.approx(expected.probability, abs=1e-6)
            assert told["weights_sha256"] == result.weights_sha256 == expected.weights_sha256
    assert not verify(clinic).problems


def test_calls_beyond_the_queue_are_told_so_and_the_others_answered(
    url: str, models: dict[str, BCDClassifier], tmp_path: Path
) -> None:
    """While images that take a while have both places."""
    side = round((MEGAPIXELS * 1e6) ** 0.5)
    Image.fromarray(cut(0)[0]).resize((side, side)).save(tmp_path / "large.png")
    (tmp_path / "patch.png").write_bytes(png(cut(1)[0]))
    large, patch = (handle_file(tmp_path / name) for name in ("large.png", "patch.png"))
    calls = 2 * MAX_WAITING
    with closing(client_of(url, tmp_path, max_workers=2 * calls)) as client:
        slow = [client.submit(large, NAMES[0], api_name="/report") for _ in range(8)]
        while Status.PROCESSING not in {job.status().code for job in slow}:
            time.sleep(0.01)
        jobs = [client.submit(patch, NAMES[0], api_name="/predict") for _ in range(calls)]
        failures = [job.exception() for job in jobs]
        expected = models[NAMES[0]].predict(tmp_path / "patch.png").probability
        again = client.predict(patch, NAMES[0], api_name="/predict")
        answers = [job.result() for job in jobs if job.exception() is None] + [again]
        assert all(job.result() for job in slow)
    refused = [failure for failure in failures if failure]
    assert {(type(failure), str(failure)) for failure in refused} == {(QueueError, BUSY)}
    assert len(answers) > MAX_WAITING // 2
    assert {answer["probability"] for answer in answers} == {expected}


def resident(process: psutil.Process) -> int:
    """Bytes of memory."""
    return process.memory_info().rss


def app_behind(url: str) -> psutil.Process:
    """The process that this one has started to serve an address."""
    port = url.rstrip("/").rpartition(":")[2]
    (found,) = (
        one for one in psutil.Process().children() if one.cmdline()[-2:] == ["--port", port]
    )
    return found


def call(clients: Sequence[Client], files: Sequence[Path], endpoint: str) -> None:
    """Hand in each file, each client one after the other."""

    def some(number: int) -> None:
        for file in files[number :: len(clients)]:
            clients[number].predict(handle_file(file), api_name=endpoint)

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(some, range(len(clients))))


@pytest.mark.bench
def test_memory_stays_level(folders: list[Path], tmp_path: Path) -> None:
    """The least of several readings: single ones swing by what is being made just then."""
    patches = endless(0, 1)
    files = [tmp_path / f"{number}.png" for number in range(ROUND[0])]
    with running_app(folders[:1]) as url:
        clients = [client_of(url, tmp_path) for _ in range(CALLERS)]
        app, used = app_behind(url), []
        for _ in range(3 * READINGS):  # a third of them until the allocator has what it needs
            for file in files:
                file.write_bytes(png(next(patches)))
            for endpoint, number in zip(("/predict", "/report"), ROUND, strict=True):
                call(clients, files[:number], endpoint)
            used.append(resident(app))
        for client in clients:
            client.close()
    earlier, later = used[READINGS:-READINGS], used[-READINGS:]
    predictions, reports = (number * len(later) for number in ROUND)
    record(
        f"the app's memory in {predictions} predictions and {reports} reports, least reading",
        "in as many before",
        min(later) / min(earlier),
        at_most=GROWTH,
    )
