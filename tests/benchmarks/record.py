"""Collects benchmark ratios in bench.json, with the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import torch

RESULTS = Path("bench.json")


def record(
    what: str,
    baseline: str,
    ratio: float,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> None:
    """Add one ratio to ``bench.json``, print it, and fail where it misses its bound."""
    document = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    document["machine"] = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    bound = {"at_most": at_most} if at_most is not None else {"at_least": at_least}
    entry = {"baseline": baseline, "ratio": round(ratio, 4), **bound}
    document.setdefault("ratios", {})[what] = entry
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\n{what}: {ratio:.3f} of {baseline} ({bound})")
    assert at_most is None or ratio <= at_most
    assert at_least is None or ratio >= at_least
