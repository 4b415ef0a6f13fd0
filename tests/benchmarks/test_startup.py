"""What it costs to start: ratios of whole processes, each to its baseline in the same run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gradio_client import handle_file

from tests.benchmarks.record import record
from tests.benchmarks.timing import in_turn, ratio, seconds
from tests.conftest import CARDS
from tests.support.running_app import running_app
from tests.support.scripts import client_of

RUNS = 5
MODEL = CARDS / "bcd-mobilenetv2"

EAGER = f"""
import torch, timm
model = timm.create_model("local-dir:{MODEL}", pretrained=True).eval()
with torch.inference_mode():
    model(torch.zeros(1, *model.pretrained_cfg["input_size"]))
"""


def python(*arguments: str) -> Callable[[], object]:
    """A whole process."""
    command = [sys.executable, *arguments]
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.bench
def test_import_is_a_fraction_of_torchs() -> None:
    ours, torch, empty = in_turn(
        python("-c", "import bcd_models"),
        python("-c", "import torch"),
        python("-c", "pass"),
        runs=RUNS,
    )
    record(
        "import bcd_models",
        "import torch (both less an empty interpreter)",
        ratio(
            (one - none for one, none in zip(ours, empty, strict=True)),
            (one - none for one, none in zip(torch, empty, strict=True)),
        ),
        at_most=0.1,
    )


@pytest.mark.bench
def test_first_predict_costs_little_more_than_torch_and_timm(patch_file: Path) -> None:
    predict = ("-m", "bcd_models.cli", "predict", str(patch_file), "--model", str(MODEL))
    ours, baseline = in_turn(python(*predict), python("-c", EAGER), runs=RUNS)
    record(
        "first bcd predict",
        "import torch and timm, load the model, one eager forward",
        ratio(ours, baseline),
        at_most=1.3,
    )


@pytest.mark.bench
def test_the_app_answers_soon_after_its_start(patch_file: Path) -> None:
    def first_answer() -> float:
        started = time.perf_counter()
        with running_app([MODEL]) as url, client_of(url) as client:
            assert client.predict(handle_file(patch_file), MODEL.name, api_name="/predict")
            return time.perf_counter() - started

    imports = python("-c", "import torch, timm, gradio")
    rounds = [(first_answer(), seconds(imports)) for _ in range(RUNS)]
    ours, baseline = zip(*rounds, strict=True)
    record(
        "from the app's start to its first answer",
        "import torch, timm and gradio",
        ratio(ours, baseline),
        at_most=2,
    )
