"""Runs the ``bcd`` command in the tests' own process."""

from __future__ import annotations

import io
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from bcd_models.cli import main

COMMAND = (sys.executable, "-m", "bcd_models.cli")  # in a process of its own


@dataclass(frozen=True)
class Done:
    """What is left of a command that ran in this process."""

    returncode: int
    stdout: str
    stderr: str


def bcd(*arguments: str | Path) -> Done:
    """Run the command here: a process of its own takes seconds to import torch."""
    written = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(b, "utf-8", newline="", write_through=True) for b in written)
    with warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["bcd", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
    code = int(ended.value.code or 0)
    return Done(code, *(b.getvalue().decode() for b in written))
