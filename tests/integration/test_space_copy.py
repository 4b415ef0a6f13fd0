"""The Space as the Hub would run it: its own files, its own requirements, models from the Hub."""

from __future__ import annotations

import socket
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from bcd_models import BCDClassifier
from tests.conftest import CARDS, MODELS, ROOT
from tests.support.hub import Hub, run_client, running_hub
from tests.support.processes import running
from tests.support.running_app import EXAMPLES
from tests.support.scripts import client_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
IMAGE = EXAMPLES / "synthetic-malignant-1.png"
SPACE = "bcd-models/patch-check"
ON_HUB = ["bcd-models/bcd-mobilenetv2"]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """A Hub that holds both models."""
    with running_hub() as running:
        for name in MODELS:
            files = {path.name: path.read_bytes() for path in (CARDS / name).iterdir()}
            running.add_repo(f"bcd-models/{name}", files)
        yield running


@pytest.fixture(scope="module")
def space(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was published as a Space, beside an environment from its own requirements."""
    folder = tmp_path_factory.mktemp("hub")
    done = run_client(
        [sys.executable, "-m", "training.publish", "--space", "--repo-id", SPACE],
        hub.environment(folder / "home", hub.token),
    )
    assert done.returncode == 0, done.stderr
    for name, data in hub.files(SPACE, "space").items():
        path = folder / "space" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    venv.create(folder / "venv", with_pip=True)
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
    needed = ["-r", folder / "space" / "requirements.txt", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, *needed], check=True, cwd=folder)
    return folder / "space"


@contextmanager
def started(space: Path, environment: Mapping[str, str]) -> Iterator[Client]:
    """The app, started as the Hub starts it, and a client of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    alone = {k: v for k, v in environment.items() if k != "PYTHONPATH"}
    with running(
        [space.parent / "venv" / "bin" / "python", "app.py"],
        cwd=space,
        env=alone
        | {"GRADIO_SERVER_PORT": str(port), "BCD_DATA_FOLDER": f"{alone['HF_HOME']}/clinic"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        said = next((line for line in process.stdout if line.startswith("Open http")), "")
        assert said, "the app did not start"
        with client_of(said.split()[1]) as client:
            yield client


def test_predicts_with_the_models_its_card_names(hub: Hub, space: Path, tmp_path: Path) -> None:
    with started(space, hub.environment(tmp_path)) as app:
        assert {offered["name"] for offered in app.predict(api_name="/models")} == set(MODELS)
        for name in MODELS:
            expected = BCDClassifier.from_pretrained(CARDS / name).predict(IMAGE)
            answer = app.predict(handle_file(IMAGE), name, api_name="/predict")
            assert answer["probability"] == pytest.approx(expected.probability, abs=1e-4)
            assert answer["weights_sha256"] == expected.weights_sha256


@pytest.mark.parametrize("source", [*ON_HUB, str(CARDS / "bcd-mobilenetv2")])
def test_predicts_with_the_models_it_is_set_to(
    hub: Hub, space: Path, tmp_path: Path, source: str
) -> None:
    before = len(hub.requests)
    with started(space, hub.environment(tmp_path) | {"BCD_MODELS": source}) as app:
        assert [offered["name"] for offered in app.predict(api_name="/models")] == [
            "bcd-mobilenetv2"
        ]
        answer = app.predict(handle_file(IMAGE), "bcd-mobilenetv2", api_name="/predict")
    assert (len(hub.requests) > before) is (source in ON_HUB), "a folder needs no Hub"
    assert answer["label"] in ("benign", "malignant")
