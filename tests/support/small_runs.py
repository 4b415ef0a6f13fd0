"""Miniature trainings in processes of their own, which may be killed or denied disk space."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from safetensors.torch import load_file

from training import command
from training.train import run as train

RECIPE: dict[str, Any] = {
    "name": "bcd-small",
    "version": "0.0.1",
    "backbone": "mobilenetv2",
    "start": "none",
    "settle_batches": 1,
    "phases": [
        {"size": 32, "epochs": 1, "learning_rate": 0.002},
        {"size": 48, "epochs": 1, "learning_rate": 0.001},
    ],
    "batch_size": 16,
    "ema": 0.9,
    "augment": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "mixup": 0.2},
}
PATIENCE = 600  # seconds, for a machine that does ten other things


def write(path: Path, **changes: Any) -> Path:
    """A recipe's file: the one above, changed."""
    path.write_text(yaml.safe_dump(RECIPE | changes))
    return path


def arguments(config: Path, corpus: Path, out: Path, *more: str) -> list[str]:
    """What a user types after ``python -m training.train``."""
    return ["--config", str(config), "--corpus", str(corpus), "--out", str(out), *more]


def begin(
    asked: list[str],
    said: Path | None = None,
    most_bytes: int | None = None,
    processes: dict[str, str] | None = None,
) -> ForkServerProcess:
    """Start the command in a process that has imported everything already.

    Args:
        asked: Its arguments.
        said: File for what it prints.
        most_bytes: No file may grow larger, as if the disk were full.
        processes: Environment that makes it one of several.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.support.small_runs"])
    process = context.Process(target=_run, args=(asked, said, most_bytes, processes or {}))
    process.start()
    return process


def begin_together(asked: list[str], count: int) -> list[ForkServerProcess]:
    """Start the command as so many processes of one run, joined on the loopback device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_PORT": port}
    shared["MASTER_ADDR"] = "127.0.0.1"
    return [
        begin(asked, processes=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]


def _run(
    asked: list[str], said: Path | None, most_bytes: int | None, processes: dict[str, str]
) -> None:
    with open(said or os.devnull, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    os.environ.update(processes)
    torch.set_num_threads(1)
    if most_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    command.run(train.main, asked)


def wait_for_exit(process: ForkServerProcess) -> int | None:
    """Return the exit code, once there is one; None where it had to be killed."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    return process.exitcode


def kill_when(process: ForkServerProcess, moment: Callable[[], bool]) -> None:
    """SIGKILL a process as soon as something is so; it may not end before."""
    deadline = time.monotonic() + PATIENCE
    try:
        while not moment():
            assert process.exitcode is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.kill()
        process.join()


def lines(run: Path) -> list[dict[str, Any]]:
    """A run's epochs, without how long each took."""
    found = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def parameters(run: Path) -> dict[str, torch.Tensor]:
    """What a run's last checkpoint has learnt: all but batch norms' statistics."""
    saved = load_file(run / "checkpoint" / "model.safetensors")
    return {n: t for n, t in saved.items() if not n.endswith(("_mean", "_var", "_tracked"))}


def furthest(first: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference between two sets of tensors of the same names."""
    assert first.keys() == other.keys()
    return max(float((first[name] - t).abs().max()) for name, t in other.items())


def assert_equal(run: Path, unbroken: Path) -> None:
    """Two runs ended alike, bit for bit."""
    first, other = ((r / "model" / "model.safetensors").read_bytes() for r in (run, unbroken))
    assert first == other
    assert lines(run) == lines(unbroken)
    tables = (pd.read_parquet(r / "predictions.parquet") for r in (run, unbroken))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
