"""How far log-odds can be believed, and the line that makes them believable."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bcd_models.config import Estimate
from bcd_models.decision import log_odds, sigmoid
from bcd_models.local import metrics
from bcd_models.local.metrics import Bools, Floats, Resamples

MIN_PROBABILITY = 1e-6  # beyond which log-odds say nothing
MAX_STEPS = 100
MAX_STEP = 2.0  # standard deviations of log-odds: from afar a whole step would overshoot
CONVERGED = 1e-12
RIDGE = 1e-6  # images' worth: labels that a number tells apart entirely have no steepest line


def fit_line(log_odds: Floats, truth: Bools) -> tuple[float, float]:
    """Return slope and intercept of a logistic regression of truth on one number.

    Args:
        log_odds: The number of each image, shape (N,), such as its margin.
        truth: Whether each is malignant; both must occur.

    Example:
        >>> margins, truth = np.array([-1.0, 0.0, 0.0, 1.0]), np.array([False, False, True, True])
        >>> slope, intercept = fit_line(margins, truth)
        >>> slope > 1 and abs(intercept) < 1e-6
        True
    """
    slopes, intercepts = fit_resamples(log_odds, truth, np.ones((1, len(truth))))
    return float(slopes[0]), float(intercepts[0])


def fit_resamples(log_odds: Floats, truth: Bools, times: Floats) -> tuple[Floats, Floats]:
    """Fit a line to each of some resamples, by Newton's steps.

    Args:
        log_odds: Shape (N,).
        truth: Whether each row is malignant.
        times: How often each resample drew each row, shape (B, N); it drew both labels.

    Returns:
        Slopes and intercepts, each of shape (B,).
    """
    middle, spread = log_odds.mean(), log_odds.std()
    if not np.ptp(log_odds):  # all the same: but for rounding their deviation is 0
        spread = 1.0
    given = (log_odds - middle) / spread
    slope, intercept = np.zeros((2, len(times)))
    for _ in range(MAX_STEPS):
        gap, weight = _compare(np.outer(slope, given) + intercept[:, None], truth, times)
        squares, products, weights = (weight @ given**power for power in (2, 1, 0))
        pulls = gap @ given - RIDGE * slope, gap.sum(1) - RIDGE * intercept
        squares, weights = squares + RIDGE, weights + RIDGE
        determinant = squares * weights - products**2
        steps = (
            np.array(
                (weights * pulls[0] - products * pulls[1], squares * pulls[1] - products * pulls[0])
            )
            / determinant
        ).clip(-MAX_STEP, MAX_STEP)
        slope, intercept = slope + steps[0], intercept + steps[1]
        if np.abs(steps).max() < CONVERGED:
            break
    return slope / spread, intercept - slope * middle / spread


def fit_shifts(log_odds: Floats, truth: Bools, times: Floats) -> Floats:
    """Return by how much the log-odds of each resample are too low on average, shape (B,)."""
    shift = np.zeros(len(times))
    for _ in range(MAX_STEPS):
        gap, weight = _compare(log_odds + shift[:, None], truth, times)
        step = (gap.sum(1) / (weight.sum(1) + RIDGE)).clip(-MAX_STEP, MAX_STEP)
        shift += step
        if np.abs(step).max() < CONVERGED:
            break
    return shift


def measure_line(log_odds: Floats, truth: Bools, drawn: Resamples) -> dict[str, Estimate]:
    """Measure calibrated log-odds.

    Returns:
        ``slope`` of truth on log-odds (1 if perfect) and ``in_the_large``, the log-odds by which
        all answers together are too low (0 if perfect), each with its 95% interval over cases.
    """
    once = np.ones((1, len(truth)))
    blocks = list(drawn.blocks(truth))
    found = {}
    for name, fit in (("slope", _fit_slopes), ("in_the_large", fit_shifts)):
        spread = np.concatenate([fit(log_odds, truth, times) for times in blocks])
        found[name] = metrics.estimate_interval(float(fit(log_odds, truth, once)[0]), spread)
    return found


def measure_calibration(truth: Bools, probability: Floats) -> dict[str, float]:
    """Return slope and intercept of truth on log-odds (perfect: 1 and 0), and the ECE's floor."""
    clipped = np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    slope, intercept = fit_line(log_odds(clipped), truth)
    return {
        "slope": slope,
        "intercept": intercept,
        "ece_if_perfectly_calibrated": metrics.ece_if_perfect(probability),
    }


def fit_lines(margins: Floats, truth: Bools, folds: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return slope and intercept that calibrate each row: those that the other folds give.

    Args:
        margins: Shape (N,); where several models gave them, out of fold.
        truth: Whether each row is malignant; both must occur outside each fold.
        folds: Which fold each row was held out with.
    """
    slope, intercept = np.empty_like(margins), np.empty_like(margins)
    for fold in np.unique(folds):
        here = folds == fold
        slope[here], intercept[here] = fit_line(margins[~here], truth[~here])
    return slope, intercept


def cross_fit(margins: Floats, truth: Bools, folds: NDArray[np.int64]) -> Floats:
    """Return calibrated log-odds, each fold's by the line that the others' margins give."""
    slope, intercept = fit_lines(margins, truth, folds)
    return slope * margins + intercept


def _fit_slopes(log_odds: Floats, truth: Bools, times: Floats) -> Floats:
    return fit_resamples(log_odds, truth, times)[0]


def _compare(log_odds: Floats, truth: Bools, times: Floats) -> tuple[Floats, Floats]:
    """Return what truth lies above the probability, and the weight of each row."""
    probability = sigmoid(log_odds)
    return times * (truth - probability), times * probability * (1 - probability)
