"""What building a corpus costs: beside Pillow's bare decoding, and as the archive grows."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.record import record
from tests.conftest import ROOT
from tests.support import synthetic
from tests.support.bare_decoding import decode
from tests.support.processes import running
from training.corpus import build as corpus

PROCESSES = 2
RUNS = 3
SMALL = {"cases": 10, "patches_per_case": 1000}
FULL = {"cases": 279, "patches_per_case": 994, "slivers": 198}


def seconds_to_decode(paths: dict[str, Path]) -> float:
    started = time.perf_counter()
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        parts = [
            (paths["breakhis"], 0, 1),
            *((paths["idc"], i, corpus.CHUNKS) for i in range(corpus.CHUNKS)),
        ]
        done = [pool.submit(decode, *part) for part in parts]
        assert sum(part.result() for part in done) == 9_851 + 100
    return time.perf_counter() - started


def seconds_to_read(paths: dict[str, Path], folder: Path) -> float:
    started = time.perf_counter()
    corpus.read_chunks({name: [path] for name, path in paths.items()}, folder, PROCESSES)
    return time.perf_counter() - started


@pytest.mark.bench
@pytest.mark.real
def test_decoding_and_writing_keeps_pace_with_pillow(real_sample: Path, tmp_path: Path) -> None:
    """Processes are started anew in both; the images are read from the same archives."""
    paths = {
        "breakhis": real_sample / "breakhis-sample.tar.gz",
        "idc": real_sample / "idc-sample.zip",
    }
    runs = [
        (seconds_to_decode(paths), seconds_to_read(paths, tmp_path / f"{i}"))
        for i in range(RUNS + 1)
    ][1:]
    bare, ours = (sorted(side)[RUNS // 2] for side in zip(*runs, strict=True))
    record(
        "build the sample's corpus: check, hash and write each image, images/s",
        f"Pillow decoding the same files from the same archives in {PROCESSES} processes",
        bare / ours,
        at_least=0.6,
    )


def memory(process: psutil.Process) -> int:
    """Bytes a process holds that the kernel can't drop: without pages of files mapped to read."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return sum(int(fields[key].split()[0]) * 1024 for key in ("RssAnon", "RssShmem"))


def build(archive: Path, out: Path) -> tuple[float, int, int]:
    """Seconds, peak memory of all processes together, and rows of a build as users start it."""
    started, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "training.corpus", "--idc", archive, "--out", out]
    with running([*command, "--processes", str(PROCESSES)], cwd=ROOT) as run:
        whole = psutil.Process(run.pid)
        while run.poll() is None:
            with suppress(psutil.NoSuchProcess, FileNotFoundError, KeyError):  # one just ended
                peak = max(peak, sum(map(memory, [whole, *whole.children(recursive=True)])))
            time.sleep(0.05)
    assert run.returncode == 0
    return time.perf_counter() - started, peak, len(corpus.load(out)[0])


@pytest.mark.bench
def test_the_full_set_costs_no_more_a_patch(tmp_path: Path) -> None:
    """Both archives hold every patch twice, as the one on Kaggle does."""
    found = {}
    for name, size in (("small", SMALL), ("full", FULL)):
        archive = synthetic.idc_zip(tmp_path / f"{name}.zip", twice=True, **size)
        found[name] = build(archive, tmp_path / name)
        archive.unlink()
    (seconds, memory, rows), (full_seconds, full_memory, full_rows) = found.values()
    assert (rows, full_rows) == (10_000, 279 * 994)
    record(
        f"memory to build a corpus of {full_rows:,} patches ({full_memory / 1e9:.2f} GB)",
        f"the same of {rows:,} ({memory / 1e9:.2f} GB)",
        full_memory / memory,
        at_most=1.3,
    )
    record("memory to build the full corpus", "1.5 GB", full_memory / 1.5e9, at_most=1.0)
    record(
        f"time a patch to build a corpus of {full_rows:,} patches",
        f"the same of {rows:,}",
        (full_seconds / full_rows) / (seconds / rows),
        at_most=1.2,
    )
