"""What comes of promises on folds that didn't choose their bands, and MAPIE's beside them.

The promise over cases, and the band that keeps it, are ``bcd_models.local.referral``'s. Beside it
stands MAPIE's control of the same loss over images, which it takes for exchangeable: those of one
case are not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from mapie.risk_control import BinaryClassificationController, BinaryRisk
from numpy.typing import NDArray

from bcd_models.config import Estimate, Strict
from bcd_models.local.metrics import Resamples, estimate_interval
from bcd_models.local.referral import Judged, choose_reach, count_by_case, count_large_errors

ALPHAS = (0.02, 0.05, 0.10)
CONFIDENCE = 0.9  # of MAPIE's promise: its own default
BANDS = 200  # that MAPIE is asked about, from all referred to none
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))


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


def choose_reach_by_images(judged: Judged, alpha: float) -> float | None:
    """Return the smallest band that MAPIE promises for, images taken for exchangeable.

    Args:
        judged: Of the images that the band is chosen on.
        alpha: The largest share of all images that are decided wrongly, kept with ``CONFIDENCE``.

    Returns:
        As ``choose_reach``; None where there are too few images.
    """
    shares = judged.away / (1 + judged.away)  # MAPIE's thresholds are of probabilities
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
        controller.calibrate(shares, judged.wrong)
    if not len(controller.valid_predict_params):
        return None
    smallest = float(controller.valid_predict_params.min())
    return smallest / (1 - smallest)


def realise(
    judged: Judged,
    folds: NDArray[np.int64],
    alpha: float,
    choose: Callable[[Judged, float], float | None] = choose_reach,
) -> Realised | None:
    """Choose the band on all folds but one and measure it on that one, each in turn.

    Returns:
        None where there are too few cases, or images.
    """
    parts = []
    for fold in np.unique(folds):
        reach = choose(judged.where(folds != fold), alpha)
        if reach is None:
            return None
        here = judged.where(folds == fold)
        parts.append(count_by_case(here.case, here.away > reach, here.wrong))
    counted = np.concatenate(parts, axis=1)
    patches, decided, wrong = counted.sum(1)
    return Realised(
        loss=float((counted[2] / counted[0]).mean()),
        image_loss=float(wrong / patches),
        folds_above=sum(bool(one[2].sum() > alpha * one[0].sum()) for one in parts),
        referred=float(1 - decided / patches),
        error_among_decided=float(wrong / max(decided, 1)),
        cases_of_large_error=count_large_errors(counted),
    )


def trace_coverage(judged: Judged, drawn: Resamples) -> tuple[Coverage, ...]:
    """Return the error at each of ``COVERAGES``, the nearest to the threshold referred first.

    Args:
        judged: All of them.
        drawn: Resamples of their cases.
    """
    farthest = np.argsort(-judged.away, kind="stable")
    curve = []
    for coverage in COVERAGES:
        decided = np.zeros(len(farthest), bool)
        decided[farthest[: round(coverage * len(farthest))]] = True
        wrong = decided & judged.wrong
        wrongs, decisions = (
            drawn.drawn @ np.bincount(drawn.case[one], minlength=drawn.drawn.shape[1])
            for one in (wrong, decided)
        )
        value, errors = wrong.sum() / max(decided.sum(), 1), wrongs / np.maximum(decisions, 1)
        error = estimate_interval(value, errors)
        large = count_large_errors(count_by_case(judged.case, decided, judged.wrong))
        curve.append(Coverage(coverage=coverage, error=error, cases_of_large_error=large))
    return tuple(curve)
