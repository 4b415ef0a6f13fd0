"""How much is referred so that few of a case's patches are decided wrongly: a promise over cases.

Conformal risk control (Angelopoulos and others, ICLR 2024) with whole cases as its units: the loss
of a case is the share of all its patches that are decided, and wrongly. It falls as the band round
the threshold grows, and the band is the smallest of which the promise holds: for a further case of
the same kind, the expected loss is at most alpha.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ALPHAS = (0.02, 0.05, 0.10)
HEADLINE = 0.05
LARGE_ERROR = 0.20  # of the decided patches of a case, from which the case is counted

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """Answers at one operating point.

    Attributes:
        away: How far each patch lies from the threshold, in log-odds, shape (N,).
        wrong: Whether its label is wrong.
        case: Which case it is of.
    """

    away: Floats
    wrong: Bools
    case: NDArray[np.object_]

    def where(self, mask: Bools) -> Answers:
        """Return some of the answers."""
        return Answers(self.away[mask], self.wrong[mask], self.case[mask])


def choose_reach(answers: Answers, alpha: float) -> float | None:
    """Return the smallest band that keeps a promise; what lies in it, ends included, is referred.

    Args:
        answers: Of the cases that the band is chosen on.
        alpha: The largest expected share of a case's patches that are decided wrongly.

    Returns:
        Its reach to either side in log-odds; None where there are too few cases for any promise.
    """
    cases, sizes = np.unique(answers.case, return_inverse=True, return_counts=True)[1:]
    count = len(sizes)
    room = (alpha * (count + 1) - 1) / count  # for the mean loss, as that of one case is at most 1
    if room < 0:
        return None
    order = np.argsort(-answers.away[answers.wrong], kind="stable")
    weights = 1 / (count * sizes[cases[answers.wrong][order]])
    kept = np.searchsorted(weights.cumsum(), room * (1 + 1e-12), side="right")
    away = answers.away[answers.wrong][order]
    return float(away[kept]) * (1 + 1e-9) if kept < len(away) else 0.0


def measure_losses(answers: Answers, reach: float) -> pd.DataFrame:
    """Return a line a case: its patches, those decided, those of them decided wrongly."""
    decided = answers.away > reach
    frame = pd.DataFrame(
        {
            "case": answers.case,
            "patches": 1,
            "decided": decided,
            "wrong": decided & answers.wrong,
        }
    )
    return frame.groupby("case").sum()


def realise(answers: Answers, folds: NDArray[np.int64], alpha: float) -> dict[str, float] | None:
    """Choose the band on all folds but one and measure it on that one, each in turn.

    Returns:
        The mean loss of a case, the share referred, the error among the decided, and the share of
        cases of which more than ``LARGE_ERROR`` of the decided are wrong; None: too few cases.
    """
    parts = []
    for fold in np.unique(folds):
        reach = choose_reach(answers.where(folds != fold), alpha)
        if reach is None:
            return None
        parts.append(measure_losses(answers.where(folds == fold), reach))
    lines = pd.concat(parts)
    error = lines["wrong"] / lines["decided"].clip(lower=1)
    return {
        "loss": float((lines["wrong"] / lines["patches"]).mean()),
        "referred": float(1 - lines["decided"].sum() / lines["patches"].sum()),
        "error_among_decided": float(lines["wrong"].sum() / max(lines["decided"].sum(), 1)),
        "cases_of_large_error": float((error > LARGE_ERROR).mean()),
    }
