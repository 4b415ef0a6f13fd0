"""Operating points of the published models: fitted again, they are those in the cards."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from bcd_models import BCDClassifier
from bcd_models.config import DecisionConfig, HeldOut, Provenance
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from bcd_models.local import metrics
from bcd_models.local.referral import HEADLINE
from tests.conftest import ROOT
from training import command
from training.card import write as card
from training.corpus.selection import open_corpus
from training.evaluate import answers
from training.evaluate.answers import ANSWERS
from training.evaluate.decide import decisions, fit, page
from training.evaluate.reliability import measure_reliability
from training.evaluate.schema import Counts
from training.run_folder import RUN_FILE

CARDS = ROOT / "cards"
MARGINS = CARDS / "study" / "0.2.0" / "predictions.parquet"
ARMS = {
    "bcd-mobilenetv2": "mobilenetv2/tuned",
    "bcd-efficientnet-b2": "efficientnet_b2/tuned",
}


@pytest.mark.parametrize("name", ARMS)
def test_the_cards_hold_what_the_records_give(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(CARDS / name, folder)
    asked = ["--model", str(folder), "--margins", str(MARGINS), "--arm", ARMS[name]]
    with pytest.raises(SystemExit) as end:
        command.run(fit.main, asked)
    assert end.value.code == 0
    for file in (decisions.DECISIONS, "config.json"):  # processors differ in the last digit
        found, published = (read_leaves(one / file) for one in (folder, CARDS / name))
        assert found.keys() == published.keys()
        for place, value in published.items():
            near = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            assert found[place] == near, place
    assert (folder / decisions.CURVE).read_bytes().startswith(b"\x89PNG")
    assert (CARDS / name / decisions.CURVE).is_file()


def read_leaves(path: Path) -> dict[str, Any]:
    """Every value of a JSON file, by its place."""

    def walk(value: Any, place: str) -> Iterator[tuple[str, Any]]:
        if not isinstance(value, (dict, list)):
            yield place, value
            return
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from walk(inner, f"{place}.{key}")

    return dict(walk(json.loads(path.read_bytes()), ""))


def test_figures_are_those_of_the_margins() -> None:
    frame = fit.read_margins(MARGINS, "mobilenetv2/tuned")
    within = frame[frame["source"] == "idc"].reset_index(drop=True)
    rule = BCDClassifier.from_pretrained(CARDS / "bcd-mobilenetv2").config.decision
    truth = metrics.is_malignant(within)
    probability = calibrate(within["margin"].to_numpy(), rule)
    for name, figures in fit.fit_points(within, rule).items():
        point = figures.point
        called = probability >= point.threshold
        assert point.sensitivity is not None
        assert point.specificity is not None
        assert point.negative_predictive_value is not None
        assert point.sensitivity.value == pytest.approx(called[truth].mean())
        assert point.specificity.value == pytest.approx((~called[~truth]).mean())
        assert point.negative_predictive_value.value == pytest.approx((~truth[~called]).mean())
        assert [one.alpha for one in figures.promises] == [0.02, 0.05, 0.1]
        assert all(one.realised.loss <= one.alpha for one in figures.promises)
        shares = [one.realised.referred for one in figures.promises]
        assert shares == sorted(shares, reverse=True)
        if name == "screening":
            assert np.round(point.sensitivity.value, 3) >= 0.95
        if name == "confirm":
            assert point.specificity.value >= 0.95


def test_an_unknown_arm_is_refused() -> None:
    with pytest.raises(InputError, match="holds no fold of resnet/plain"):
        fit.read_margins(MARGINS, "resnet/plain")


def drawn(cases: int, scale: float = 1.0) -> pd.DataFrame:
    """Margins of cases in five folds, calibrated at scale 1."""
    rng = np.random.default_rng(0)
    case = np.repeat(np.arange(cases), 20)
    margins = rng.normal(0, 2, len(case))
    malignant = rng.random(len(case)) < expit(margins)
    return pd.DataFrame(
        {
            "margin": margins * scale,
            "label": np.where(malignant, "malignant", "benign"),
            "case_id": case.astype(str),
            "source": "idc",
            "fold": case % 5,
        }
    )


def test_probabilities_that_round_to_one_are_told_apart() -> None:
    for figures in fit.fit_points(drawn(60, scale=100), DecisionConfig()).values():
        assert all(0 < one.realised.loss <= one.alpha for one in figures.promises)


def test_the_headline_s_band_is_used_and_an_unpromised_one_where_cases_are_too_few() -> None:
    rule = DecisionConfig(refer=(0.4, 0.6))
    for cases, promised in ((60, True), (20, False)):
        points = fit.fit_points(drawn(cases), rule)
        for name, figures in points.items():
            bands = [one.refer for one in figures.promises if one.alpha == HEADLINE]
            kept = rule.refer if name == "balanced" else None
            assert figures.point.refer == (bands[0] if promised else kept)


def test_a_promise_of_too_few_cases_leaves_its_place_empty() -> None:
    frame = drawn(30)
    points = fit.fit_points(frame, DecisionConfig())
    document = decisions.Decisions(
        weights_sha256="",
        arm="a/b",
        source="idc",
        counts=Counts(**metrics.count_images(frame)),
        calibration=measure_reliability(frame),
        points=points,
    )
    text = page.tabulate(document)
    assert text.count("| 2% | too few cases |") == 3  # which takes 49
    assert text.count("| 5% | too few cases |") == 0
    assert text.count(" cases above 20%, ") == 6  # MAPIE's, beside the two that hold
    assert page.CAUTION in text
    brief = page.tabulate_promises({"A model": document})
    assert "| A model | 2% | too few cases |" in brief
    number = r"\d\.\d{3}"
    found = rf"\| A model \| 5% \| {number} to {number} \| \d+\.\d% \| [0-4]\.\d% \|"
    assert re.search(found, brief)


def test_margins_that_decide_nothing_are_refused() -> None:
    for wrong in (drawn(9), drawn(60).assign(label="benign")):
        with pytest.raises(InputError, match="of one label, or of fewer than 10 cases"):
            fit.fit_points(wrong, DecisionConfig())
    with pytest.raises(InputError, match="holds 1 fold of efficientnet_b2"):
        fit.read_margins(MARGINS, "efficientnet_b2/3-epochs-MixUp-0.2")


@pytest.fixture(scope="module")
def fold_runs(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs of all folds of a miniature corpus, of which the answers alone were kept."""
    opened = open_corpus(corpus_folder, "grouped")
    rng, above = np.random.default_rng(0), tmp_path_factory.mktemp("runs")
    truth = metrics.is_malignant(opened.table)
    margins = rng.normal(2 * truth - 1, 1.5)
    for fold in range(5):
        held = (opened.split.fold == fold).to_numpy()
        said = {"views_1": margins, "views_4": margins + truth - 0.5}
        (above / str(fold)).mkdir()
        frame = pd.DataFrame({name: np.where(held, one, np.nan) for name, one in said.items()})
        frame.to_parquet(above / str(fold) / ANSWERS)
        provenance = Provenance(
            split="grouped",
            split_sha256=opened.split.sha256,
            corpus_fingerprint=opened.about["fingerprint"],
            held_out=HeldOut(fold=fold),
        )
        (above / str(fold) / RUN_FILE).write_text(provenance.model_dump_json())
    return sorted(above.iterdir())


def test_recorded_answers_give_a_rule_for_images_and_one_for_tiles(
    fold_runs: list[Path], corpus_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(CARDS / "bcd-mobilenetv2", folder)
    model = BCDClassifier.from_pretrained(folder)
    several = model.config.decision.model_copy(update={"views": 4, "slope": 1.0, "intercept": 0.0})
    model.config = model.config.model_copy(update={"decision": several})
    (folder / "config.json").write_bytes(model.files()["config.json"])
    runs = [word for run in fold_runs for word in ("--run", str(run))]
    asked = ["--model", str(folder), "--corpus", str(corpus_folder), *runs, "--context", "1.5"]
    with pytest.raises(SystemExit) as end:
        command.run(fit.main, asked)
    assert end.value.code == 0
    model = BCDClassifier.from_pretrained(folder)
    rule, tiles = model.config.decision, model.config.for_tiles
    assert (rule.views, rule.slope) == (4, 1.0)
    assert (tiles.views, tiles.context) == (1, 1.5)
    assert rule.points.keys() == tiles.points.keys()
    frame = answers.read_folds(fold_runs, open_corpus(corpus_folder, "grouped"))
    frame = frame[frame["source"] == "idc"]
    truth = metrics.is_malignant(frame)
    for one, column in ((rule, "views_4"), (tiles, "views_1")):
        point = one.points["screening"]
        called = calibrate(frame[column].to_numpy(), one) >= point.threshold
        assert point.sensitivity is not None
        assert point.sensitivity.value == pytest.approx(called[truth].mean())
        assert called[truth].mean() >= 0.95
    by_tile = decisions.read(folder, model.weights_sha256, decisions.TILE_DECISIONS)
    assert by_tile is not None
    assert by_tile.counts.images == len(frame)
    assert "looked at once and averaged" in card.render(folder)
    with pytest.raises(SystemExit):
        command.run(fit.main, ["--model", str(folder)])
