"""Out-of-fold answers beside those of the models published with 0.2.0, and these by split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from scipy.special import expit

from bcd_models.config import Estimate
from bcd_models.local import metrics
from training.compare import schema
from training.compare.rows import (
    align_frames,
    count_rows,
    measure_auroc,
    resample_cases,
    select_source,
    subtract_auroc,
)
from training.compare.runs import Missing
from training.corpus import predictions
from training.evaluate.schema import Figures, MacroOverCases

# Margins of the models published before, by runs of their folds.
TABLE = Path(__file__).parents[2] / "cards" / "study" / "0.2.0" / "predictions.parquet"
ARMS = {"1": "tuned", "8": "tuned-8-views"}  # by views
RECIPE = "mobilenetv2/tuned"  # beside which other networks stand, too


def measure_clean(
    frame: pd.DataFrame, backbone: str, published: pd.DataFrame
) -> tuple[schema.Clean, ...]:
    """Measure clean images: those that the published models were measured on, and all.

    Args:
        frame: Rows of the larger source, with ``log_odds`` and all views.
        backbone: Whose published models these are set beside; others beside MobileNetV2.
        published: The table of the published models' margins.
    """
    known = any(name.startswith(f"{backbone}/") for name in published)
    prefix = backbone if known else RECIPE.partition("/")[0]
    source = frame["source"].iloc[0]
    minus = {}
    for views, arm in ARMS.items():
        theirs = predictions.pool_folds(published, f"{prefix}/{arm}")
        ours = frame.assign(margin=frame[f"views_{views}"])
        if set(ours["sha256"]) & set(theirs["sha256"]):
            minus[views], _ = subtract_auroc(ours, theirs, source)
    threshold = float(metrics.is_malignant(frame).mean())
    first = frame[frame["sha256"].isin(published["sha256"])]
    found = [("first sample", first, minus)] if minus else []
    return tuple(
        _measure_images(images, rows, threshold, gains)
        for images, rows, gains in [*found, ("all", frame, {})]
    )


def _measure_images(
    images: str, frame: pd.DataFrame, threshold: float, minus: dict[str, Estimate]
) -> schema.Clean:
    truth, said = metrics.is_malignant(frame), expit(frame["log_odds"].to_numpy())
    figures = metrics.measure_intervals(truth, said, threshold, resample_cases(frame))
    return schema.Clean.model_validate(
        {
            "images": images,
            "counts": count_rows(frame),
            "figures": Figures.model_validate(figures),
            "over_cases": MacroOverCases(**metrics.average_over_cases(frame, said)),
            "minus_published": minus,
        }
    )


def compare_random(published: pd.DataFrame, larger: str) -> tuple[schema.Split, ...]:
    """Set the published recipe, learnt from a random split, beside its folds of whole cases."""
    arm = RECIPE
    if f"{arm}/random" not in published:
        raise Missing("the published table holds no run on the random split")
    random = published.assign(margin=published[f"{arm}/random"]).dropna(subset="margin")
    one, other = align_frames(
        [select_source(frame, larger) for frame in (random, predictions.pool_folds(published, arm))]
    )
    return (
        schema.Split(
            arm=arm,
            counts=count_rows(one),
            random=measure_auroc(one),
            grouped=measure_auroc(other),
            difference=subtract_auroc(one, other, larger)[0],
        ),
    )
