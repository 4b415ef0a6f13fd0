"""Figures of a binary classifier, with 95% intervals by bootstrap over whole cases.

``METRICS`` is the one table of them: ``metrics.json`` and its schema, cards, the Hub's evaluation
results and reports have a figure for each of its rows.

Values are scikit-learn's. An interval needs a figure some thousand times over: there the rows are
sorted once, and a resample is no more than how often it drew each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics as sk

from bcd_models.decision import log_odds
from training.evaluate.calibration import fit_line

RESAMPLES = 2_000
MIN_CASES = 10
BINS = 10
_EPS = 1e-6
_BLOCK = 1_000_000  # numbers held at once while resampling

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Figure = Callable[[Bools, Floats], float]


@dataclass(frozen=True)
class Metric:
    """One figure: a row of the table that everything which names figures reads.

    Attributes:
        name: In ``metrics.json``.
        words: What pages call it.
        value: Of truth, P(malignant) and whether each image is called malignant.
        resampled: The same of each resample of a block, shape (B,).
        hub: What the Hub calls it; "": it has no name for it.
        in_percent: Whether people write it as a share, in percent.
        optional: Whether files may lack it: it was added after some had been published.
    """

    name: str
    words: str
    value: Callable[[Bools, Floats, Bools], float]
    resampled: Callable[[Block], Floats]
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

    @cached_property
    def true_positives(self) -> Floats:
        """Malignant rows called so, shape (B,)."""
        return self.times @ ((self.probability >= self.threshold) & self.truth)

    @cached_property
    def false_positives(self) -> Floats:
        """Benign rows called malignant, shape (B,)."""
        return self.times @ ((self.probability >= self.threshold) & ~self.truth)

    @property
    def positives(self) -> Floats:
        """Malignant rows, shape (B,)."""
        return self.curve[0][:, -1]

    @property
    def negatives(self) -> Floats:
        """Benign rows, shape (B,)."""
        return self.curve[1][:, -1]

    @property
    def recall(self) -> Floats:
        """Share of the malignant rows called so, shape (B,)."""
        return self.true_positives / self.positives

    @property
    def specificity(self) -> Floats:
        """Share of the benign rows not called malignant, shape (B,)."""
        return 1 - self.false_positives / self.negatives

    @property
    def accuracy(self) -> Floats:
        """Share of the rows called right, shape (B,)."""
        right = self.true_positives + self.negatives - self.false_positives
        return right / (self.positives + self.negatives)

    @property
    def precision(self) -> Floats:
        """Share of the rows called malignant that are; 0 where none is called so, shape (B,)."""
        return self.true_positives / np.maximum(self.true_positives + self.false_positives, 1)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall, shape (B,)."""
        called = self.true_positives + self.false_positives
        return 2 * self.true_positives / (self.positives + called)

    @property
    def average_precision(self) -> Floats:
        """Precision at each step, weighted by the recall that it adds, shape (B,)."""
        true, false = self.curve
        precisions = true[:, 1:] / np.maximum(true[:, 1:] + false[:, 1:], 1)
        weighted: Floats = (np.diff(true) * precisions).sum(1)
        return weighted / self.positives

    def sensitivity_at(self, false_positive_rate: float) -> Floats:
        """Largest recall at no more than a false positive rate, shape (B,)."""
        true, false = self.curve
        kept = false / self.negatives[:, None] <= false_positive_rate
        largest: Floats = np.where(kept, true, 0).max(1)
        return largest / self.positives

    @property
    def brier(self) -> Floats:
        """Mean squared error of the probabilities, shape (B,)."""
        errors: Floats = self.times @ (self.probability - self.truth) ** 2
        return errors / (self.positives + self.negatives)


def figures(truth: Bools, probability: Floats, threshold: float) -> dict[str, float]:
    """Return the figures of one set of images, by name.

    Args:
        truth: Whether each image is malignant; both must occur.
        probability: P(malignant) of each.
        threshold: From which probability the label is malignant.
    """
    called = probability >= threshold
    return {name: float(m.value(truth, probability, called)) for name, m in METRICS.items()}


def auroc(truth: Bools, scores: Floats) -> float:
    """Area under the ROC curve."""
    return float(sk.roc_auc_score(truth, scores))


def best_balanced_accuracy(truth: Bools, scores: Floats) -> float:
    """Balanced accuracy at the threshold where it is largest on these very rows."""
    falls, rises, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    return float((1 + rises - falls).max() / 2)


def expected_calibration_error(truth: Bools, probability: Floats) -> float:
    """ECE over ten bins of equal count: mean gap between probability and frequency."""
    order = np.argsort(probability, kind="stable")[::-1]
    once = np.ones((1, len(order)))
    return float(_calibration_errors(truth[order], probability[order], once)[0])


def ece_if_perfect(probability: Floats, seed: int = 0, draws: int = 200) -> float:
    """Return the ECE that labels drawn from these very probabilities would show, on average."""
    rng = np.random.default_rng(seed)
    drawn = (rng.random(len(probability)) < probability for _ in range(draws))
    return float(np.mean([expected_calibration_error(labels, probability) for labels in drawn]))


def calibration(truth: Bools, probability: Floats) -> dict[str, float]:
    """Slope and intercept of truth on log-odds (1 and 0 are perfect), and the ECE's floor."""
    slope, intercept = fit_line(log_odds(np.clip(probability, _EPS, 1 - _EPS)), truth)
    return {
        "slope": slope,
        "intercept": intercept,
        "ece_if_perfectly_calibrated": ece_if_perfect(probability),
    }


@dataclass(frozen=True)
class Resamples:
    """Bootstrap resamples of whole cases.

    Attributes:
        case: Number of each row's case, shape (N,).
        drawn: How often each resample drew each case, shape (R, C).
    """

    case: NDArray[np.int64]
    drawn: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.drawn)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Row positions of each resample, in ascending order."""
        for times in self.drawn:
            yield np.repeat(np.arange(len(self.case)), times[self.case])

    def blocks(self, truth: Bools) -> Iterator[Floats]:
        """How often each row was drawn, shape (B, N), some resamples at a time.

        Resamples of one label alone are left out.
        """
        malignant = self.drawn @ np.bincount(self.case[truth], minlength=self.drawn.shape[1])
        benign = self.drawn @ np.bincount(self.case[~truth], minlength=self.drawn.shape[1])
        both = self.drawn[(malignant > 0) & (benign > 0)].astype(np.float64)
        step = max(1, _BLOCK // len(truth))
        for first in range(0, len(both), step):
            yield both[first : first + step, self.case]


def resamples(
    cases: pd.Series, sources: pd.Series, count: int = RESAMPLES, seed: int = 0
) -> Resamples:
    """Draw bootstrap resamples of whole cases, within each source as many as it has."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"source": sources.to_numpy(), "case": cases.to_numpy()})
    numbers = frame.groupby(["source", "case"]).ngroup().to_numpy(np.int64)
    sizes = frame.groupby("source")["case"].nunique()
    drawn = [
        np.concatenate([np.bincount(rng.integers(0, n, n), minlength=n) for n in sizes])
        for _ in range(count)
    ]
    return Resamples(numbers, np.array(drawn))


def with_intervals(
    truth: Bools, probability: Floats, threshold: float, drawn: Resamples
) -> dict[str, dict[str, float]]:
    """Return each figure as value, low and high end of its 95% interval."""
    point = figures(truth, probability, threshold)
    spread = _figures_of(truth, probability, threshold, drawn)
    return {name: _estimate(value, spread[name]) for name, value in point.items()}


def differences(
    truth: Bools,
    ours: tuple[Floats, float],
    theirs: tuple[Floats, float],
    drawn: Resamples,
) -> dict[str, dict[str, float]]:
    """Paired difference of each figure, ours minus theirs, over the same resamples.

    Args:
        truth: Whether each image is malignant.
        ours: Our probabilities and threshold.
        theirs: Theirs, of the same images.
        drawn: Resamples of these images.
    """
    point, other = figures(truth, *ours), figures(truth, *theirs)
    spread, others = _figures_of(truth, *ours, drawn), _figures_of(truth, *theirs, drawn)
    return {
        name: _estimate(point[name] - other[name], spread[name] - others[name]) for name in point
    }


def interval(figure: Figure, truth: Bools, scores: Floats, drawn: Resamples) -> dict[str, float]:
    """``auroc`` or ``best_balanced_accuracy`` as value, low and high end of its 95% interval."""
    return _estimate(figure(truth, scores), _one_figure_of(figure, truth, scores, drawn))


def difference(
    figure: Figure, truth: Bools, ours: Floats, theirs: Floats, drawn: Resamples
) -> dict[str, float]:
    """Paired difference of such a figure, ours minus theirs, over the same resamples."""
    spread = [_one_figure_of(figure, truth, scores, drawn) for scores in (ours, theirs)]
    return _estimate(figure(truth, ours) - figure(truth, theirs), spread[0] - spread[1])


def is_estimable(frame: pd.DataFrame) -> bool:
    """Return whether a subgroup has both labels and at least ten cases."""
    return bool(frame["label"].nunique() == 2 and frame["case_id"].nunique() >= MIN_CASES)


def counts(frame: pd.DataFrame) -> dict[str, int]:
    """Images, cases and images of each label."""
    malignant = int((frame["label"] == "malignant").sum())
    return {
        "images": len(frame),
        "cases": int(frame["case_id"].nunique()),
        "benign": len(frame) - malignant,
        "malignant": malignant,
    }


def histogram(probability: Floats, bins: int) -> list[int]:
    """Count the images in each of some equally wide bins of probability."""
    counted, _ = np.histogram(probability, bins, (0, 1))
    return [int(number) for number in counted]


def macro_over_cases(frame: pd.DataFrame, probability: Floats) -> dict[str, Any]:
    """Return the mean AUROC of the cases that hold both labels."""
    truth = (frame["label"] == "malignant").to_numpy()
    groups = frame.reset_index(drop=True).groupby("case_id").indices.values()
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
    """True and false positives of each resample as the threshold falls, (B, steps + 1).

    Rows are sorted by falling score; equal scores make one step.
    """
    steps = np.append(0, 1 + np.flatnonzero(np.diff(scores, append=-np.inf)))
    true, every = _running(times * truth), _running(times)
    if len(steps) <= len(scores):
        true, every = true[:, steps], every[:, steps]
    return true, every - true


def _running(values: Floats) -> Floats:
    """Running sums along each line, from zero."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _area(true: Floats, false: Floats) -> Floats:
    twice: Floats = (np.diff(false) * (true[:, 1:] + true[:, :-1])).sum(1)
    return twice / (2 * true[:, -1] * false[:, -1])


def _largest_balanced_accuracy(true: Floats, false: Floats) -> Floats:
    above_chance: Floats = (true / true[:, -1:] - false / false[:, -1:]).max(1)
    return (1 + above_chance) / 2


_OF_CURVE: dict[Figure, Callable[[Floats, Floats], Floats]] = {
    auroc: _area,
    best_balanced_accuracy: _largest_balanced_accuracy,
}


def _one_figure_of(figure: Figure, truth: Bools, scores: Floats, drawn: Resamples) -> Floats:
    truth, scores, drawn = _by_falling_score(truth, scores, drawn)
    of = _OF_CURVE[figure]
    return np.concatenate([of(*_curve(truth, scores, times)) for times in drawn.blocks(truth)])


def _figures_of(
    truth: Bools, probability: Floats, threshold: float, drawn: Resamples
) -> dict[str, Floats]:
    """Every figure of every resample."""
    truth, probability, drawn = _by_falling_score(truth, probability, drawn)
    blocks = [Block(truth, probability, threshold, times) for times in drawn.blocks(truth)]
    return {
        name: np.concatenate([metric.resampled(block) for block in blocks])
        for name, metric in METRICS.items()
    }


def _sensitivity_at(false_positive_rate: float, truth: Bools, probability: Floats) -> float:
    falls, rises, _ = sk.roc_curve(truth, probability, drop_intermediate=False)
    return float(rises[falls <= false_positive_rate].max())


def _calibration_errors(truth: Bools, probability: Floats, times: Floats) -> Floats:
    """ECE of each resample, the rows sorted by falling probability.

    The first bins, those of the lowest probabilities, take what does not divide by ten.
    """
    rising = times[:, ::-1]
    reached, gaps = _running(rising), _running(rising * (probability - truth)[::-1])
    total = reached[:, -1:]
    bins = np.arange(BINS + 1)
    edges = bins * (total // BINS) + np.minimum(bins, total % BINS)
    at = [np.interp(*row) for row in zip(edges, reached, gaps, strict=True)]
    errors: Floats = np.abs(np.diff(at)).sum(1) / total[:, 0]
    return errors


def _estimate(value: float, spread: Floats) -> dict[str, float]:
    low, high = np.quantile(spread, (0.025, 0.975))
    return {"value": value, "low": float(low), "high": float(high)}


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            name="auroc",
            words="AUROC",
            value=lambda truth, said, _: sk.roc_auc_score(truth, said),
            resampled=lambda block: _area(*block.curve),
            hub="roc_auc",
            in_percent=False,
        ),
        Metric(
            name="auprc",
            words="AUPRC",
            value=lambda truth, said, _: sk.average_precision_score(truth, said),
            resampled=lambda block: block.average_precision,
            in_percent=False,
        ),
        Metric(
            name="accuracy",
            words="accuracy",
            value=lambda truth, _, called: sk.accuracy_score(truth, called),
            resampled=lambda block: block.accuracy,
            hub="accuracy",
        ),
        Metric(
            name="balanced_accuracy",
            words="balanced accuracy",
            value=lambda truth, _, called: sk.balanced_accuracy_score(truth, called),
            resampled=lambda block: (block.recall + block.specificity) / 2,
            hub="balanced_accuracy",
        ),
        Metric(
            name="recall",
            words="recall (sensitivity) of malignant",
            value=lambda truth, _, called: sk.recall_score(truth, called),
            resampled=lambda block: block.recall,
            hub="recall",
        ),
        Metric(
            name="false_negative_rate",
            words="false negative rate",
            value=lambda truth, _, called: 1 - sk.recall_score(truth, called),
            resampled=lambda block: 1 - block.recall,
        ),
        Metric(
            name="specificity",
            words="specificity",
            value=lambda truth, _, called: sk.recall_score(truth, called, pos_label=0),
            resampled=lambda block: block.specificity,
            hub="specificity",
        ),
        Metric(
            name="precision",
            words="precision",
            value=lambda truth, _, called: sk.precision_score(truth, called, zero_division=0),
            resampled=lambda block: block.precision,
            hub="precision",
        ),
        Metric(
            name="f1",
            words="F1",
            value=lambda truth, _, called: sk.f1_score(truth, called, zero_division=0),
            resampled=lambda block: block.f1,
            hub="f1",
        ),
        Metric(
            name="sensitivity_at_90_specificity",
            words="sensitivity at 90% specificity",
            value=lambda truth, said, _: _sensitivity_at(0.10, truth, said),
            resampled=lambda block: block.sensitivity_at(0.10),
        ),
        Metric(
            name="sensitivity_at_95_specificity",
            words="sensitivity at 95% specificity",
            value=lambda truth, said, _: _sensitivity_at(0.05, truth, said),
            resampled=lambda block: block.sensitivity_at(0.05),
        ),
        Metric(
            name="brier",
            words="Brier score",
            value=lambda truth, said, _: sk.brier_score_loss(truth, said),
            resampled=lambda block: block.brier,
            hub="brier_score",
            in_percent=False,
        ),
        Metric(
            name="ece",
            words="ECE",
            value=lambda truth, said, _: expected_calibration_error(truth, said),
            resampled=lambda b: _calibration_errors(b.truth, b.probability, b.times),
            in_percent=False,
        ),
    )
}
HEADLINE = ("auroc", "balanced_accuracy", "accuracy", "recall", "false_negative_rate")
