"""How much is referred so that few of a case's patches are decided wrongly: a promise over cases.

Conformal risk control (Angelopoulos and others, ICLR 2024) with whole cases as its units: the loss
of a case is the share of all its patches that are decided, and wrongly. It falls as the band round
the threshold grows, and the band is the smallest of which the promise holds: for a further case of
the same kind, the expected loss is at most alpha. Beside it stands MAPIE's control of the same loss
over images, which it takes for exchangeable: those of one case are not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from mapie.risk_control import BinaryClassificationController, BinaryRisk
from numpy.typing import NDArray

from bcd_models.config import Estimate, Strict
from bcd_models.local.metrics import Bools, Floats, Resamples, estimate_interval

ALPHAS = (0.02, 0.05, 0.10)
HEADLINE = 0.05
LARGE_ERROR = 0.20  # of the decided patches of a case, from which the case is counted
CONFIDENCE = 0.9  # of MAPIE's promise: its own default
BANDS = 200  # that MAPIE is asked about, from all referred to none
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))


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


class Realised(Strict):
    """What came of a promise on folds that its band was not chosen on.

    Attributes:
        loss: Mean over cases of the share of a case's patches that are decided wrongly.
        image_loss: That share of all patches.
        folds_above: In how many folds more than alpha of all patches are decided wrongly.
        referred: Share of the patches that are referred.
        error_among_decided: Share of the decided patches that are wrong.
        cases_of_large_error: How many cases have more than a fifth of the decided wrong.
    """

    loss: float
    image_loss: float
    folds_above: int
    referred: float
    error_among_decided: float
    cases_of_large_error: int


class Coverage(Strict):
    """What is wrong where so many patches are decided, those farthest from the threshold.

    Attributes:
        coverage: Share of the patches that are decided.
        error: Share of these that are wrong, with its interval over cases.
        cases_of_large_error: How many cases have more than a fifth of the decided wrong.
    """

    coverage: float
    error: Estimate
    cases_of_large_error: int


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


def choose_reach_by_images(answers: Answers, alpha: float) -> float | None:
    """Return the smallest band that MAPIE promises for, images taken for exchangeable.

    Args:
        answers: Of the images that the band is chosen on.
        alpha: The largest share of all images that are decided wrongly, kept with ``CONFIDENCE``.

    Returns:
        As ``choose_reach``; None where there are too few images.
    """
    shares = answers.away / (1 + answers.away)  # MAPIE's thresholds are of probabilities
    decided_wrongly = BinaryRisk(
        lambda wrong, decided: (wrong == 1) & (decided == 1),
        lambda wrong, _: np.ones(len(wrong), bool),
        higher_is_better=False,
    )
    controller = BinaryClassificationController(
        lambda away: np.column_stack((1 - away, away)),
        decided_wrongly,
        alpha,
        CONFIDENCE,
        decided_wrongly,
        np.append(np.quantile(shares, np.linspace(1, 0, BANDS)), 0),
        "fixed_sequence",
    )
    with warnings.catch_warnings():  # that no band is needed, or that none will do
        warnings.simplefilter("ignore", UserWarning)
        controller.calibrate(shares, answers.wrong)
    if not len(controller.valid_predict_params):
        return None
    smallest = float(controller.valid_predict_params.min())
    return smallest / (1 - smallest)


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


def realise(
    answers: Answers,
    folds: NDArray[np.int64],
    alpha: float,
    choose: Callable[[Answers, float], float | None] = choose_reach,
) -> Realised | None:
    """Choose the band on all folds but one and measure it on that one, each in turn.

    Returns:
        None where there are too few cases, or images.
    """
    parts = []
    for fold in np.unique(folds):
        reach = choose(answers.where(folds != fold), alpha)
        if reach is None:
            return None
        parts.append(measure_losses(answers.where(folds == fold), reach))
    lines = pd.concat(parts)
    sums = lines.sum()
    return Realised(
        loss=float((lines["wrong"] / lines["patches"]).mean()),
        image_loss=float(sums["wrong"] / sums["patches"]),
        folds_above=sum(bool(one["wrong"].sum() > alpha * one["patches"].sum()) for one in parts),
        referred=float(1 - sums["decided"] / sums["patches"]),
        error_among_decided=float(sums["wrong"] / max(sums["decided"], 1)),
        cases_of_large_error=_count_large_errors(lines),
    )


def trace_coverage(answers: Answers, drawn: Resamples) -> tuple[Coverage, ...]:
    """Return the error at each of ``COVERAGES``, the nearest to the threshold referred first.

    Args:
        answers: All of them.
        drawn: Resamples of their cases.
    """
    farthest = np.argsort(-answers.away, kind="stable")
    curve = []
    for coverage in COVERAGES:
        decided = np.zeros(len(farthest), bool)
        decided[farthest[: round(coverage * len(farthest))]] = True
        wrong = decided & answers.wrong
        wrongs, decisions = (
            drawn.drawn @ np.bincount(drawn.case[one], minlength=drawn.drawn.shape[1])
            for one in (wrong, decided)
        )
        value, errors = wrong.sum() / max(decided.sum(), 1), wrongs / np.maximum(decisions, 1)
        error = estimate_interval(value, errors)
        frame = pd.DataFrame({"case": answers.case, "decided": decided, "wrong": wrong})
        large = _count_large_errors(frame.groupby("case").sum())
        curve.append(Coverage(coverage=coverage, error=error, cases_of_large_error=large))
    return tuple(curve)


def _count_large_errors(lines: pd.DataFrame) -> int:
    return int((lines["wrong"] > LARGE_ERROR * lines["decided"]).sum())
