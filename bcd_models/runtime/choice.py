"""Which runtime answers, and how many threads it gets."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal, get_args

from bcd_models.errors import InputError

Runtime = Literal["auto", "onnx", "torch"]
VARIABLE = "BCD_RUNTIME"
TORCH_REMEDY = "pip install 'bcd-models[torch]'"
EXPLAIN_REMEDY = "pip install 'bcd-models[explain]'"
EXPLAINERS = {"pytorch_grad_cam": "grad-cam", "shap": "shap", "captum": "captum"}


def default_runtime() -> Runtime:
    """Return the runtime named by BCD_RUNTIME, "auto" by default; InputError for an unknown one."""
    return check_runtime(os.environ.get(VARIABLE) or "auto")


def check_runtime(name: str) -> Runtime:
    """Return a runtime's name; InputError where there is none of that name."""
    for known in get_args(Runtime):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"no runtime {name!r}: choose one of {', '.join(get_args(Runtime))}")


def is_torch_installed() -> bool:
    """Return whether torch and timm can be imported."""
    return all(find_spec(name) is not None for name in ("torch", "timm"))


def require_torch(purpose: str) -> None:
    """Refuse what needs torch where it isn't installed.

    Args:
        purpose: What needs it, such as "training".

    Raises:
        InputError: torch or timm is missing; the message says how to install them.
    """
    missing = [name for name in ("torch", "timm") if find_spec(name) is None]
    if missing:
        raise InputError(f"{purpose} needs {' and '.join(missing)}: {TORCH_REMEDY}")


def require_explainer(module: str) -> None:
    """Refuse a method whose package isn't installed.

    Args:
        module: One of ``EXPLAINERS``.

    Raises:
        InputError: It is missing; the message says how to install it.
    """
    if find_spec(module) is None:
        raise InputError(f"this method needs {EXPLAINERS[module]}: {EXPLAIN_REMEDY}")


def thread_count() -> int:
    """Return how many threads a runtime gets: OMP_NUM_THREADS, else the process' cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
