"""What it costs to start: ratios of whole processes, each to its baseline in the same run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.record import record
from tests.conftest import CARDS

RUNS = 5
MODEL = CARDS / "bcd-mobilenetv2"

EAGER = """
import torch, timm
model = timm.create_model("local-dir:{model}", pretrained=True).eval()
with torch.inference_mode():
    model(torch.zeros(1, 3, 224, 224))
"""


def seconds(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def medians(ours: list[str], baseline: list[str]) -> tuple[float, float]:
    """Median seconds of two commands run in turn, after one warm-up of each."""
    pairs = [(seconds(*ours), seconds(*baseline)) for _ in range(RUNS + 1)][1:]
    return tuple(sorted(side)[RUNS // 2] for side in zip(*pairs, strict=True))  # type: ignore[return-value]


@pytest.mark.bench
def test_import_is_a_fraction_of_torchs() -> None:
    ours, baseline = medians(["-c", "import bcd_models"], ["-c", "import torch"])
    empty = sorted(seconds("-c", "pass") for _ in range(RUNS))[RUNS // 2]
    ratio = (ours - empty) / (baseline - empty)
    record("import bcd_models", "import torch (both less an empty interpreter)", ratio, at_most=0.1)


@pytest.mark.bench
def test_first_predict_costs_little_more_than_torch_and_timm(patch_file: Path) -> None:
    predict = ["-m", "bcd_models.cli", "predict", str(patch_file), "--model", str(MODEL)]
    ours, baseline = medians(predict, ["-c", EAGER.format(model=MODEL)])
    record(
        "first bcd predict",
        "import torch and timm, load the model, one eager forward",
        ours / baseline,
        at_most=1.3,
    )
