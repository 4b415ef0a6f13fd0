"""The app as users start it, in a process of its own on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import torch

from bcd_models import BCDClassifier
from bcd_models.config import (
    DecisionConfig,
    Estimate,
    ModelConfig,
    OperatingPoint,
    PreprocessConfig,
    SuitabilityConfig,
)
from bcd_models.hub.folder import read_config
from tests.support.processes import running

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "space" / "examples"
PATIENCE = 180  # seconds for a start on a busy machine


@contextmanager
def running_app(
    models: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[str]:
    """Start the app with some models and settings; yields its address.

    Its data folder is its own and goes at the end, unless the environment names one; so does what
    it prints, unless there is a file for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = {"BCD_DATA_FOLDER": f"{folder}/data", **(environment or {})}
        with _process(models, settings, log or Path(folder) / "log") as address:
            yield address


@contextmanager
def _process(models: Sequence[str | Path], settings: Mapping[str, str], log: Path) -> Iterator[str]:
    environment = {
        **os.environ,
        **settings,
        "BCD_MODELS": ",".join(map(str, models)),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # as in the tests, so that sums round alike
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(ROOT / "space" / "app.py"), "--port", str(_free_port())]
    with (
        log.open("w") as output,
        running(command, env=environment, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        yield _address(process, log)


POINTS = {
    "balanced": OperatingPoint(
        threshold=0.4,
        refer=(0.35, 0.45),
        sensitivity=Estimate(value=0.886, low=0.85, high=0.91),
        specificity=Estimate(value=0.8, low=0.7, high=0.9),
        prevalence=0.25,
    ),
    "all": OperatingPoint(
        threshold=0.001, sensitivity=Estimate(value=1, low=1, high=1), specificity=None
    ),
    "none": OperatingPoint(
        threshold=0.999,
        sensitivity=Estimate(value=0.25, low=0.2, high=0.3),
        specificity=Estimate(value=0.75, low=0.7, high=0.8),
    ),
}


def read_suitability() -> SuitabilityConfig | None:
    """What the bundled models tell tissue by."""
    return read_config(ROOT / "cards" / "bcd-mobilenetv2").suitability


def save_small_model(
    folder: Path,
    name: str,
    backbone: str = "mobilenetv2",
    points: Mapping[str, OperatingPoint] = MappingProxyType({}),
    suitability: SuitabilityConfig | None = None,
) -> Path:
    """Save a real, quick model with random weights that tells the examples apart."""
    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    config = ModelConfig(
        name=name,
        version="1.2.3",
        backbone=backbone,
        preprocess=PreprocessConfig(input_size=64, mean=half, std=half),
        suitability=suitability,
    )
    path = folder / name
    BCDClassifier(config).save_pretrained(path)
    model = BCDClassifier.from_pretrained(path)
    with torch.inference_mode():
        benign, malignant = model(model.preprocess(sorted(EXAMPLES.glob("*.png")))).T
    slope = 2 / float((malignant - benign).std())
    decision = DecisionConfig(
        slope=slope,
        intercept=-slope * float((malignant - benign).mean()),
        threshold=0.4,
        refer=(0.35, 0.45),
        points=dict(points),
    )
    model.config = config.model_copy(update={"decision": decision})
    model.save_pretrained(path)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait for the line that tells the address."""
    deadline = time.monotonic() + PATIENCE
    written = ""
    while time.monotonic() < deadline and process.poll() is None:
        written = log.read_text()
        for line in written.splitlines():
            if line.startswith("Open http"):
                return line.removeprefix("Open ").strip()
        time.sleep(0.1)
    raise RuntimeError(f"the app did not start:\n{written}")
