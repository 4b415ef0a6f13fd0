"""Documents name tests that exist."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def test_every_test_named_in_the_documents_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "inputs.md").read_text()))
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    missing = [name for name in named if f"def {name}(" not in written]
    assert len(named) > 25
    assert missing == []
