"""Epochs of the loop that trains, over made-up packed pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor

from training.corpus.pixels import Pixels, Rows
from training.recipes.schema import Recipe
from training.train import engine
from training.train import run as train

SIDE, SIZE, BATCH = 50, 96, 32  # of a packed patch, and by default of the network's input; rows


def packed(folder: Path, count: int) -> Path:
    """Packed pixels as the loader writes them, of a corpus that isn't there."""
    pixels = folder / f".pixels-{SIZE}"
    pixels.mkdir(parents=True)
    noise = np.random.default_rng(0)
    with (pixels / "50x50.u8").open("wb") as file:
        for start in range(0, count, 4096):
            rows = min(4096, count - start)
            file.write(noise.bytes(rows * SIDE * SIDE * 3))
    np.save(pixels / "home.npy", np.stack([np.zeros(count, np.int64), np.arange(count)], 1))
    (pixels / "shapes.json").write_text(json.dumps({"50x50.u8": [SIDE, SIDE, 3]}))
    return folder


def pixels_of(folder: Path, count: int) -> Pixels:
    corpus = SimpleNamespace(cache_files=[{"filename": str(folder / "data.arrow")}])
    return Pixels(corpus, np.arange(count), SIZE)  # type: ignore[arg-type]


class Resident:
    """The loader's place taken by a tensor in memory, already batches."""

    def __init__(self, pixels: Pixels) -> None:
        self.batch = pixels.rows(torch.arange(BATCH))
        self.count = len(pixels)

    def __len__(self) -> int:
        return self.count

    def rows(self, _: Tensor) -> list[tuple[np.ndarray, Tensor]]:
        return self.batch


def epoch_of(
    backbone: str,
    pixels: Pixels | Resident,
    size: int = SIZE,
    batch: int = BATCH,
    accelerator: Accelerator | None = None,
    **changes: Any,
) -> Callable[[], object]:
    """An epoch of so many steps, through the loop that trains; changes are of its recipe."""
    plan = Recipe.model_validate(
        {
            "name": "bench",
            "version": "0",
            "backbone": backbone,
            "start": "none",
            "phases": [{"size": size, "epochs": 100, "learning_rate": 1e-5}],
            "batch_size": batch,
            **changes,
        }
    )
    count = len(pixels)
    frame = pd.DataFrame(
        {
            "label": ["benign", "malignant"] * (count // 2),
            "source": "idc",
            "case_id": [f"idc/{i // 8}" for i in range(count)],
        }
    )
    network, preprocess, _ = train.build_network(plan, None)
    rows = Rows(frame, pixels)  # type: ignore[arg-type]
    loop = engine._Loop(accelerator or Accelerator(), network, plan, preprocess, rows)
    return lambda: loop.train_epoch(1)
