"""How much is referred so that few of a case's patches are decided wrongly: a promise over cases.

Conformal risk control (Angelopoulos and others, ICLR 2024) with whole cases as its units: the loss
of a case is the share of all its patches that are decided, and wrongly. It falls as the band round
the threshold grows, and the band is the smallest of which the promise holds: for a further case of
the same kind, the expected loss is at most alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bcd_models.decision import log_odds, sigmoid
from bcd_models.local.metrics import Bools, Floats, Resamples, estimate_interval

HEADLINE = 0.05  # the alpha of the bands that models use
LARGE_ERROR = 0.20  # of the decided patches of a case, from which the case is counted


@dataclass(frozen=True)
class Judged:
    """Answers at one operating point, beside the truth.

    Attributes:
        away: How far each patch lies from the threshold, in log-odds, shape (N,).
        wrong: Whether its label is wrong.
        case: Which case it is of.
    """

    away: Floats
    wrong: Bools
    case: NDArray[Any]

    def where(self, mask: Bools) -> Judged:
        """Return some of the answers."""
        return Judged(self.away[mask], self.wrong[mask], self.case[mask])


def judge(odds: Floats, truth: Bools, case: NDArray[Any], threshold: float) -> Judged:
    """Return answers beside the truth.

    Args:
        odds: Calibrated log-odds, shape (N,).
        truth: Whether each patch is malignant.
        case: Of which case each is.
        threshold: Calibrated probability, from which a patch is called malignant.
    """
    away = np.abs(odds - log_odds(threshold))  # a probability may round to 1
    return Judged(away, (sigmoid(odds) >= threshold) != truth, case)


def count_cases_needed(alpha: float) -> int:
    """Return how many cases a promise takes at least, even where nothing is wrong."""
    return math.ceil(1 / alpha - 1 - 1e-9)


def choose_reach(judged: Judged, alpha: float) -> float | None:
    """Return the smallest band that keeps a promise; what lies in it, ends included, is referred.

    Args:
        judged: Of the cases that the band is chosen on.
        alpha: The largest expected share of a case's patches that are decided wrongly.

    Returns:
        Its reach to either side in log-odds; None where there are too few cases for any promise.

    Example:
        >>> away, wrong = np.array([2.0, 0.5] * 40), np.array([False, True] * 40)
        >>> reach = choose_reach(Judged(away, wrong, np.arange(80) // 2), 0.05)
        >>> reach is not None and round(reach, 3)
        0.5
    """
    cases, sizes = np.unique(judged.case, return_inverse=True, return_counts=True)[1:]
    count = len(sizes)
    if count < count_cases_needed(alpha):
        return None
    room = (alpha * (count + 1) - 1) / count  # for the mean loss, as that of one case is at most 1
    order = np.argsort(-judged.away[judged.wrong], kind="stable")
    weights = 1 / (count * sizes[cases[judged.wrong][order]])
    kept = np.searchsorted(weights.cumsum(), room * (1 + 1e-12), side="right")
    away = judged.away[judged.wrong][order]
    return float(away[kept]) * (1 + 1e-9) if kept < len(away) else 0.0


def count_by_case(case: NDArray[Any], decided: Bools, wrong: Bools) -> NDArray[np.int64]:
    """Count each case's patches, those decided, and those of them decided wrongly.

    Args:
        case: Of which case each patch is, shape (N,).
        decided: Whether each is not referred.
        wrong: Whether its label is wrong.

    Returns:
        Shape (3, C), in the order of the cases.
    """
    numbers = np.unique(case, return_inverse=True)[1]
    counted = [numbers, numbers[decided], numbers[decided & wrong]]
    return np.array([np.bincount(some, minlength=numbers.max() + 1) for some in counted])


def count_large_errors(counted: NDArray[np.int64]) -> int:
    """Count the cases of which more than ``LARGE_ERROR`` of the decided is wrong."""
    _, decided, wrong = counted
    return int((wrong > LARGE_ERROR * decided).sum())


def measure_referral(decided: Bools, wrong: Bools, drawn: Resamples) -> dict[str, Any]:
    """Measure what referral leaves of the errors.

    Args:
        decided: Whether each image is not referred, shape (N,).
        wrong: Whether its label is wrong.
        drawn: Resamples of these images.

    Returns:
        ``referred``, ``loss``, ``error_among_decided`` and ``cases_of_large_error``, as
        ``bcd_models.local.figures.PointHere`` has them.
    """
    counted = count_by_case(drawn.case, decided, wrong)
    images, decisions, wrongs = counted
    losses, times = wrongs / images, drawn.drawn
    loss = estimate_interval(float(losses.mean()), times @ losses / times.sum(1))
    of_decided = None
    if decisions.any():
        errors = (times @ wrongs) / np.maximum(times @ decisions, 1)
        of_decided = estimate_interval(float(wrongs.sum() / decisions.sum()), errors)
    return {
        "referred": float(1 - decided.mean()),
        "loss": loss,
        "error_among_decided": of_decided,
        "cases_of_large_error": count_large_errors(counted),
    }
