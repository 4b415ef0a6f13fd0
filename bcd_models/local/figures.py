"""What answers about one's own labelled images are worth: figures of arrays, without pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bcd_models.config import DecisionConfig, Estimate, Strict
from bcd_models.decision import PROBABILITY_BINS, check_label, log_odds
from bcd_models.errors import InputError
from bcd_models.local import metrics
from bcd_models.local.calibration import measure_line
from bcd_models.local.metrics import Bools, Floats, Resamples
from bcd_models.local.points import measure_point
from bcd_models.local.referral import measure_referral

DIFFERENCE = 0.05
OWN = "own"  # names the threshold of a rule that has no operating points
LINE_RESAMPLES = 500
MIN_PROBABILITY = 1e-12  # rounding leaves nothing of log-odds beyond it
_CERTAINTY, _POWER = 1.96, 0.84  # standard errors: 95% certain, found in 80% of attempts
_INTERVAL = 2 * _CERTAINTY  # standard errors that a 95% interval is wide


class Counts(Strict):
    """Images, cases, images of each label, and the cases that hold such images."""

    images: int
    cases: int
    benign: int
    malignant: int
    benign_cases: int
    malignant_cases: int


class PointHere(Strict):
    """What an operating point does on one's own images.

    Attributes:
        threshold: From which calibrated probability an image is called malignant.
        sensitivity: Share of the malignant images that are called so.
        specificity: Share of the others that are not.
        positive_predictive_value: Share of those called malignant that are, among these images.
        negative_predictive_value: Share of the others that are not.
        referred: Share of the images whose decision is "refer", for whatever reason. They count in
            sensitivity, specificity and predictive values, by their probability.
        loss: Mean over cases of the share of a case's images that are decided, and wrongly; what a
            referral band promises to keep low.
        error_among_decided: Share of the images not referred that are labelled wrongly; None: all
            are referred.
        cases_of_large_error: Cases of which more than a fifth of the decided is wrong.
        sensitivity_stated: What the model's config says of it; None: nothing.
        specificity_stated: What the model's config says of it.
    """

    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    positive_predictive_value: Estimate
    negative_predictive_value: Estimate
    referred: float
    loss: Estimate
    error_among_decided: Estimate | None
    cases_of_large_error: int
    sensitivity_stated: Estimate | None = None
    specificity_stated: Estimate | None = None


class CasesNeeded(Strict):
    """How many cases it takes to detect a difference in a figure, at the 5% level with 80% power.

    The standard error comes from the interval over these cases, and falls with the root of their
    number, the mix of cases staying as it is.

    Attributes:
        figure: "auroc", "sensitivity" or "specificity".
        kind: Which cases are counted: those that hold images of this label; "any": all.
        cases: How many there are.
        needed: The smallest number; None where these cases show no spread to reckon with.
    """

    figure: str
    kind: Literal["any", "benign", "malignant"]
    cases: int
    needed: int | None


class Figures(Strict):
    """What answers about labelled images are worth.

    Attributes:
        counts: Of the images.
        auroc: Area under the ROC curve.
        brier: Brier score.
        slope: Of truth on log-odds; 1 if perfect.
        in_the_large: Log-odds by which all answers together are too low; 0 if perfect.
        point: The operating point that is asked about.
        points: All of them, by name.
        difference: That ``needed`` cases detect.
        needed: Cases needed, a figure a line; sensitivity and specificity at ``point``.
        probabilities: Images in each of 20 equally wide bins of probability.
    """

    counts: Counts
    auroc: Estimate
    brier: Estimate
    slope: Estimate
    in_the_large: Estimate
    point: str
    points: dict[str, PointHere]
    difference: float
    needed: tuple[CasesNeeded, ...]
    probabilities: tuple[int, ...]


def measure(
    probability: ArrayLike,
    labels: Sequence[str] | ArrayLike,
    cases: ArrayLike,
    decision: DecisionConfig,
    *,
    point: str | None = None,
    sources: ArrayLike | None = None,
    referred: ArrayLike | None = None,
    difference: float = DIFFERENCE,
) -> Figures:
    """Measure answers that are already there, with 95% intervals by bootstrap over whole cases.

    Args:
        probability: Calibrated P(malignant) of each image, shape (N,), from 0 to 1.
        labels: "benign" or "malignant", as the pathologist says; both must occur.
        cases: What images belong together by, such as the patient; at least ten cases.
        decision: The rule that gave the answers.
        point: Operating point asked about; the rule's own threshold by default.
        sources: Where each image comes from: cases are drawn within it. One by default.
        referred: Whether each image is referred for another reason than the referral band.
        difference: In AUROC, sensitivity or specificity, that is to be detected.

    Raises:
        InputError: One label only, too few cases, arrays of other shapes, probabilities that are
            none or all the same, or no such operating point.

    Example:
        >>> import numpy as np
        >>> from bcd_models.config import DecisionConfig
        >>> rng = np.random.default_rng(0)
        >>> probability = rng.random(200)
        >>> labels = np.where(rng.random(200) < probability, "malignant", "benign")
        >>> found = measure(probability, labels, np.arange(200) // 8, DecisionConfig())
        >>> found.counts.cases, found.slope.low < 1 < found.slope.high
        (25, True)
    """
    given, label, case, places, others = check_arrays(probability, labels, cases, sources, referred)
    rule = decision.at(point)
    table = {"label": label, "case_id": case}
    truth = metrics.is_malignant(table)
    counts = count_cases(table)
    _check_enough(counts)
    odds = to_log_odds(given)
    if not np.ptp(odds):
        raise InputError(
            f"all {counts.images} answers are {given[0]:g}: they tell no image from another, so "
            "there is nothing to measure"
        )
    drawn = metrics.draw_resamples(case, places)
    name = point or decision.own_point or OWN
    points = {
        key: _measure_here(truth, given, decision, key, drawn, others)
        for key in dict.fromkeys((name, *decision.points))
    }
    brier = metrics.measure_intervals(truth, given, rule.threshold, drawn, ("brier",))["brier"]
    fewer = Resamples(drawn.case, drawn.drawn[:LINE_RESAMPLES])  # each takes several steps
    line = measure_line(odds, truth, fewer)
    auroc = metrics.measure_interval(metrics.auroc, truth, odds, drawn)
    return Figures(
        counts=counts,
        auroc=auroc,
        brier=brier,
        slope=line["slope"],
        in_the_large=line["in_the_large"],
        point=name,
        points=points,
        difference=difference,
        needed=_count_needed(auroc, points[name], counts, difference),
        probabilities=tuple(metrics.count_in_bins(given, PROBABILITY_BINS)),
    )


def to_log_odds(probability: Floats) -> Floats:
    """Return log-odds of probabilities from 0 to 1, whose very ends have none of their own."""
    return log_odds(probability.clip(MIN_PROBABILITY, 1 - MIN_PROBABILITY))


def check_arrays(
    probability: ArrayLike,
    labels: Sequence[str] | ArrayLike,
    cases: ArrayLike,
    sources: ArrayLike | None,
    referred: ArrayLike | None,
) -> tuple[Floats, NDArray[Any], NDArray[Any], NDArray[Any], Bools]:
    """Return what ``measure`` takes as arrays of one shape (N,), or say what is wrong with it."""
    try:
        given = np.asarray(probability, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"probabilities must be numbers: {error}") from None
    label, case, shape = np.asarray(labels), np.asarray(cases), given.shape
    others = np.zeros(shape, bool) if referred is None else np.asarray(referred, bool)
    places = np.zeros(shape, int) if sources is None else np.asarray(sources)
    _check_shapes(probabilities=given, labels=label, cases=case, sources=places, referred=others)
    for one in set(label.tolist()):
        check_label(one)
    for place, one in enumerate(case.tolist()):
        if one is None or one != one:  # NaN, as tables have where nothing is
            raise InputError(f"image {place} has no case: name what images belong together by")
    if not ((given >= 0) & (given <= 1)).all():
        raise InputError("probabilities must be between 0 and 1")
    return given, label, case, places, others


def count_cases(table: metrics.Table) -> Counts:
    """Count images and cases of a table with ``label`` and ``case_id``."""
    truth, case = metrics.is_malignant(table), table["case_id"]
    return Counts(
        **metrics.count_images(table),
        benign_cases=len(set(case[~truth])),
        malignant_cases=len(set(case[truth])),
    )


def _check_shapes(**arrays: NDArray[Any]) -> None:
    """Refuse arrays that don't have one value for each image."""
    shapes = {name: one.shape for name, one in arrays.items()}
    if len(set(shapes.values())) > 1 or arrays["labels"].ndim != 1:
        described = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(f"arrays must have one value for each image, shape (N,), not {described}")


def _check_enough(counts: Counts) -> None:
    if not counts.images:
        raise InputError("there are no images to measure on")
    if not counts.benign or not counts.malignant:
        only = "benign" if counts.benign else "malignant"
        raise InputError(f"all {counts.images} images are {only}: images of both labels are needed")
    if counts.cases < metrics.MIN_CASES:
        raise InputError(
            f"{counts.cases} cases are too few for intervals: at least {metrics.MIN_CASES} are "
            f"needed, {metrics.MIN_CASES - counts.cases} more"
        )


def _measure_here(
    truth: Bools,
    probability: Floats,
    decision: DecisionConfig,
    name: str,
    drawn: Resamples,
    others: Bools,
) -> PointHere:
    rule, stated = decision.at(None if name == OWN else name), decision.points.get(name)
    low, high = rule.refer or (1.0, 0.0)
    in_band = (probability >= low) & (probability <= high)
    return PointHere(
        threshold=rule.threshold,
        **measure_referral(~(in_band | others), (probability >= rule.threshold) != truth, drawn),
        sensitivity_stated=stated.sensitivity if stated else None,
        specificity_stated=stated.specificity if stated else None,
        **measure_point(truth, probability, rule.threshold, drawn),
    )


def _count_needed(
    auroc: Estimate, here: PointHere, counts: Counts, difference: float
) -> tuple[CasesNeeded, ...]:
    asked: tuple[tuple[str, Estimate, Literal["any", "benign", "malignant"], int], ...] = (
        ("auroc", auroc, "any", counts.cases),
        ("sensitivity", here.sensitivity, "malignant", counts.malignant_cases),
        ("specificity", here.specificity, "benign", counts.benign_cases),
    )
    found = []
    for figure, estimate, kind, cases in asked:
        error = (estimate.high - estimate.low) / _INTERVAL
        needed = math.ceil(cases * ((_CERTAINTY + _POWER) * error / difference) ** 2)
        found.append(CasesNeeded(figure=figure, kind=kind, cases=cases, needed=needed or None))
    return tuple(found)
