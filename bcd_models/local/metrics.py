"""Figures of a binary classifier, with 95% intervals by bootstrap over whole cases.

``METRICS`` is the one table of them: ``metrics.json`` and its schema, cards, the Hub's evaluation
results and reports have a figure for each of its rows.

An interval needs a figure some thousand times over: the rows are sorted once, and a resample is no
more than how often it drew each row. The figures are scikit-learn's, which the tests hold them to.

Example:
    >>> import numpy as np
    >>> truth, probability = np.array([True, False, True]), np.array([0.9, 0.4, 0.3])
    >>> compute_figures(truth, probability, threshold=0.5)["recall"]
    0.5
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bcd_models.config import Estimate

RESAMPLES = 2_000
MIN_CASES = 10
BINS = 10
_PERFECT_DRAWS = 200  # of labels, that perfect calibration is averaged over
_BLOCK = 1_000_000  # numbers held at once while resampling

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Table: TypeAlias = Any
"""Columns by name: a data frame, or a dict of arrays."""
Figure = Callable[[Bools, Floats], float]


@dataclass(frozen=True)
class Metric:
    """One figure: a row of the table that everything which names figures reads.

    Attributes:
        name: In ``metrics.json``.
        words: What pages call it.
        compute: The figure of each resample of a block, shape (B,).
        hub: What the Hub calls it; "": it has no name for it.
        in_percent: Whether people write it as a share, in percent.
        optional: Whether files may lack it: it was added after some had been published.
    """

    name: str
    words: str
    compute: Callable[[Block], Floats]
    hub: str = ""
    in_percent: bool = True
    optional: bool = False

    def text(self, value: float) -> str:
        """Write a value as people do: areas and errors as they are, shares in percent."""
        return f"{100 * value:.1f}%" if self.in_percent else f"{value:.3f}"


@dataclass(frozen=True)
class Block:
    """Some resamples of the same rows, and what their figures share.

    Attributes:
        truth: Whether each row is malignant, shape (N,), rows by falling probability.
        probability: P(malignant) of each row.
        threshold: From which probability a row is called malignant.
        times: How often each resample drew each row, shape (B, N).
    """

    truth: Bools
    probability: Floats
    threshold: float
    times: Floats

    @cached_property
    def curve(self) -> tuple[Floats, Floats]:
        """True and false positives as the threshold falls, each (B, steps + 1)."""
        return _curve(self.truth, self.probability, self.times)

    @property
    def calls(self) -> Bools:
        """Whether each row is called malignant, shape (N,)."""
        return self.probability >= self.threshold

    @property
    def recall(self) -> Floats:
        """Share of the malignant rows called so, shape (B,)."""
        return self.average(self.calls, self.truth)

    @property
    def specificity(self) -> Floats:
        """Share of the benign rows not called malignant, shape (B,)."""
        return self.average(~self.calls, ~self.truth)

    def average(self, values: Floats | Bools, among: Bools | None = None) -> Floats:
        """Return the mean of a value over all rows or some, shape (B,); 0 where there are none."""
        among = np.ones_like(self.truth) if among is None else among
        return (self.times @ (values * among)) / np.maximum(self.times @ among, 1)


def compute_figures(truth: Bools, probability: Floats, threshold: float) -> dict[str, float]:
    """Return the figures of one set of images, by name.

    Args:
        truth: Whether each image is malignant; both must occur.
        probability: P(malignant) of each.
        threshold: From which probability the label is malignant.
    """
    every_row_once = Resamples(np.arange(len(truth)), np.ones((1, len(truth)), np.int64))
    resampled = _resample_figures(truth, probability, threshold, every_row_once)
    return {name: float(values[0]) for name, values in resampled.items()}


def auroc(truth: Bools, scores: Floats) -> float:
    """Return the area under the ROC curve, ties counting half; both labels must occur."""
    benign = np.sort(scores[~truth])
    below, upto = (np.searchsorted(benign, scores[truth], side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(benign))


def best_balanced_accuracy(truth: Bools, scores: Floats) -> float:
    """Return balanced accuracy at the threshold where it is largest on these very rows."""
    once = Resamples(np.arange(len(truth)), np.ones((1, len(truth)), np.int64))
    return float(_resample_one_figure(best_balanced_accuracy, truth, scores, once)[0])


def expected_calibration_error(truth: Bools, probability: Floats) -> float:
    """Return the ECE over ten bins of equal count: the mean gap to the frequency."""
    order = np.argsort(probability, kind="stable")[::-1]
    once = np.ones((1, len(order)))
    return float(_calibration_errors(Block(truth[order], probability[order], 0.5, once))[0])


def ece_if_perfect(probability: Floats) -> float:
    """Return the ECE that labels drawn from these very probabilities would show, on average."""
    rng = np.random.default_rng(0)
    drawn = (rng.random(len(probability)) < probability for _ in range(_PERFECT_DRAWS))
    return float(np.mean([expected_calibration_error(labels, probability) for labels in drawn]))


@dataclass(frozen=True)
class Resamples:
    """Bootstrap resamples of whole cases.

    Attributes:
        case: Number of each row's case, shape (N,).
        drawn: How often each resample drew each case, shape (R, C).
    """

    case: NDArray[np.int64]
    drawn: NDArray[np.int64]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Row positions of each resample, in ascending order."""
        for times in self.drawn:
            yield np.repeat(np.arange(len(self.case)), times[self.case])

    def blocks(self, truth: Bools) -> Iterator[Floats]:
        """Yield how often each row was drawn, shape (B, N), some resamples at a time.

        Resamples of one label alone are left out.
        """
        malignant = self.drawn @ np.bincount(self.case[truth], minlength=self.drawn.shape[1])
        benign = self.drawn @ np.bincount(self.case[~truth], minlength=self.drawn.shape[1])
        both = self.drawn[(malignant > 0) & (benign > 0)].astype(np.float64)
        step = max(1, _BLOCK // len(truth))
        for first in range(0, len(both), step):
            yield both[first : first + step, self.case]


def draw_resamples(
    cases: ArrayLike, sources: ArrayLike, count: int = RESAMPLES, seed: int = 0
) -> Resamples:
    """Draw bootstrap resamples of whole cases, within each source as many as it has.

    Args:
        cases: Of which case each row is, shape (N,).
        sources: Of which source.
        count: Resamples.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    pairs = list(zip(np.asarray(sources).tolist(), np.asarray(cases).tolist(), strict=True))
    number = {pair: place for place, pair in enumerate(sorted(set(pairs)))}
    numbers = np.array([number[pair] for pair in pairs], np.int64)
    sizes = Counter(source for source, _ in number).values()  # in the order of the numbers
    drawn = [
        np.concatenate([np.bincount(rng.integers(0, n, n), minlength=n) for n in sizes])
        for _ in range(count)
    ]
    return Resamples(numbers, np.array(drawn))


def measure_intervals(
    truth: Bools,
    probability: Floats,
    threshold: float,
    drawn: Resamples,
    names: Iterable[str] | None = None,
) -> dict[str, Estimate]:
    """Return each figure, or those named, with its 95% interval."""
    point = compute_figures(truth, probability, threshold)
    spread = _resample_figures(truth, probability, threshold, drawn, names)
    return {name: estimate_interval(point[name], values) for name, values in spread.items()}


def measure_differences(
    truth: Bools,
    ours: tuple[Floats, float],
    theirs: tuple[Floats, float],
    drawn: Resamples,
    names: Iterable[str] | None = None,
) -> dict[str, Estimate]:
    """Return the paired difference of each figure, ours minus theirs, on the same resamples.

    Args:
        truth: Whether each image is malignant.
        ours: Our probabilities and threshold.
        theirs: Theirs, of the same images.
        drawn: Resamples of these images.
        names: Of the figures; all by default.
    """
    point, other = compute_figures(truth, *ours), compute_figures(truth, *theirs)
    spread, others = (_resample_figures(truth, *one, drawn, names) for one in (ours, theirs))
    return {
        name: estimate_interval(point[name] - other[name], spread[name] - others[name])
        for name in spread
    }


def measure_interval(figure: Figure, truth: Bools, scores: Floats, drawn: Resamples) -> Estimate:
    """Return ``auroc`` or ``best_balanced_accuracy`` with its 95% interval."""
    return estimate_interval(
        figure(truth, scores), _resample_one_figure(figure, truth, scores, drawn)
    )


def measure_difference(
    figure: Figure, truth: Bools, ours: Floats, theirs: Floats, drawn: Resamples
) -> Estimate:
    """Return such a figure's paired difference, ours minus theirs, on the same resamples."""
    spread = [_resample_one_figure(figure, truth, scores, drawn) for scores in (ours, theirs)]
    return estimate_interval(figure(truth, ours) - figure(truth, theirs), spread[0] - spread[1])


def is_malignant(table: Table) -> Bools:
    """Return whether each row is malignant."""
    return np.asarray(np.asarray(table["label"]) == "malignant", bool)


def is_estimable(table: Table) -> bool:
    """Return whether a subgroup has both labels and at least ten cases."""
    return len(set(table["label"])) == 2 and len(set(table["case_id"])) >= MIN_CASES


def count_images(table: Table) -> dict[str, int]:
    """Count images, cases and images of each label."""
    truth = is_malignant(table)
    malignant = int(truth.sum())
    return {
        "images": len(truth),
        "cases": len(set(table["case_id"])),
        "benign": len(truth) - malignant,
        "malignant": malignant,
    }


def count_in_bins(probability: Floats, bins: int) -> list[int]:
    """Count the images in each of some equally wide bins of probability."""
    counted, _ = np.histogram(probability, bins, (0, 1))
    return [int(number) for number in counted]


def average_over_cases(table: Table, probability: Floats) -> dict[str, Any]:
    """Return the mean AUROC of the cases that hold both labels."""
    truth = is_malignant(table)
    case = np.unique(np.asarray(table["case_id"]), return_inverse=True)[1]
    groups = (np.flatnonzero(case == one) for one in range(case.max(initial=-1) + 1))
    both = [rows for rows in groups if 0 < truth[rows].sum() < len(rows)]
    if len(both) < MIN_CASES:
        return {"cases": len(both), "auroc": None}
    mean = np.mean([auroc(truth[rows], probability[rows]) for rows in both])
    return {"cases": len(both), "auroc": float(mean)}


def _by_falling_score(
    truth: Bools, scores: Floats, drawn: Resamples
) -> tuple[Bools, Floats, Resamples]:
    order = np.argsort(scores, kind="stable")[::-1]
    return truth[order], scores[order], Resamples(drawn.case[order], drawn.drawn)


def _curve(truth: Bools, scores: Floats, times: Floats) -> tuple[Floats, Floats]:
    """Return true and false positives as the threshold falls, (B, steps + 1).

    Rows are sorted by falling score; equal scores make one step.
    """
    steps = np.append(0, 1 + np.flatnonzero(np.diff(scores, append=-np.inf)))
    true, every = _sum_running(times * truth), _sum_running(times)
    if len(steps) <= len(scores):
        true, every = true[:, steps], every[:, steps]
    return true, every - true


def _sum_running(values: Floats) -> Floats:
    """Return running sums along each line, from zero."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _compute_area(true: Floats, false: Floats) -> Floats:
    twice: Floats = (np.diff(false) * (true[:, 1:] + true[:, :-1])).sum(1)
    return twice / (2 * true[:, -1] * false[:, -1])


def _largest_balanced_accuracy(true: Floats, false: Floats) -> Floats:
    above_chance: Floats = (true / true[:, -1:] - false / false[:, -1:]).max(1)
    return (1 + above_chance) / 2


_OF_CURVE: dict[Figure, Callable[[Floats, Floats], Floats]] = {
    auroc: _compute_area,
    best_balanced_accuracy: _largest_balanced_accuracy,
}


def _resample_one_figure(figure: Figure, truth: Bools, scores: Floats, drawn: Resamples) -> Floats:
    truth, scores, drawn = _by_falling_score(truth, scores, drawn)
    of = _OF_CURVE[figure]
    return np.concatenate([of(*_curve(truth, scores, times)) for times in drawn.blocks(truth)])


def _resample_figures(
    truth: Bools,
    probability: Floats,
    threshold: float,
    drawn: Resamples,
    names: Iterable[str] | None = None,
) -> dict[str, Floats]:
    """Return every figure, or those named, of every resample."""
    truth, probability, drawn = _by_falling_score(truth, probability, drawn)
    blocks = [Block(truth, probability, threshold, times) for times in drawn.blocks(truth)]
    return {
        name: np.concatenate([METRICS[name].compute(block) for block in blocks])
        for name in (METRICS if names is None else names)
    }


def _precision(block: Block) -> Floats:
    return block.average(block.truth, block.calls)


def _f1(block: Block) -> Floats:
    """Return the harmonic mean of precision and recall."""
    hits = block.times @ (block.calls & block.truth)
    return 2 * hits / (block.times @ block.calls + block.times @ block.truth)


def _brier_score(block: Block) -> Floats:
    return block.average((block.probability - block.truth) ** 2)


def _average_precision(block: Block) -> Floats:
    """Return precision at each step, weighted by the recall that it adds."""
    true, false = block.curve
    precisions = true[:, 1:] / np.maximum(true[:, 1:] + false[:, 1:], 1)
    weighted: Floats = (np.diff(true) * precisions).sum(1)
    return weighted / true[:, -1]


def _sensitivity_at(false_positive_rate: float, block: Block) -> Floats:
    """Return the largest recall at no more than a false positive rate."""
    true, false = block.curve
    kept = false / false[:, -1:] <= false_positive_rate
    largest: Floats = np.where(kept, true, 0).max(1)
    return largest / true[:, -1]


def _calibration_errors(block: Block) -> Floats:
    """Return the ECE; the bins of lowest probability take what does not divide by ten."""
    rising = block.times[:, ::-1]
    reached, gaps = (
        _sum_running(rising),
        _sum_running(rising * (block.probability - block.truth)[::-1]),
    )
    total = reached[:, -1:]
    bins = np.arange(BINS + 1)
    edges = bins * (total // BINS) + np.minimum(bins, total % BINS)
    at = [np.interp(*row) for row in zip(edges, reached, gaps, strict=True)]
    return np.asarray(np.abs(np.diff(at)).sum(1) / total[:, 0])


def estimate_interval(value: float, spread: Floats) -> Estimate:
    """Return a figure with the ends of its 95% interval, which its resamples' values give."""
    low, high = np.quantile(spread, (0.025, 0.975))
    return Estimate(value=value, low=float(low), high=float(high))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("auroc", "AUROC", lambda b: _compute_area(*b.curve), "roc_auc", in_percent=False),
        Metric("auprc", "AUPRC", _average_precision, in_percent=False),
        Metric("accuracy", "accuracy", lambda b: b.average(b.calls == b.truth), "accuracy"),
        Metric(
            "balanced_accuracy",
            "balanced accuracy",
            lambda b: (b.recall + b.specificity) / 2,
            "balanced_accuracy",
        ),
        Metric("recall", "recall (sensitivity) of malignant", lambda b: b.recall, "recall"),
        Metric("false_negative_rate", "false negative rate", lambda b: 1 - b.recall),
        Metric("specificity", "specificity", lambda b: b.specificity, "specificity"),
        Metric("precision", "precision", _precision, "precision"),
        Metric("f1", "F1", _f1, "f1"),
        Metric(
            "sensitivity_at_90_specificity",
            "sensitivity at 90% specificity",
            partial(_sensitivity_at, 0.10),
        ),
        Metric(
            "sensitivity_at_95_specificity",
            "sensitivity at 95% specificity",
            partial(_sensitivity_at, 0.05),
        ),
        Metric("brier", "Brier score", _brier_score, "brier_score", in_percent=False),
        Metric("ece", "ECE", _calibration_errors, in_percent=False),
    )
}
HEADLINE = ("auroc", "balanced_accuracy", "accuracy", "recall", "false_negative_rate")
