"""What becomes of a model's figures as images grow worse, rung by rung of the ladder."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bcd_models.config import Estimate, Strict
from bcd_models.local import metrics
from bcd_models.local.metrics import Bools, Floats, Resamples

if TYPE_CHECKING:  # these take scipy, which figures don't
    from bcd_models.local.degradations import Pixels
    from bcd_models.local.ladder import Rung

MAX_RECALL_LOSS, MAX_SPECIFICITY_LOSS = 0.10, 0.15  # beyond either, a model is not usable any more
SEED = 0
_AT_THRESHOLD = ("recall", "specificity")

Answers = tuple[Floats, Floats]
"""Calibrated log-odds, and whether they reach the model's own threshold as 1 or 0."""


class KeyFigures(Strict):
    """The figures of a rung, or how far they lie above those of clean images."""

    auroc: Estimate
    recall: Estimate
    specificity: Estimate


class RungFigures(Strict):
    """What was measured on a rung.

    Attributes:
        name: Of the rung.
        kind: What grows stronger from rung to rung.
        words: How strong it is here.
        unseen: Whether training never degrades in this way.
        figures: Of the degraded patches.
        minus_clean: The same less those of the clean patches, paired.
    """

    name: str
    kind: str
    words: str
    unseen: bool
    figures: KeyFigures
    minus_clean: KeyFigures

    @property
    def is_usable(self) -> bool:
        """Whether neither recall nor specificity falls by more than is bearable."""
        gained = self.minus_clean
        return (
            gained.recall.value >= -MAX_RECALL_LOSS
            and gained.specificity.value >= -MAX_SPECIFICITY_LOSS
        )


class Climb(Strict):
    """A ladder, climbed.

    Attributes:
        clean: Figures of the patches as they are.
        rungs: In the ladder's order.
        stops_at: For each kind the first rung at which the model is not usable any more, or None.
    """

    clean: KeyFigures
    rungs: tuple[RungFigures, ...]
    stops_at: dict[str, str | None]


def draw_evenly(cases: ArrayLike, count: int, seed: int = SEED) -> NDArray[np.intp]:
    """Draw rows at random, as many from each case until it has no more.

    Args:
        cases: Of which case each row is, shape (N,).
        count: How many rows; all where there are fewer.
        seed: Of the draw.

    Returns:
        Their places, ascending.
    """
    case = np.asarray(cases)
    order = np.random.RandomState(seed).permutation(len(case))
    seen: dict[object, int] = {}
    rank = np.empty(len(case), np.int64)
    for place, one in enumerate(case[order].tolist()):
        rank[place] = seen[one] = seen.get(one, -1) + 1
    return np.sort(order[np.argsort(rank, kind="stable")[:count]])


def degrade(rung: Rung, patches: Iterable[Pixels], rows: Iterable[int]) -> list[Pixels]:
    """Degrade patches by a rung, each with the seed of its row."""
    return [
        rung.apply(patch, np.random.default_rng((SEED, row)))
        for patch, row in zip(patches, rows, strict=True)
    ]


def measure_climb(
    truth: Bools, clean: Answers, degraded: Iterable[tuple[Rung, Answers]], drawn: Resamples
) -> Climb:
    """Measure the answers on each rung of a ladder.

    Args:
        truth: Whether each image is malignant, shape (N,); both must occur.
        clean: Answers about the images as they are.
        degraded: Answers about the same images on each rung, kind by kind.
        drawn: Resamples of these images.
    """
    rungs = tuple(
        RungFigures(
            name=rung.name,
            kind=rung.kind,
            words=rung.words,
            unseen=rung.unseen,
            figures=_estimate_figures(truth, answers, drawn),
            minus_clean=_estimate_differences(truth, answers, clean, drawn),
        )
        for rung, answers in degraded
    )
    return Climb(
        clean=_estimate_figures(truth, clean, drawn),
        rungs=rungs,
        stops_at={
            kind: next((rung.name for rung in of_kind if not rung.is_usable), None)
            for kind, of_kind in itertools.groupby(rungs, lambda rung: rung.kind)
        },
    )


def _estimate_figures(truth: Bools, answers: Answers, drawn: Resamples) -> KeyFigures:
    """Return the figures of some answers."""
    scores, calls = answers
    auroc = metrics.measure_interval(metrics.auroc, truth, scores, drawn)
    found = metrics.measure_intervals(truth, calls, 0.5, drawn, _AT_THRESHOLD)
    return KeyFigures(auroc=auroc, **found)


def _estimate_differences(
    truth: Bools, ours: Answers, clean: Answers, drawn: Resamples
) -> KeyFigures:
    """Return how far figures lie above those of the clean images, paired."""
    auroc = metrics.measure_difference(metrics.auroc, truth, ours[0], clean[0], drawn)
    found = metrics.measure_differences(
        truth, (ours[1], 0.5), (clean[1], 0.5), drawn, _AT_THRESHOLD
    )
    return KeyFigures(auroc=auroc, **found)
