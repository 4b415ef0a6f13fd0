"""Decision rules and figures, each against a value worked out by hand."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from bcd_models import BCDClassifier
from bcd_models.cli.info import info
from bcd_models.config import DecisionConfig
from bcd_models.decision import calibrate, sigmoid
from bcd_models.errors import InputError
from bcd_models.local import metrics
from bcd_models.local.calibration import fit_line, measure_calibration
from bcd_models.local.points import OPERATING_POINTS, band_around, choose_points, fit_decision
from tests.support import synthetic

FRAME = pd.DataFrame(
    {
        "source": ["idc"] * 100 + ["breakhis"] * 20,
        "label": ["malignant"] * 25 + ["benign"] * 75 + ["malignant"] * 18 + ["benign"] * 2,
        "case_id": [f"idc/{i % 12}" for i in range(100)] + ["breakhis/1"] * 20,
    }
)


def sample(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 2, n)
    return margins, rng.random(n) < sigmoid(0.5 * margins - 1)


def test_decision_rule_recovers_the_line() -> None:
    margins, truth = sample(20_000)
    rule = fit_decision(margins, truth, refer_share=0.1)
    assert rule.slope == pytest.approx(0.5, abs=0.05)
    assert rule.intercept == pytest.approx(-1, abs=0.05)
    probability = calibrate(margins, rule)
    low, high = rule.refer
    assert ((probability >= low) & (probability <= high)).mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("reach", [0.0, 1e-17, 0.5, np.inf])
def test_a_band_holds_its_threshold(reach: float) -> None:
    for threshold in np.random.default_rng(0).random(500).tolist():
        DecisionConfig(threshold=threshold, refer=band_around(threshold, reach))


def test_a_point_added_as_one_entry_is_found_where_a_user_looks(
    light_model: BCDClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def call_everything(probability: np.ndarray, _truth: np.ndarray, _balanced: float) -> float:
        return float(probability.min())

    monkeypatch.setitem(OPERATING_POINTS, "everything", call_everything)
    margins, truth = sample()
    rule = fit_decision(margins, truth, refer_share=0)
    model = copy(light_model)
    model.config = model.config.model_copy(update={"decision": rule})
    model.save_pretrained(tmp_path)
    again = BCDClassifier.from_pretrained(tmp_path)
    assert again.config.decision == rule
    threshold = rule.points["everything"].threshold
    answer = again.predict(synthetic.patch("benign", seed=1), point="everything")
    assert (answer.threshold, answer.point) == (threshold, "everything")
    with pytest.raises(InputError, match="no operating point 'all' of this model: choose one of b"):
        again.predict(synthetic.patch("benign", seed=1), point="all")
    info(str(tmp_path))
    printed = " ".join(capsys.readouterr().out.split())
    assert f"point everything threshold {threshold:.3f}" in printed


def test_points_keep_what_they_are_named_for() -> None:
    margins, truth = sample()
    rule = fit_decision(margins, truth, refer_share=0)
    probability = calibrate(margins, rule)
    assert list(rule.points) == ["balanced", "screening", "confirm"]
    assert rule.threshold == rule.points["balanced"].threshold == pytest.approx(truth.mean())
    screening, confirm = (rule.points[name].threshold for name in ("screening", "confirm"))
    found = probability[truth] >= screening
    assert found.mean() >= 0.95
    assert (probability[truth] > screening).sum() == found.sum() - 1  # no higher one would do
    spared = probability[~truth] < confirm
    assert spared.mean() >= 0.95
    below = probability[~truth][spared].max()
    assert (probability[~truth] < below).mean() < 0.95


@pytest.mark.parametrize("balanced", [None, 0.3])
@pytest.mark.parametrize("gap", [0.5, 2, 4, 50])
def test_screening_finds_and_confirm_spares_no_less_than_balanced(
    gap: float, balanced: float | None
) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.3
    margins = rng.normal(0, 1, 600) + gap * truth
    rule = fit_decision(margins, truth, refer_share=0)
    points = choose_points(calibrate(margins, rule), truth, balanced)
    thresholds = {name: point.threshold for name, point in points.items()}
    assert thresholds["screening"] <= thresholds["balanced"] <= thresholds["confirm"]
    assert thresholds["balanced"] == (balanced or pytest.approx(truth.mean()))
    assert rule.own_point == "balanced"


def test_figures_by_hand() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    probability = np.array([0.9, 0.6, 0.2, 0.7, 0.1, 0.1, 0.3])
    found = metrics.compute_figures(truth, probability, threshold=0.5)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["false_negative_rate"] == pytest.approx(1 / 3)
    assert found["specificity"] == pytest.approx(3 / 4)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, probability))
    assert found["sensitivity_at_90_specificity"] == pytest.approx(1 / 3)


def test_resamples_draw_whole_cases_within_a_source() -> None:
    drawn = metrics.draw_resamples(FRAME["case_id"], FRAME["source"], count=20)
    for rows in drawn:
        cases = FRAME["case_id"].iloc[rows].value_counts()
        whole = FRAME["case_id"].value_counts()
        assert ((cases % whole.loc[cases.index]) == 0).all()
        assert (FRAME["source"].iloc[rows] == "breakhis").sum() == 20


def test_intervals_hold_the_value_and_pairs_are_tighter() -> None:
    margins, truth = sample()
    scores = sigmoid(margins)
    cases, sources = pd.Series(np.arange(600) // 10), pd.Series(["idc"] * 600)
    drawn = metrics.draw_resamples(cases, sources, count=200)
    auroc = metrics.measure_interval(metrics.auroc, truth, scores, drawn)
    assert auroc.low < auroc.value < auroc.high
    noisy = scores + np.random.default_rng(1).normal(0, 0.01, 600)
    gap = metrics.measure_difference(metrics.auroc, truth, scores, noisy, drawn)
    assert gap.high - gap.low < auroc.high - auroc.low


def test_calibration_of_a_calibrated_score() -> None:
    rng = np.random.default_rng(2)
    probability = rng.random(30_000)
    truth = rng.random(30_000) < probability
    found = measure_calibration(truth, probability)
    assert found["slope"] == pytest.approx(1, abs=0.05)
    assert found["intercept"] == pytest.approx(0, abs=0.05)
    floor = found["ece_if_perfectly_calibrated"]
    assert metrics.expected_calibration_error(truth, probability) < 3 * floor


@pytest.mark.parametrize("number", [0.1, 27.631, 1e6])
def test_a_number_that_is_always_the_same_has_no_slope(number: float) -> None:
    truth = np.arange(300) % 3 == 0
    slope, intercept = fit_line(np.full(300, number), truth)
    assert abs(slope * number) < 1e-6
    assert sigmoid(intercept + slope * number) == pytest.approx(truth.mean(), abs=1e-6)


def test_small_subgroups_are_not_estimable() -> None:
    assert metrics.is_estimable(FRAME[FRAME["source"] == "idc"])
    assert not metrics.is_estimable(FRAME[FRAME["source"] == "breakhis"])
