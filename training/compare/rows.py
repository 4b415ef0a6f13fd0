"""Rows of predictions: which to compare, and what is estimated of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bcd_models.errors import InputError
from training.evaluate import metrics
from training.evaluate.metrics import truth_of
from training.evaluate.schema import Counts, Estimate


def within(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return the rows of one source."""
    return frame[frame["source"] == source].reset_index(drop=True)


def align_frames(frames: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return the same frames, each with the images that all of them hold, in the first one's order.

    Raises:
        InputError: What they share holds one label only, or nothing.
    """
    shared = set.intersection(*(set(frame["sha256"]) for frame in frames))
    first = frames[0][frames[0]["sha256"].isin(shared)]
    if first["label"].nunique() < 2:
        raise InputError(
            f"the {len(first)} images that runs to be compared have both scored do not hold both "
            "labels: leave one of the runs out"
        )
    order = first["sha256"]
    return [frame.set_index("sha256").loc[order].reset_index() for frame in frames]


def counts_of(frame: pd.DataFrame) -> Counts:
    """Images, cases and labels."""
    return Counts(**metrics.counts(frame))


def drawn_of(frame: pd.DataFrame) -> metrics.Resamples:
    """Resamples of whole cases; the same for frames of the same rows."""
    return metrics.resamples(frame["case_id"], frame["source"])


def margins_of(frame: pd.DataFrame) -> metrics.Floats:
    """Logit margins, shape (N,)."""
    return np.asarray(frame["margin"], np.float64)


def auroc_of(frame: pd.DataFrame) -> Estimate:
    """AUROC of the margins."""
    found = metrics.interval(metrics.auroc, truth_of(frame), margins_of(frame), drawn_of(frame))
    return Estimate(**found)


def measure_frame(frame: pd.DataFrame) -> dict[str, Any]:
    """Return counts, AUROC and balanced accuracy.

    The latter is at the threshold where it is largest on these very images.
    """
    best = metrics.best_balanced_accuracy
    found = metrics.interval(best, truth_of(frame), margins_of(frame), drawn_of(frame))
    return {
        "counts": counts_of(frame),
        "auroc": auroc_of(frame),
        "balanced_accuracy": Estimate(**found),
    }


def auroc_minus(ours: pd.DataFrame, theirs: pd.DataFrame, source: str) -> tuple[Estimate, int]:
    """Paired difference of AUROC over a source's images that both scored; how many these are."""
    one, other = align_frames([within(frame, source) for frame in (ours, theirs)])
    gap = metrics.difference(
        metrics.auroc, truth_of(one), margins_of(one), margins_of(other), drawn_of(one)
    )
    return Estimate(**gap), len(one)
