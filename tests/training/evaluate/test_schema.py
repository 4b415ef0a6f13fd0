"""The schema of ``metrics.json``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bcd_models.errors import InputError
from tests.conftest import CARDS, MODELS, ROOT
from training.evaluate import schema as measured


def test_the_schema_in_docs_is_the_exported_one(tmp_path: Path) -> None:
    measured.main(tmp_path / "schema.json")
    exported = (tmp_path / "schema.json").read_text()
    assert (ROOT / "docs" / "metrics.schema.json").read_text() == exported
    assert json.loads(exported)["additionalProperties"] is False


@pytest.mark.parametrize("name", MODELS)
def test_published_metrics_are_valid(name: str) -> None:
    path = CARDS / name / "metrics.json"
    document = measured.read(path)
    assert document.model_dump(exclude_unset=True) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": 2}, "schema version 2, newer than 1"),
        ({"schema_version": 0}, "schema_version: Input should be 1"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"intervals": 95}, "intervals: Input should be a valid string"),
        ({"macro_over_cases": {"cases": "36", "auroc": None}}, r"macro_over_cases\.cases"),
        ({"overall": {}}, r"overall\.auroc: Field required"),
    ],
)
def test_metrics_are_read_strictly(tmp_path: Path, change: dict, reason: str) -> None:
    document = json.loads((CARDS / MODELS[0] / "metrics.json").read_text())
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(document | change))
    with pytest.raises(InputError, match=reason):
        measured.read(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema_version": NaN}', "\0"])
def test_other_files_are_no_metrics(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"metrics\.json"):
        measured.read(path)
    with pytest.raises(InputError, match="is no metrics file"):
        measured.read(tmp_path / "none.json")


def test_an_interval_must_not_be_upside_down() -> None:
    with pytest.raises(ValueError, match=r"low end 0\.6 is above its high end 0\.5"):
        measured.Estimate(value=0.5, low=0.6, high=0.5)
