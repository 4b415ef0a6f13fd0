"""What a model costs to keep and to run: its size, its multiply-adds, its time on this machine."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bcd_models.config import Strict
from bcd_models.hub.folder import WEIGHTS
from bcd_models.models.classifier import BCDClassifier

BATCH = 32
REPEATS = 7
_SIDE = 50  # pixels, of the larger corpus' patches


class Cost(Strict):
    """What one model costs.

    Attributes:
        parameters: Numbers that are learnt.
        macs: Multiply-adds of one pass, by torch's own count of floating-point operations.
        views: Passes an image takes: the views of it that the model averages over.
        input_size: Side in pixels of the network's input.
        file_bytes: Size of the weights file.
        latency_ms: Of one image, from pixels in memory to calibrated probability.
        throughput: Images a second, the same way, in batches.
        batch: Images of such a batch.
        repeats: The two times are medians of so many.
    """

    parameters: int
    macs: int
    views: int
    input_size: int
    file_bytes: int
    latency_ms: float
    throughput: float
    batch: int = BATCH
    repeats: int = REPEATS


class Machine(Strict):
    """Where times were measured."""

    processor: str
    threads: int
    torch: str


def measure_cost(folder: Path) -> Cost:
    """Measure the model of a model folder, on the CPU."""
    model = BCDClassifier.from_pretrained(folder)
    other = BCDClassifier.from_pretrained(folder)  # or torch would answer from now on
    return Cost(
        parameters=model.parameter_count,
        macs=count_multiply_adds(other.network, model.config.preprocess.input_size),
        views=model.config.decision.views,
        input_size=model.config.preprocess.input_size,
        file_bytes=(folder / WEIGHTS).stat().st_size,
        latency_ms=1000 * _seconds(model, 1),
        throughput=BATCH / _seconds(model, BATCH),
    )


def count_multiply_adds(network: torch.nn.Module, size: int) -> int:
    """Count multiply-adds of one pass: half of torch's count of floating-point operations."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops() // 2)


def describe_machine() -> Machine:
    """Describe this machine."""
    return Machine(
        processor=_name_processor(), threads=torch.get_num_threads(), torch=str(torch.__version__)
    )


def _seconds(model: BCDClassifier, images: int) -> float:
    noise = np.random.default_rng(0).integers(0, 256, (images, _SIDE, _SIDE, 3), np.uint8)
    times = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        model.predict_proba(list(noise))
        times.append(time.perf_counter() - started)
    return median(times[1:])  # the first one warms up


def _name_processor() -> str:
    """Return the processor's name as Linux gives it; elsewhere what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
