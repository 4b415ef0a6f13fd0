"""The decision rule, fitted on images the network has not been trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from bcd_models.config import DecisionConfig
from bcd_models.decision import calibrate, log_odds, sigmoid


def fit_decision(
    margins: NDArray[np.float64], truth: NDArray[np.bool_], refer_share: float
) -> DecisionConfig:
    """Fit calibration, then threshold, then referral band.

    Args:
        margins: Logit margins (malignant minus benign), shape (N,).
        truth: Whether each image is malignant; both must occur.
        refer_share: Share of the images, those nearest the threshold in log-odds, to refer.

    Returns:
        Calibration by logistic regression of truth on margin; the threshold of largest balanced
        accuracy; the band that holds ``refer_share`` of these images.
    """
    slope, intercept = fit_line(margins, truth)
    line = DecisionConfig(slope=max(slope, 1e-3), intercept=intercept)
    probability = calibrate(margins, line)
    threshold = best_threshold(probability, truth)
    centre = float(log_odds(threshold))
    away = np.abs(line.slope * margins + line.intercept - centre)
    reach = float(np.quantile(away, refer_share))
    band = (float(sigmoid(centre - reach)), float(sigmoid(centre + reach)))
    return line.model_copy(update={"threshold": threshold, "refer": band if refer_share else None})


def fit_line(log_odds: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and intercept of an unpenalised logistic regression on one number."""
    fitted = LogisticRegression(C=np.inf, max_iter=1000).fit(log_odds.reshape(-1, 1), truth)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def best_threshold(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the threshold of largest balanced accuracy, midway to the next lower probability."""
    falls, rises, thresholds = roc_curve(truth, probability, drop_intermediate=False)
    chosen = thresholds[np.argmax(rises - falls)]
    below = probability[probability < chosen]
    threshold = (chosen + below.max()) / 2 if len(below) else chosen
    return float(np.clip(threshold, 1e-6, 1 - 1e-6))
