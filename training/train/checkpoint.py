"""A run's checkpoint and lines of epochs, written so that no kill loses a finished epoch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from bcd_models.errors import BCDError, InputError
from bcd_models.hub.atomic import write_files
from training.evaluate.figures import draw_learning_curves
from training.evaluate.schema import Training

FOLDER = "checkpoint"
EPOCHS, CURVES = "epochs.jsonl", "learning-curves.png"
_AVERAGE, _DONE = "average.pt", "epochs.json"


class TrainingStopped(BCDError):
    """Training can't go on; the message says why."""


def save(run: Path, accelerator: Accelerator, average: nn.Module | None, epochs: int) -> None:
    """Write the checkpoint beside its name, then put it in place.

    Raises:
        TrainingStopped: The disk refuses; the checkpoint before is whole.
    """
    folder, beside, old = _locate_folders(run)
    if accelerator.is_main_process:
        shutil.rmtree(beside, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(beside))
        if accelerator.is_main_process:
            if average:
                torch.save(average.state_dict(), beside / _AVERAGE)
            (beside / _DONE).write_text(json.dumps(epochs))
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise TrainingStopped(
            f"the checkpoint after epoch {epochs} can't be written to {run}: {error}; make room, "
            "then go on with --resume from the one before"
        ) from None
    accelerator.wait_for_everyone()  # each process writes a file of its own
    if accelerator.is_main_process:
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)  # a kill may have left it
            folder.rename(old)
        beside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def resume(run: Path, accelerator: Accelerator, average: nn.Module | None) -> int:
    """Load the checkpoint if there is one; returns how many epochs are done."""
    folder, _, old = _locate_folders(run)
    if accelerator.is_main_process and not folder.exists() and old.exists():
        old.rename(folder)
    accelerator.wait_for_everyone()
    if not folder.exists():
        return 0
    accelerator.load_state(str(folder))
    if average:
        average.load_state_dict(torch.load(folder / _AVERAGE, weights_only=True))
    return int(json.loads((folder / _DONE).read_text()))


def sum_up_epochs(run: Path) -> Training:
    """Return what a run cost, by its own lines; InputError where these can't be read."""
    try:
        lines = [json.loads(line) for line in (run / EPOCHS).read_text("utf-8").splitlines()]
        seconds = sum(line["seconds"] for line in lines)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{run} is no run of training.train: {error} can't be read in {EPOCHS}"
        ) from None
    hardware = dict.fromkeys(line.get("hardware", "") for line in lines)
    return Training(
        epochs=len(lines), seconds=round(seconds, 1), hardware="; ".join(filter(None, hardware))
    )


def read_lines(run: Path, epochs: int) -> list[dict[str, Any]]:
    """Return the lines of the epochs that the checkpoint has seen."""
    if not epochs:
        return []
    path = run / EPOCHS
    if not path.is_file():
        raise InputError(f"{path} is missing beside a checkpoint: start again in a new folder")
    return [json.loads(line) for line in path.read_text().splitlines()[:epochs]]


def write_lines(run: Path, lines: list[dict[str, Any]]) -> None:
    """Put ``epochs.jsonl`` in place, and the learning curves where something is held out."""
    files = {run / EPOCHS: "".join(json.dumps(line) + "\n" for line in lines).encode()}
    if lines[-1].get("validation_auroc") is not None:
        files[run / CURVES] = draw_learning_curves(pd.DataFrame(lines))
    try:
        write_files(files)
    except OSError as error:
        raise TrainingStopped(
            f"{run / EPOCHS} can't be written: {error}; make room, then --resume"
        ) from None


def _locate_folders(run: Path) -> tuple[Path, Path, Path]:
    return run / FOLDER, run / f".{FOLDER}.new", run / f".{FOLDER}.old"
