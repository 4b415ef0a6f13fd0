"""Documents name tests, modules and functions that exist."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from pkgutil import resolve_name

import pytest

from bcd_models.prediction import COLUMNS, Prediction
from tests.conftest import ROOT


@pytest.mark.parametrize("document", ["docs/inputs.md", "SECURITY.md"])
def test_every_test_named_in_the_documents_exists(document: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / document).read_text()))
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    missing = [name for name in named if f"def {name}(" not in written]
    assert len(named) > 25
    assert missing == []


def test_every_column_and_key_of_an_answer_is_explained() -> None:
    page = (ROOT / "docs/inputs.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| (all|JSON|Parquet) \|", page, re.MULTILINE))
    assert [name for name, where in told.items() if where == "all"] == ["path", *COLUMNS]
    answer = Prediction("", "benign", 0.0, "benign", (), 0.5, None, "", "", "", 1, 1)
    keys = {name for name, where in told.items() if where != "Parquet"}
    assert keys == {"path", *answer.to_dict()}


def test_every_module_and_function_named_in_the_architecture_exists() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`((?:bcd_models|training|clinic)\.[\w.]+)`", page))
    assert len(named) > 45
    for name in named:
        resolve_name(name)


@pytest.mark.parametrize("package", ["bcd_models", "training", "space"])
def test_no_folder_holds_more_than_fourteen_modules_and_packages(package: str) -> None:
    modules = [path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")]
    entries = {place for module in modules for place in (module, *module.parents)}
    held = Counter(place.parent for place in entries if place.name != "__init__.py")
    assert held[Path(package)] > 1
    assert {folder: count for folder, count in held.items() if count > 14} == {}
