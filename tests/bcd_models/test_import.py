"""Importing the package is cheap, and its public names are all there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bcd_models


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, bcd_models; print(*sorted({'torch', 'PIL', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names_resolve() -> None:
    assert all(getattr(bcd_models, name) for name in bcd_models.__all__)
    assert dir(bcd_models) == sorted(bcd_models.__all__)
    with pytest.raises(AttributeError, match="surprise"):
        _ = bcd_models.surprise
