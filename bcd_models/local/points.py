"""The decision rule, fitted on images the network has not been trained on.

``OPERATING_POINTS`` is their registry: one entry a point. The first is the default, whose threshold
and referral band are the rule's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bcd_models.config import DecisionConfig, Estimate, OperatingPoint
from bcd_models.decision import calibrate, log_odds, sigmoid
from bcd_models.local import metrics
from bcd_models.local.calibration import fit_line
from bcd_models.local.metrics import Bools, Floats, Resamples

MIN_SHARE = 0.95  # of the carcinoma found by screening, and of the rest that confirm leaves alone
_EDGE = 1e-6
_FIGURES = {
    "sensitivity": "recall",
    "specificity": "specificity",
    "positive_predictive_value": "precision",
}


def fit_decision(margins: Floats, truth: Bools, refer_share: float) -> DecisionConfig:
    """Fit calibration, then thresholds, then the referral band.

    Args:
        margins: Logit margins (malignant minus benign), shape (N,).
        truth: Whether each image is malignant; both must occur.
        refer_share: Share of the images, those nearest the threshold in log-odds, to refer.

    Returns:
        Calibration by logistic regression of truth on margin; the operating points' thresholds; the
        band round the first one that holds ``refer_share`` of these images.
    """
    slope, intercept = fit_line(margins, truth)
    line = DecisionConfig(slope=max(slope, 1e-3), intercept=intercept)
    probability = calibrate(margins, line)
    points = choose_points(probability, truth)
    threshold = next(iter(points.values())).threshold
    away = np.abs(line.slope * margins + line.intercept - log_odds(threshold))
    band = band_around(threshold, float(np.quantile(away, refer_share))) if refer_share else None
    own = {"threshold": threshold, "refer": band, "points": points}
    return line.model_copy(update=own)


def choose_points(
    probability: Floats, truth: Bools, balanced: float | None = None
) -> dict[str, OperatingPoint]:
    """Return the operating points, by name, with their thresholds of calibrated probabilities.

    Args:
        probability: Calibrated P(malignant) of each image, shape (N,).
        truth: Whether each is malignant; both must occur.
        balanced: Threshold of ``balanced``; by default the share of malignant images, from where
            on carcinoma is likelier than before.
    """
    middle = float(truth.mean()) if balanced is None else balanced
    thresholds = {
        name: choose(probability, truth, middle) for name, choose in OPERATING_POINTS.items()
    }
    return {
        name: OperatingPoint(threshold=float(np.clip(threshold, _EDGE, 1 - _EDGE)))
        for name, threshold in thresholds.items()
    }


def band_around(threshold: float, reach: float) -> tuple[float, float]:
    """Return the probabilities that lie so far from a threshold in log-odds, below and above."""
    low, high = sigmoid(log_odds(threshold) + np.array((-reach, reach)))
    return min(float(low), threshold), max(float(high), threshold)  # rounding leaves it inside


def measure_point(
    truth: Bools, probability: Floats, threshold: float | Floats, drawn: Resamples
) -> dict[str, Estimate]:
    """Measure what an operating point does.

    Args:
        truth: Whether each image is malignant, shape (N,); both must occur.
        probability: Calibrated P(malignant) of each.
        threshold: From which an image is called malignant; one, or each image's own.
        drawn: Resamples of these images.

    Returns:
        ``sensitivity``, ``specificity`` and both predictive values, with 95% intervals.
    """
    calls = (probability >= threshold).astype(np.float64)
    found = metrics.measure_intervals(truth, calls, 0.5, drawn, _FIGURES.values())
    of_spared = metrics.measure_intervals(~truth, 1 - calls, 0.5, drawn, ("precision",))
    measured = {name: found[metric] for name, metric in _FIGURES.items()}
    return measured | {"negative_predictive_value": of_spared["precision"]}


def keep_sensitivity(probability: Floats, truth: Bools) -> float:
    """Return the highest threshold that finds at least ``MIN_SHARE`` of the malignant images."""
    falling = np.sort(probability[truth])[::-1]
    return float(falling[_count_share(len(falling)) - 1])


def keep_specificity(probability: Floats, truth: Bools) -> float:
    """Return the lowest threshold that leaves at least ``MIN_SHARE`` of the others alone."""
    rising = np.sort(probability[~truth])
    return float(np.nextafter(rising[_count_share(len(rising)) - 1], 1))


def _count_share(images: int) -> int:
    return math.ceil(MIN_SHARE * images - 1e-9)


# Where answers separate the labels well, ``balanced`` alone finds and spares more than 95%:
# screening never finds less than it, nor does confirm spare less.
OPERATING_POINTS: dict[str, Callable[[Floats, Bools, float], float]] = {
    "balanced": lambda _probability, _truth, balanced: balanced,
    "screening": lambda probability, truth, balanced: min(
        keep_sensitivity(probability, truth), balanced
    ),
    "confirm": lambda probability, truth, balanced: max(
        keep_specificity(probability, truth), balanced
    ),
}
