"""What the loader costs: beside resident pixels, bare slicing, and as the corpus grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.epochs import BATCH, SIDE, SIZE, Resident, epoch_of, packed, pixels_of
from tests.benchmarks.record import record
from tests.benchmarks.timing import in_turn, ratio
from tests.conftest import ROOT
from training import command

SAMPLE, FULL = 9_767, 277_524
STEPS, RUNS = 6, 7

FULL_STRENGTH = {
    "scale": 0.25,
    "stain": 0.2,
    "hue": 0.05,
    "brightness": 0.25,
    "contrast": 0.25,
    "gamma": 0.25,
    "blur": 1.2,
    "resampling": 0.5,
    "noise": 10,
    "sharpening": 1,
    "jpeg": 30,
}

ITERATE = """
import sys
import numpy as np, torch
from pathlib import Path
from tests.benchmarks.epochs import pixels_of
pixels = pixels_of(Path(sys.argv[1]), int(sys.argv[2]))
for positions in torch.randperm(len(pixels)).split(64):
    pixels.rows(positions)
fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(sum(int(fields[key].split()[0]) for key in ("RssAnon", "RssShmem")))
"""


@pytest.mark.bench
@pytest.mark.parametrize("backbone", ["mobilenetv2", "efficientnet_b2"])
def test_a_step_through_the_loader(backbone: str, tmp_path: Path, two_threads: None) -> None:
    pixels = pixels_of(packed(tmp_path, BATCH * STEPS), BATCH * STEPS)
    command.keep_freed_memory()  # as training does
    acts = epoch_of(backbone, pixels), epoch_of(backbone, Resident(pixels))
    ours, resident = in_turn(*acts, runs=RUNS)
    record(
        f"training step of {backbone} through the loader, 96 px, batch 32",
        "the same step on a resident tensor",
        ratio(resident, ours),
        at_least=0.95,
    )


@pytest.mark.bench
def test_a_degraded_step_through_the_loader(tmp_path: Path) -> None:
    """One thread for the network."""
    pixels = pixels_of(packed(tmp_path, 64 * STEPS), 64 * STEPS)
    command.keep_freed_memory()
    clean = epoch_of("mobilenetv2", pixels, batch=64)
    degraded = epoch_of("mobilenetv2", pixels, batch=64, degrade=FULL_STRENGTH)
    ours, bare = in_turn(degraded, clean, runs=RUNS)
    record(
        "training step of mobilenetv2 on degraded patches, 96 px, batch 64",
        "the same step on patches as they are",
        ratio(bare, ours),
        at_least=0.85,
    )


@pytest.mark.bench
def test_the_loader_keeps_pace_with_bare_slicing(tmp_path: Path) -> None:
    pixels = pixels_of(packed(tmp_path, SAMPLE), SAMPLE)
    file = tmp_path / f".pixels-{SIZE}" / "50x50.u8"
    bare = np.memmap(file, np.uint8, "r").reshape(-1, SIDE, SIDE, 3)
    command.keep_freed_memory()
    batches = [torch.randint(SAMPLE, (64,)) for _ in range(2000)]

    def slicing() -> None:
        for positions in batches:
            found = bare[positions.numpy()]
        assert len(found) == 64

    def loading() -> None:
        for positions in batches:
            found = pixels.rows(positions)
        assert len(found[0][1]) == 64

    ours, bare_slicing = in_turn(loading, slicing, runs=RUNS)
    record(
        "loader alone, random batches of 64 rows of 50x50",
        "bare memmap slicing of the same rows",
        ratio(bare_slicing, ours),
        at_least=0.8,
    )


@pytest.mark.bench
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    kilobytes = []
    for count in (SAMPLE, FULL):
        folder = packed(tmp_path / str(count), count)
        asked = [sys.executable, "-c", ITERATE, str(folder), str(count)]
        said = subprocess.run(asked, check=True, cwd=ROOT, capture_output=True, text=True)
        kilobytes.append(int(said.stdout.split()[-1]))
    small, full = kilobytes
    record(
        f"memory to iterate over {FULL:,} packed rows ({full / 1e6:.2f} GB)",
        f"the same of {SAMPLE:,} rows ({small / 1e6:.2f} GB)",
        full / small,
        at_most=1.2,
    )
