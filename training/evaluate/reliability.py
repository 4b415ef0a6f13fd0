"""How far calibrated probabilities can be believed, on folds that the calibration didn't see."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from bcd_models.config import Estimate, Strict
from bcd_models.local import metrics
from bcd_models.local.calibration import cross_fit, measure_line
from bcd_models.local.metrics import Bools, Floats

RESAMPLES = 500
DRAWS = 500
PERCENTILE = 95
_OF_PROBIT = 16 * np.sqrt(3) / (15 * np.pi)  # brings a logistic's scale to a normal's


class Reliability(Strict):
    """Calibration, measured on each fold with the line fitted on the others.

    Attributes:
        slope: Of truth on log-odds; 1 if perfect.
        in_the_large: Log-odds by which all answers together are too low; 0 if perfect.
        ece: Expected calibration error over ten bins of equal count.
        ece_if_calibrated: 95th percentile of the ECE, were the probabilities true of each patch.
        ece_if_calibrated_over_cases: The same, were they true on average over cases that differ
            from one another as much as these do.
        case_spread: Standard deviation of that difference in log-odds.
    """

    slope: Estimate
    in_the_large: Estimate
    ece: float
    ece_if_calibrated: float
    ece_if_calibrated_over_cases: float
    case_spread: float


def measure_reliability(frame: pd.DataFrame) -> Reliability:
    """Measure the calibration of out-of-fold margins.

    Args:
        frame: Rows of one source: ``margin``, ``label``, ``case_id``, ``source`` and ``fold``.
    """
    truth = metrics.is_malignant(frame)
    margins = frame["margin"].to_numpy(np.float64)
    log_odds = cross_fit(margins, truth, frame["fold"].to_numpy())
    drawn = metrics.draw_resamples(frame["case_id"], frame["source"], RESAMPLES)
    case = drawn.case
    line = measure_line(log_odds, truth, drawn)
    spread = estimate_case_spread(log_odds, truth, case)
    rng = np.random.default_rng(0)
    return Reliability(
        **line,
        ece=metrics.expected_calibration_error(truth, expit(log_odds)),
        ece_if_calibrated=_draw_null(log_odds, case, 0.0, rng),
        ece_if_calibrated_over_cases=_draw_null(log_odds, case, spread, rng),
        case_spread=spread,
    )


def estimate_case_spread(log_odds: Floats, truth: Bools, case: NDArray[np.int64]) -> float:
    """Return how much cases differ in log-odds from what they are given, beyond chance.

    The moment estimator of DerSimonian and Laird (Controlled Clinical Trials, 1986), round zero,
    from one step of the score: where cases differ by more than one, it is somewhat low.
    """
    probability = expit(log_odds)
    gap = np.bincount(case, truth - probability)
    information = np.bincount(case, probability * (1 - probability))
    known = information > 0
    excess = (gap[known] ** 2 / information[known]).sum() - known.sum()
    return float(np.sqrt(max(0.0, excess / information.sum())))


def _draw_null(
    log_odds: Floats, case: NDArray[np.int64], spread: float, rng: np.random.Generator
) -> float:
    """Return the percentile of the ECE where labels follow the probabilities but for cases."""
    probability = expit(log_odds)
    # A spread of log-odds flattens their mean probability: steeper ones make up for it.
    steeper = log_odds * np.sqrt(1 + (_OF_PROBIT * spread) ** 2)
    errors = []
    for _ in range(DRAWS):
        shift = rng.normal(0, spread, case.max() + 1)[case] if spread else 0.0
        labels = rng.random(len(log_odds)) < expit(steeper + shift)
        errors.append(metrics.expected_calibration_error(labels, probability))
    return float(np.percentile(errors, PERCENTILE))
