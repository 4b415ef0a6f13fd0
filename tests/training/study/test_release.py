"""A tested run becomes a model folder: its figures, its cost, its card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from bcd_models.errors import InputError
from tests.conftest import CARDS
from training.card import write as card
from training.evaluate import schema as measured
from training.study import release

MODEL = CARDS / "bcd-mobilenetv2"
LINES = [{"seconds": 4000.5, "hardware": "1 x CPU process of 1 threads"}, {"seconds": 30}]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was finished and tested, made of a published model."""
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(MODEL / name, run / "model")
    shutil.copy(MODEL / "metrics.json", run / "metrics-test.json")
    for name in ("evaluation-test.png", "risk-by-case-test.png"):
        (run / name).write_bytes(b"png")
    (run / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return run


def test_the_cost_of_training_comes_along(run: Path, tmp_path: Path) -> None:
    folder = release.release(run, tmp_path / "cards")
    cost = measured.read(folder / "metrics.json").training
    assert cost == measured.Training(
        epochs=2, seconds=4030.5, hardware="1 x CPU process of 1 threads"
    )
    text = (folder / "README.md").read_text()
    assert "1 h 7 min\non 1 x CPU process of 1 threads" in text
    assert text == card.render(folder)


def test_what_is_not_known_of_the_cost_is_said(run: Path, tmp_path: Path) -> None:
    (run / "epochs.jsonl").write_text('{"seconds": 42}\n')
    folder = release.release(run, tmp_path / "cards")
    assert "1 min\non hardware that is not recorded" in (folder / "README.md").read_text()
    unknown = measured.read(folder / "metrics.json").model_copy(update={"training": None})
    (folder / "metrics.json").write_text(unknown.model_dump_json())
    assert "time, hardware and energy" in card.render(folder)


def test_a_folder_without_a_report_is_refused(run: Path, tmp_path: Path) -> None:
    cards = tmp_path / "cards"
    with pytest.raises(InputError, match=r"report\.json is no report of training\.compare"):
        release.main([run], cards, report=tmp_path)
    assert not cards.exists()


def test_a_published_corpus_brings_the_hubs_form_of_the_figures(run: Path, tmp_path: Path) -> None:
    folder = release.release(run, tmp_path / "cards", "org/corpus")
    (entry, *_) = yaml.safe_load((folder / card.EVAL_RESULTS).read_text())
    assert entry["dataset"]["id"] == "org/corpus"
    assert (folder / "README.md").read_text() == card.render(folder, "org/corpus")


@pytest.mark.parametrize("name", ["epochs.jsonl", "metrics-test.json", "model/config.json"])
def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(InputError, match=name):
        release.release(run, tmp_path / "cards")
    assert not (tmp_path / "cards").exists()


def test_spoilt_lines_are_refused(run: Path, tmp_path: Path) -> None:
    (run / "epochs.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(InputError, match="can't be read"):
        release.release(run, tmp_path / "cards")
