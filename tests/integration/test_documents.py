"""Documents name tests, modules and functions that exist."""

from __future__ import annotations

import re
from pkgutil import resolve_name

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("document", ["docs/inputs.md", "SECURITY.md"])
def test_every_test_named_in_the_documents_exists(document: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / document).read_text()))
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    missing = [name for name in named if f"def {name}(" not in written]
    assert len(named) > 25
    assert missing == []


def test_every_module_and_function_named_in_the_architecture_exists() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`((?:bcd_models|training|clinic)\.[\w.]+)`", page))
    assert len(named) > 45
    for name in named:
        resolve_name(name)
