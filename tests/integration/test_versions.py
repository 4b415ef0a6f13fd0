"""Package, cards and changelog have one version."""

from __future__ import annotations

import json
import re

import pytest

from bcd_models import __version__
from tests.conftest import CARDS, MODELS, ROOT


@pytest.mark.parametrize("name", MODELS)
def test_a_card_has_the_package_s_version(name: str) -> None:
    config = json.loads((CARDS / name / "config.json").read_text())
    assert config["bcd"]["version"] == __version__


def test_the_changelog_begins_with_the_package_s_version() -> None:
    (newest, *_) = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == __version__
