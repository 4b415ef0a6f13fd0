"""What whole slides cost: memory whatever their size, and pace beside bare reading and session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.record import record
from tests.conftest import CARDS
from tests.support.slides import telling_model, write_repeated

TASKS = ["-m", "tests.benchmarks.slide_tasks"]


def run(*task: str | Path, runtime: str) -> dict[str, Any]:
    environment = os.environ | {"BCD_RUNTIME": runtime, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *TASKS, *map(str, task)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    """Both all but all tissue, at 0.25 micrometres a pixel: 25 times the pixels, and the tiles."""
    telling_model().save_pretrained(tmp_path / "model")
    peaks = []
    for side in (20_000, 100_000):
        slide = write_repeated(tmp_path / f"{side}.tif", side, mpp=0.25, downsamples=(1, 4, 16))
        answer = run("peak", slide, tmp_path / "model", tmp_path / "out", runtime="torch")
        assert answer["tiles"] >= 0.99 * (side // 800) ** 2
        assert answer["failed"] == 0
        peaks.append(answer["mb"])
        slide.unlink()
    print("peak MB", peaks)
    record(
        "peak memory of a process, slide of 100,000 x 100,000 pixels",
        "slide of 20,000 x 20,000",
        peaks[1] / peaks[0],
        at_most=1.3,
    )


@pytest.mark.bench
def test_tiles_go_through_nearly_as_fast_as_reading_and_network_can(tmp_path: Path) -> None:
    slide = write_repeated(tmp_path / "slide.tif", 20_000, mpp=0.25, downsamples=(1, 4, 16))
    answer = run("pace", slide, CARDS / "bcd-mobilenetv2", "32", runtime="auto")
    print("tiles a second", answer)
    record(
        "tiles a second of a slide, reading and finding tissue included",
        "OpenSlide reading the same level, then a bare ONNX Runtime session, ready tensors",
        answer["ratio"],
        at_least=0.7,
    )
