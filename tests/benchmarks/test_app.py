"""What the app adds to a model's answer: `/predict` beside Gradio itself and the model itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import add
from pathlib import Path
from urllib.request import urlopen

import pytest
from gradio_client import handle_file

from bcd_models import BCDClassifier
from tests.benchmarks.record import record
from tests.benchmarks.timing import in_turn, ratio
from tests.conftest import CARDS
from tests.support.processes import running
from tests.support.running_app import running_app
from tests.support.scripts import client_of

MODEL = CARDS / "bcd-mobilenetv2"
RUNS, WARM_UPS = 40, 5
PATIENCE = 90  # seconds for a start on a busy machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def do_nothing_app(folder: Path) -> Iterator[str]:
    """A Gradio app in a process of its own; yields its address."""
    url = f"http://127.0.0.1:{free_port()}/"
    settings = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder)}
    script = Path(__file__).with_name("do_nothing_app.py")
    command = [sys.executable, str(script), url.rstrip("/").rpartition(":")[2]]
    with running(command, env={**os.environ, **settings}) as process:
        wait_for(url, process)
        yield url


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return once an app answers."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urlopen(url).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the app that does nothing did not start")


@pytest.mark.bench
def test_predict_costs_little_more_than_gradio_and_the_model(
    light_model: BCDClassifier, patch_file: Path, tmp_path: Path
) -> None:
    image = handle_file(patch_file)
    with running_app([MODEL]) as ours, do_nothing_app(tmp_path / "gradio") as theirs:
        with client_of(ours) as app, client_of(theirs) as empty:
            through_app, nothing, model = in_turn(
                lambda: app.predict(image, MODEL.name, api_name="/predict"),
                lambda: empty.predict(image, "some", api_name="/nothing"),
                lambda: light_model.predict(patch_file),
                runs=RUNS,
                warm_ups=WARM_UPS,
            )
    record(
        "/predict over gradio_client",
        "a Gradio endpoint that does nothing with the same upload, plus model.predict in process",
        ratio(through_app, map(add, nothing, model)),
        at_most=1.3,
    )
