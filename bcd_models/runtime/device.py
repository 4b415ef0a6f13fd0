"""On which device a network computes."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from bcd_models.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
DRIVERS = Path("/proc/driver/nvidia/version"), Path("/dev/kfd")  # of NVIDIA's and AMD's GPUs


def choose_device(wanted: str = "auto") -> str:
    """Return the device to compute on: "cpu", "cuda", "mps", or one of several, such as "cuda:1".

    Args:
        wanted: "auto" is a GPU where there is one and torch that can use it, else the CPU. A
            process that ``accelerate launch`` or torchrun started takes the GPU of its own number.

    Raises:
        InputError: There is no such device here.
    """
    if wanted not in DEVICES:
        raise InputError(f"no device {wanted!r}: choose one of {', '.join(DEVICES)}")
    if wanted == "cpu" or (wanted == "auto" and not may_have_gpu()):
        return "cpu"
    if find_spec("torch") is None:
        if wanted == "auto":
            return "cpu"
        raise InputError(f"{wanted} needs torch: pip install 'bcd-models[torch]'")
    import torch

    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        rank = os.environ.get("LOCAL_RANK", "")
        return f"cuda:{int(rank) % torch.cuda.device_count()}" if rank.isdigit() else "cuda"
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        return "mps"
    if wanted == "auto":
        return "cpu"
    raise InputError(f"this machine has no {wanted} that torch can use: choose auto or cpu")


def may_have_gpu() -> bool:
    """Return whether it is worth importing torch, which takes seconds, to look for a GPU."""
    has_driver = any(path.exists() for path in DRIVERS) or shutil.which("nvidia-smi")
    return bool(has_driver) or sys.platform == "darwin"
