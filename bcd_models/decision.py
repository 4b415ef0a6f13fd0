"""Calibration, operating threshold and referral band: three separate things, in this order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from bcd_models.config import LABELS, Label
from bcd_models.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bcd_models.config import DecisionConfig

Decision = Literal["benign", "malignant", "refer"]
PROBABILITY_BINS = 20  # equally wide, wherever probabilities are counted


def log_odds(probability: ArrayLike) -> NDArray[np.float64]:
    """Natural log-odds of probabilities strictly between 0 and 1."""
    p = np.asarray(probability, dtype=np.float64)
    return np.log(p) - np.log1p(-p)


def sigmoid(log_odds: ArrayLike) -> NDArray[np.float64]:
    """Probabilities of log-odds; exact at either end, never an overflow."""
    return 0.5 * (1 + np.tanh(np.asarray(log_odds, dtype=np.float64) / 2))


def calibrate(margins: ArrayLike, decision: DecisionConfig) -> NDArray[np.float64]:
    """Calibrated P(malignant) of logit margins.

    Args:
        margins: Malignant logit minus benign logit, any shape.
        decision: The model's decision rule.

    Returns:
        Probabilities in [0, 1] of the same shape.
    """
    return sigmoid(decision.slope * np.asarray(margins, dtype=np.float64) + decision.intercept)


def smooth_margins(margins: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Average the margins of a grid of tiles with their neighbours' by a Gaussian.

    Args:
        margins: Rows x columns; NaN where there is none, which counts for nothing and stays so.
        sigma: Standard deviation in tiles; 0 leaves all as it is.

    Returns:
        The same shape.
    """
    if not sigma:
        return margins
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    known = ~np.isnan(margins)
    sums, weights = np.where(known, margins, 0.0), known.astype(np.float64)
    for axis in (0, 1):
        sums, weights = (
            np.apply_along_axis(lambda line: np.convolve(line, kernel)[reach:-reach], axis, values)
            for values in (sums, weights)
        )
    return np.divide(sums, weights, out=np.full_like(sums, np.nan), where=known)


def check_label(label: object) -> Label:
    """Return a label that was handed in; InputError where it is none of the two."""
    for known in LABELS:
        if label == known:
            return known
    raise InputError(f"no label {label!r}: choose one of {', '.join(LABELS)}")


def choose_label(probability: float, decision: DecisionConfig) -> Label:
    """The label: "malignant" at or above the threshold."""
    return "malignant" if probability >= decision.threshold else "benign"


def is_referred(probability: float, decision: DecisionConfig) -> bool:
    """Whether the probability lies in the referral band, ends included."""
    band = decision.refer
    return band is not None and band[0] <= probability <= band[1]
