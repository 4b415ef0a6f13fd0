"""Figures of a binary classifier, with 95% intervals by bootstrap over whole cases.

Values are scikit-learn's. An interval needs a figure some thousand times over: there the rows are
sorted once, and a resample is no more than how often it drew each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


def figures(truth: Bools, probability: Floats, threshold: float) -> dict[str, float]:
    """The figures of one set of images.

    Args:
        truth: Whether each image is malignant; both must occur.
        probability: P(malignant) of each.
        threshold: From which probability the label is malignant.
    """
    called = probability >= threshold
    recall = sk.recall_score(truth, called)
    found = {
        "auroc": sk.roc_auc_score(truth, probability),
        "auprc": sk.average_precision_score(truth, probability),
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "recall": recall,
        "false_negative_rate": 1 - recall,
        "specificity": sk.recall_score(truth, called, pos_label=0),
        "precision": sk.precision_score(truth, called, zero_division=0),
        "f1": sk.f1_score(truth, called, zero_division=0),
        "sensitivity_at_90_specificity": _sensitivity_at(0.10, truth, probability),
        "sensitivity_at_95_specificity": _sensitivity_at(0.05, truth, probability),
        "brier": sk.brier_score_loss(truth, probability),
        "ece": expected_calibration_error(truth, probability),
    }
    return {name: float(value) for name, value in found.items()}


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
    """The ECE that labels drawn from these very probabilities would show, on average."""
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
    """Each figure as value, low and high end of its 95% interval."""
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


def estimable(frame: pd.DataFrame) -> bool:
    """Whether a subgroup has both labels and at least ten cases."""
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
    """Images in each of some equally wide bins of probability."""
    counted, _ = np.histogram(probability, bins, (0, 1))
    return [int(number) for number in counted]


def macro_over_cases(frame: pd.DataFrame, probability: Floats) -> dict[str, Any]:
    """Mean AUROC of the cases that hold both labels."""
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
    """What ``figures`` gives, of every resample."""
    truth, probability, drawn = _by_falling_score(truth, probability, drawn)
    blocks = [
        _figures_of_block(truth, probability, threshold, times) for times in drawn.blocks(truth)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _figures_of_block(
    truth: Bools, probability: Floats, threshold: float, times: Floats
) -> dict[str, Floats]:
    trues, falses = _curve(truth, probability, times)
    called = probability >= threshold
    true, false = times @ (called & truth), times @ (called & ~truth)
    positives, negatives = trues[:, -1], falses[:, -1]
    recall, specificity = true / positives, 1 - false / negatives
    precisions = trues[:, 1:] / np.maximum(trues[:, 1:] + falses[:, 1:], 1)
    share = falses / negatives[:, None]
    return {
        "auroc": _area(trues, falses),
        "auprc": (np.diff(trues) * precisions).sum(1) / positives,
        "accuracy": (true + negatives - false) / (positives + negatives),
        "balanced_accuracy": (recall + specificity) / 2,
        "recall": recall,
        "false_negative_rate": 1 - recall,
        "specificity": specificity,
        "precision": true / np.maximum(true + false, 1),
        "f1": 2 * true / (positives + true + false),
        "sensitivity_at_90_specificity": np.where(share <= 0.10, trues, 0).max(1) / positives,
        "sensitivity_at_95_specificity": np.where(share <= 0.05, trues, 0).max(1) / positives,
        "brier": times @ (probability - truth) ** 2 / (positives + negatives),
        "ece": _calibration_errors(truth, probability, times),
    }


def _sensitivity_at(most_false: float, truth: Bools, probability: Floats) -> float:
    falls, rises, _ = sk.roc_curve(truth, probability, drop_intermediate=False)
    return float(rises[falls <= most_false].max())


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
