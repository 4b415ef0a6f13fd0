"""Figures of a binary classifier, with 95% intervals by bootstrap over whole cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from numpy.typing import NDArray
from sklearn import metrics as sk

from bcd_models.decision import log_odds
from training.calibration import fit_line

RESAMPLES = 2_000
MIN_CASES = 10
BINS = 10
_EPS = 1e-6

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def figures(truth: Bools, probability: Floats, threshold: float) -> dict[str, float]:
    """The figures of one set of images.

    Args:
        truth: Whether each image is malignant; both must occur.
        probability: P(malignant) of each.
        threshold: From which probability the label is malignant.
    """
    called = probability >= threshold
    true, false = called[truth].sum(), called[~truth].sum()
    positives, negatives = truth.sum(), (~truth).sum()
    recall, specificity = true / positives, 1 - false / negatives
    precision = true / max(true + false, 1)
    falls, rises, _ = sk.roc_curve(truth, probability)
    return {
        "auroc": float(sk.auc(falls, rises)),
        "auprc": float(sk.average_precision_score(truth, probability)),
        "accuracy": float((called == truth).mean()),
        "balanced_accuracy": float((recall + specificity) / 2),
        "recall": float(recall),
        "false_negative_rate": float(1 - recall),
        "specificity": float(specificity),
        "precision": float(precision),
        "f1": float(2 * true / (2 * true + false + (positives - true))),
        "sensitivity_at_90_specificity": float(rises[falls <= 0.10].max()),
        "sensitivity_at_95_specificity": float(rises[falls <= 0.05].max()),
        "brier": float(np.mean((probability - truth) ** 2)),
        "ece": expected_calibration_error(truth, probability),
    }


def expected_calibration_error(truth: Bools, probability: Floats) -> float:
    """ECE over ten bins of equal count: mean gap between probability and frequency."""
    order = np.argsort(probability, kind="stable")
    gaps = [
        abs(probability[part].mean() - truth[part].mean()) * len(part)
        for part in np.array_split(order, BINS)
        if len(part)
    ]
    return float(sum(gaps) / len(order))


def ece_if_perfect(probability: Floats, seed: int = 0, draws: int = 200) -> float:
    """The ECE that labels drawn from these very probabilities would show, on average."""
    rng = np.random.default_rng(seed)
    drawn = rng.random((draws, len(probability))) < probability
    return float(np.mean([expected_calibration_error(row, probability) for row in drawn]))


def calibration(truth: Bools, probability: Floats) -> dict[str, float]:
    """Slope and intercept of truth on log-odds (1 and 0 are perfect), and the ECE's floor."""
    slope, intercept = fit_line(log_odds(np.clip(probability, _EPS, 1 - _EPS)), truth)
    return {
        "slope": slope,
        "intercept": intercept,
        "ece_if_perfectly_calibrated": ece_if_perfect(probability),
    }


def resamples(
    cases: pd.Series, sources: pd.Series, count: int = RESAMPLES, seed: int = 0
) -> list[NDArray[np.int64]]:
    """Row positions of bootstrap resamples of whole cases, drawn within each source."""
    rng = np.random.default_rng(seed)
    strata = []
    for _, part in cases.reset_index(drop=True).groupby(sources.to_numpy()):
        strata.append([group.index.to_numpy() for _, group in part.groupby(part)])
    drawn = []
    for _ in range(count):
        picked = [
            stratum[i] for stratum in strata for i in rng.integers(0, len(stratum), len(stratum))
        ]
        drawn.append(np.concatenate(picked))
    return drawn


def with_intervals(
    truth: Bools,
    probability: Floats,
    threshold: float,
    drawn: list[NDArray[np.int64]],
) -> dict[str, dict[str, float]]:
    """Each figure as value, low and high end of its 95% interval."""
    point = figures(truth, probability, threshold)
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        spread = pd.DataFrame(
            figures(truth[rows], probability[rows], threshold)
            for rows in drawn
            if 0 < truth[rows].sum() < len(rows)
        )
    low, high = spread.quantile(0.025), spread.quantile(0.975)
    return {
        name: {"value": value, "low": float(low[name]), "high": float(high[name])}
        for name, value in point.items()
    }


def interval(
    figure: Callable[[Bools, Floats], float],
    truth: Bools,
    scores: Floats,
    drawn: list[NDArray[np.int64]],
) -> dict[str, float]:
    """One figure as value, low and high end of its 95% interval."""
    return _spread(lambda rows: figure(truth[rows], scores[rows]), truth, drawn)


def difference(
    figure: Callable[[Bools, Floats], float],
    truth: Bools,
    ours: Floats,
    theirs: Floats,
    drawn: list[NDArray[np.int64]],
) -> dict[str, float]:
    """Paired difference of a figure, ours minus theirs, over the same resamples."""
    return _spread(
        lambda rows: figure(truth[rows], ours[rows]) - figure(truth[rows], theirs[rows]),
        truth,
        drawn,
    )


def _spread(
    of: Callable[[NDArray[np.int64]], float], truth: Bools, drawn: list[NDArray[np.int64]]
) -> dict[str, float]:
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        values = [of(rows) for rows in drawn if 0 < truth[rows].sum() < len(rows)]
    low, high = np.quantile(values, (0.025, 0.975))
    return {"value": of(np.arange(len(truth))), "low": float(low), "high": float(high)}


def auroc(truth: Bools, probability: Floats) -> float:
    """Area under the ROC curve."""
    return float(sk.roc_auc_score(truth, probability))


def estimable(frame: pd.DataFrame) -> bool:
    """Whether a subgroup has both labels and at least ten cases."""
    return frame["label"].nunique() == 2 and frame["case_id"].nunique() >= MIN_CASES


def counts(frame: pd.DataFrame) -> dict[str, int]:
    """Images, cases and images of each label."""
    malignant = int((frame["label"] == "malignant").sum())
    return {
        "images": len(frame),
        "cases": int(frame["case_id"].nunique()),
        "benign": len(frame) - malignant,
        "malignant": malignant,
    }


def macro_over_cases(frame: pd.DataFrame, probability: Floats) -> dict[str, Any]:
    """Mean AUROC of the cases that hold both labels."""
    truth = (frame["label"] == "malignant").to_numpy()
    groups = frame.reset_index(drop=True).groupby("case_id").indices.values()
    both = [rows for rows in groups if 0 < truth[rows].sum() < len(rows)]
    if len(both) < MIN_CASES:
        return {"cases": len(both), "auroc": None}
    mean = np.mean([auroc(truth[rows], probability[rows]) for rows in both])
    return {"cases": len(both), "auroc": float(mean)}
