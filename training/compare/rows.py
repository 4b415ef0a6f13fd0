"""Rows of predictions: which to compare, and what is estimated of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bcd_models.config import Estimate
from bcd_models.errors import InputError
from bcd_models.local import metrics
from bcd_models.local.metrics import is_malignant
from training.evaluate.schema import Counts


def select_source(frame: pd.DataFrame, source: str) -> pd.DataFrame:
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


def count_rows(frame: pd.DataFrame) -> Counts:
    """Count images, cases and labels."""
    return Counts(**metrics.count_images(frame))


def resample_cases(frame: pd.DataFrame) -> metrics.Resamples:
    """Draw resamples of whole cases; the same for frames of the same rows."""
    return metrics.draw_resamples(frame["case_id"], frame["source"])


def get_margins(frame: pd.DataFrame) -> metrics.Floats:
    """Return the logit margins, shape (N,)."""
    return np.asarray(frame["margin"], np.float64)


def measure_auroc(frame: pd.DataFrame) -> Estimate:
    """Return the AUROC of the margins."""
    return metrics.measure_interval(
        metrics.auroc, is_malignant(frame), get_margins(frame), resample_cases(frame)
    )


def measure_frame(frame: pd.DataFrame) -> dict[str, Any]:
    """Return counts, AUROC and balanced accuracy.

    The latter is at the threshold where it is largest on these very images.
    """
    best = metrics.best_balanced_accuracy
    return {
        "counts": count_rows(frame),
        "auroc": measure_auroc(frame),
        "balanced_accuracy": metrics.measure_interval(
            best, is_malignant(frame), get_margins(frame), resample_cases(frame)
        ),
    }


def subtract_auroc(ours: pd.DataFrame, theirs: pd.DataFrame, source: str) -> tuple[Estimate, int]:
    """Return the paired difference of AUROC, and how many of a source's images both scored."""
    one, other = align_frames([select_source(frame, source) for frame in (ours, theirs)])
    gap = metrics.measure_difference(
        metrics.auroc, is_malignant(one), get_margins(one), get_margins(other), resample_cases(one)
    )
    return gap, len(one)
