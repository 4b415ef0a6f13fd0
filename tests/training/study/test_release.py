"""A tested run becomes a model folder: its figures, its cost, its card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from bcd_models.config import Estimate
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.local.robustness import KeyFigures
from tests.conftest import CARDS
from tests.support.reports import make_report
from training.card import write as card
from training.compare.schema import Report
from training.evaluate import schema as measured
from training.evaluate.decide import decisions
from training.evaluate.robustness import Robustness
from training.run_folder import change_config
from training.study import release
from training.study.slides import Slides

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


def spoil(path: Path) -> None:
    """Let a file of figures name other weights."""
    sha256 = model_folder.read_weights(MODEL)[1]
    text = path.read_text()
    assert sha256 in text
    path.write_text(text.replace(sha256, "0" * 64))


@pytest.mark.parametrize(
    "name", ["metrics-test.json", "model/decisions.json", "model/robustness.json"]
)
def test_figures_of_other_weights_are_refused(run: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(MODEL / "decisions.json", run / "model")
    (run / "model" / "robustness.json").write_text(make_ladder().model_dump_json())
    release.release(run, tmp_path / "cards")
    spoil(run / name)
    with pytest.raises(InputError, match="other weights"):
        release.release(run, tmp_path / "cards")


def make_ladder() -> Robustness:
    """A ladder of one rung, at which the model stops being usable."""
    metrics = measured.read(MODEL / "metrics.json")
    figures = {name: metrics.overall[name] for name in KeyFigures.model_fields}
    lost = dict.fromkeys(figures, Estimate(value=-0.3, low=-0.4, high=-0.2))
    rung = {"name": "jpeg_80_420", "kind": "JPEG 4:2:0", "words": "quality 80", "unseen": False}
    return Robustness.model_validate(
        {
            "schema_version": 1,
            "models": (metrics.model,),
            "arm": "mobilenetv2/degraded",
            "draw": {
                "corpus_fingerprint": metrics.data.corpus_fingerprint,
                "split": metrics.data.split,
                "split_sha256": metrics.data.split_sha256,
                "source": "idc",
                "max_patches": 2000,
                "min_cases": 100,
                "seed": 0,
                "counts": metrics.data.counts,
            },
            "intervals": metrics.intervals,
            "clean": figures,
            "rungs": ({**rung, "figures": figures, "minus_clean": lost},),
            "stops_at": {"JPEG 4:2:0": "jpeg_80_420"},
            "notice": metrics.notice,
        }
    )


def test_a_ladder_stands_in_the_card_with_where_it_stops(run: Path, tmp_path: Path) -> None:
    (run / "model" / "robustness.json").write_text(make_ladder().model_dump_json())
    text = (release.release(run, tmp_path / "cards") / "README.md").read_text()
    assert "### When images grow worse" in text
    assert "| **JPEG 4:2:0, quality 80** |" in text
    assert "of mobilenetv2/degraded that had not learnt" in text


def make_report_of(run: Path, auroc: Estimate) -> Report:
    """A comparison of which a run is part, with this AUROC over BreaKHis' patients."""
    metrics = measured.read(run / "metrics-test.json")
    assert metrics.within
    named = {"run": "all", "backbone": "MobileNetV2", "arm": "tuned", "learnt": "all"}
    counts = metrics.data.counts
    other = {"source": "breakhis", "counts": counts, "called": {"adenosis": (4, 0.25)}}
    levels = dict.fromkeys(("tile", "image", "case"), auroc)
    group = {"counts": counts, "specificity": auroc}
    dark, bright = (Estimate(value=value, low=0.1, high=0.99) for value in (0.97, 0.48))
    ladder = make_ladder().model_dump(include={"clean", "rungs", "stops_at"})
    empty: dict[str, Any] = {"clean": (), "gains": {}, "climb": ladder, "context": None}
    asked = {
        "arm": "mobilenetv2/tuned, seed 0",
        "folds": (0, 1),
        "views": 1,
        "calibration": decisions.read(MODEL, metrics.model.weights_sha256).calibration,  # type: ignore[union-attr]
        "one_view": auroc,
        "groups": (
            {**group, "by": "brightness", "low": 0, "high": 99, "recall": dark},
            {**group, "by": "brightness", "low": 99, "high": 255, "recall": bright},
        ),
        "others": ({**other, "learnt": True, "auroc": levels},),
        **empty,
    }
    sha256 = metrics.model.weights_sha256
    tested = {**named, "weights_sha256": sha256, "within": metrics.within}
    return make_report(asked=(asked,), tested=(tested,))


@pytest.mark.parametrize("low", [0.79, 0.80])
def test_cameras_are_answered_for_by_the_report(run: Path, tmp_path: Path, low: float) -> None:
    auroc = Estimate(value=0.9, low=low, high=0.95)
    folder = release.release(run, tmp_path / "cards", report=make_report_of(run, auroc))
    cameras = model_folder.read_config(folder).cameras
    assert cameras is not None
    assert (cameras.auroc, cameras.is_enough) == (auroc, low >= 0.8)
    text = (folder / "README.md").read_text()
    assert ("**not validated for microscope cameras**" in text) == (low < 0.8)
    assert "| BreaKHis | its other cases |" in text
    assert "adenosis 25.0% of 4 |" in text
    assert "recall runs from 48.0% (10.0% to 99.0%) in the brightest quarter to" in text
    assert "97.0% (10.0% to 99.0%) in the darkest" in text


def test_a_report_or_slides_of_other_weights_are_refused(run: Path, tmp_path: Path) -> None:
    report = make_report_of(run, Estimate(value=0.9, low=0.8, high=0.95))
    sha256 = report.tested[0].weights_sha256
    stored = Slides(name="bcd-mobilenetv2", weights_sha256=sha256, cases=(), stored=())
    release.check_weights([run], report, stored)
    other = report.model_copy(
        update={"tested": (report.tested[0].model_copy(update={"weights_sha256": "0" * 64}),)}
    )
    with pytest.raises(InputError, match="no test figures of"):
        release.check_weights([run], other, stored)
    with pytest.raises(InputError, match="of other weights"):
        release.check_weights([run], report, stored.model_copy(update={"weights_sha256": "0" * 64}))


def test_the_gate_comes_along(run: Path, tmp_path: Path) -> None:
    gate = model_folder.read_config(MODEL).suitability
    change_config(run / "model", {"suitability": None})
    folder = release.release(run, tmp_path / "cards", gate=gate)
    assert model_folder.read_config(folder).suitability == gate
    assert model_folder.read_config(run / "model").suitability is None


def test_spoilt_lines_are_refused(run: Path, tmp_path: Path) -> None:
    (run / "epochs.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(InputError, match="can't be read"):
        release.release(run, tmp_path / "cards")
