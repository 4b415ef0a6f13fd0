"""Figures against scikit-learn's, resample by resample."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from bcd_models.config import Estimate
from bcd_models.decision import sigmoid
from bcd_models.local import metrics

THRESHOLD = 0.4


@pytest.fixture(scope="module", params=["fine", "tied", "hopeless"])
def scored(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, metrics.Resamples]:
    """Truth and probability of 400 images of 23 cases, and resamples of them."""
    rng = np.random.default_rng(3)
    cases = pd.Series(rng.integers(0, 23, 400)).astype(str)
    sources = pd.Series(np.where(cases.astype(int) < 16, "idc", "breakhis"))
    margins = rng.normal(0, 2, 400)
    truth = rng.random(400) < sigmoid(margins - 1)
    probability = {
        "fine": sigmoid(margins),
        "tied": sigmoid(margins).round(1),
        "hopeless": np.full(400, 0.1),  # never called malignant
    }[request.param]
    return truth, probability, metrics.draw_resamples(cases, sources, count=25)


def by_sklearn(truth: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    called = probability >= THRESHOLD
    falls, rises, _ = sk.roc_curve(truth, probability, drop_intermediate=False)
    return {
        "auroc": sk.roc_auc_score(truth, probability),
        "auprc": sk.average_precision_score(truth, probability),
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "recall": sk.recall_score(truth, called),
        "false_negative_rate": 1 - sk.recall_score(truth, called),
        "specificity": sk.recall_score(~truth, ~called),
        "precision": sk.precision_score(truth, called, zero_division=0),
        "f1": sk.f1_score(truth, called),
        "sensitivity_at_90_specificity": max(rises[falls <= 0.1]),
        "sensitivity_at_95_specificity": max(rises[falls <= 0.05]),
        "brier": sk.brier_score_loss(truth, probability),
        "ece": plain_ece(truth, probability),
    }


def plain_ece(truth: np.ndarray, probability: np.ndarray) -> float:
    order = np.argsort(probability, kind="stable")
    gaps = [
        len(rows) * abs(probability[rows].mean() - truth[rows].mean())
        for rows in np.array_split(order, 10)
    ]
    return sum(gaps) / len(order)


def test_values_are_scikit_learns(scored) -> None:
    truth, probability, _ = scored
    found = metrics.compute_figures(truth, probability, THRESHOLD)
    assert found == pytest.approx(by_sklearn(truth, probability), abs=1e-12)
    assert list(found) == list(metrics.METRICS)


def test_every_resample_is_scikit_learns_on_the_repeated_rows(scored) -> None:
    truth, probability, drawn = scored
    found = metrics._resample_figures(truth, probability, THRESHOLD, drawn)
    for number, rows in enumerate(drawn):
        expected = by_sklearn(truth[rows], probability[rows])
        assert {name: values[number] for name, values in found.items()} == pytest.approx(
            expected, abs=1e-12
        )


@pytest.mark.parametrize("figure", [metrics.auroc, metrics.best_balanced_accuracy])
def test_intervals_and_differences_are_quantiles_of_the_plain_bootstrap(scored, figure) -> None:
    truth, probability, drawn = scored
    other = np.random.default_rng(0).random(len(truth))
    ours = [figure(truth[rows], probability[rows]) for rows in drawn]
    theirs = [figure(truth[rows], other[rows]) for rows in drawn]
    low, high = np.quantile(ours, (0.025, 0.975))
    found = metrics.measure_interval(figure, truth, probability, drawn)
    assert found.model_dump() == pytest.approx(
        {"value": figure(truth, probability), "low": low, "high": high}, abs=1e-12
    )
    low, high = np.quantile(np.subtract(ours, theirs), (0.025, 0.975))
    gap = metrics.measure_difference(figure, truth, probability, other, drawn)
    assert (gap.low, gap.high) == pytest.approx((low, high), abs=1e-12)


def test_best_balanced_accuracy_is_the_largest_of_all_thresholds(scored) -> None:
    truth, probability, _ = scored
    tried = [*probability, 2.0]
    best = max(sk.balanced_accuracy_score(truth, probability >= t) for t in tried)
    assert metrics.best_balanced_accuracy(truth, probability) == pytest.approx(best, abs=1e-12)


def test_differences_are_of_each_models_own_threshold(scored) -> None:
    truth, probability, drawn = scored
    found = metrics.measure_differences(truth, (probability, 0.4), (probability, 0.7), drawn)
    assert found["auroc"] == Estimate(value=0, low=0, high=0)
    recalls = [sk.recall_score(truth, probability >= t) for t in (0.4, 0.7)]
    assert found["recall"].value == pytest.approx(recalls[0] - recalls[1])
    assert found["recall"].low <= found["recall"].value <= found["recall"].high


def test_many_rows_are_taken_in_blocks(scored, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, probability, drawn = scored
    whole = metrics.measure_intervals(truth, probability, THRESHOLD, drawn)
    monkeypatch.setattr(metrics, "_BLOCK", 7 * len(truth))
    assert len(list(drawn.blocks(truth))) == 4
    parts = metrics.measure_intervals(truth, probability, THRESHOLD, drawn)
    assert parts.keys() == whole.keys()
    for name, one in parts.items():
        assert one.model_dump() == pytest.approx(whole[name].model_dump(), abs=1e-12)


def test_resamples_of_one_label_are_left_out() -> None:
    cases, truth = pd.Series(["a", "b"]), np.array([True, False])
    drawn = metrics.draw_resamples(cases, pd.Series(["idc", "idc"]), count=40)
    kept = np.concatenate(list(drawn.blocks(truth)))
    assert 0 < len(kept) < 40
    assert (kept == 1).all()


def test_macro_over_cases_takes_those_of_both_labels() -> None:
    frame = pd.DataFrame(
        {"case_id": np.repeat(range(12), 2), "label": ["benign", "malignant"] * 12}
    )
    probability = np.tile([0.2, 0.8], 12)
    probability[:4] = [0.8, 0.2, 0.8, 0.2]  # two cases the wrong way round
    assert metrics.average_over_cases(frame, probability) == {"cases": 12, "auroc": 10 / 12}
    assert metrics.average_over_cases(frame[:18], probability[:18]) == {"cases": 9, "auroc": None}


def test_the_auroc_is_scikit_learn_s_with_ties_too() -> None:
    rng = np.random.default_rng(1)
    truth, score = rng.random(200) < 0.3, rng.integers(0, 6, 200).astype(np.float64)
    assert metrics.auroc(truth, score) == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-12)
