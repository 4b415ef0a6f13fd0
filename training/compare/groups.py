"""An arm's out-of-fold answers by group: beside the published ones, by look, of other sources."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from bcd_models.config import Estimate
from bcd_models.images.tissue import is_tissue
from bcd_models.local import metrics
from bcd_models.local.degradations import Pixels
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
from training.corpus import splits
from training.evaluate.schema import Figures, Group, MacroOverCases, OtherSource

PUBLISHED = Path(__file__).parents[2] / "cards" / "study" / "0.2.0" / "predictions.parquet"
PUBLISHED_ARMS = {"1": "tuned", "8": "tuned-8-views"}  # by views
PUBLISHED_RECIPE = "mobilenetv2/tuned"  # beside which other networks stand, too
QUARTERS = (0, 0.25, 0.5, 0.75, 1)


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
    prefix = backbone if known else PUBLISHED_RECIPE.partition("/")[0]
    source = frame["source"].iloc[0]
    minus = {}
    for views, arm in PUBLISHED_ARMS.items():
        theirs = pool_folds(published, f"{prefix}/{arm}")
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


def pool_folds(published: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Return a published arm's rows with the ``margin`` of the fold that held each out."""
    folds = [f"{arm}/fold-{fold}" for fold in range(splits.FOLDS)]
    margins = published[[name for name in folds if name in published]].max(axis=1)
    return published.assign(margin=margins).dropna(subset="margin")


def compare_random(published: pd.DataFrame, larger: str) -> tuple[schema.Split, ...]:
    """Set the published recipe, learnt from a random split, beside its folds of whole cases."""
    arm = PUBLISHED_RECIPE
    if f"{arm}/random" not in published:
        raise Missing("the published table holds no run on the random split")
    random = published.assign(margin=published[f"{arm}/random"]).dropna(subset="margin")
    one, other = align_frames(
        [select_source(frame, larger) for frame in (random, pool_folds(published, arm))]
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


def measure_groups(frame: pd.DataFrame, patches: Iterable[Pixels]) -> tuple[Group, ...]:
    """Measure the quarters of images by brightness, and by the share that is tissue.

    Args:
        frame: Rows of the larger source, with ``log_odds``.
        patches: Their pixels.
    """
    looks = np.array([(pixels.mean(), is_tissue(pixels).mean()) for pixels in patches])
    threshold = float(metrics.is_malignant(frame).mean())
    found = []
    for by, values in zip(("brightness", "tissue"), looks.T, strict=True):
        ends = np.quantile(values, QUARTERS)
        quarter = np.searchsorted(ends[1:-1], values, side="right")
        for number in range(len(QUARTERS) - 1):
            own = frame[quarter == number]
            if own["label"].nunique() < 2:
                continue
            figures = metrics.measure_intervals(
                metrics.is_malignant(own),
                expit(own["log_odds"].to_numpy()),
                threshold,
                resample_cases(own),
                ("recall", "specificity"),
            )
            ranges = {"by": by, "low": ends[number], "high": ends[number + 1]}
            found.append(Group(**ranges, counts=count_rows(own), **figures))
    return tuple(found)


def measure_other(
    source: str,
    learnt: bool,
    frame: pd.DataFrame,
    line: tuple[float, float],
    threshold: float,
) -> OtherSource:
    """Measure another source by tile, image and case: the mean log-odds of what each shows.

    Args:
        source: Its name.
        learnt: Whether its other cases were learnt from.
        frame: Its rows, with a ``margin``; in ``name`` a tile's place in its image follows a "#".
        line: Slope and intercept that calibrate the larger source's margins.
        threshold: Log-odds from which an image counts as called malignant.
    """
    slope, intercept = line
    tiles = frame.assign(
        margin=slope * frame["margin"] + intercept, image=frame["name"].str.partition("#")[0]
    )
    alike = ["source", "case_id", "label"]
    images = tiles.groupby([*alike, "subtype", "image"], as_index=False)["margin"].mean()
    cases = images.groupby(alike, as_index=False)["margin"].mean()
    called = (images["margin"] >= threshold).groupby(images["subtype"])
    return OtherSource(
        source=source,
        learnt=learnt,
        counts=count_rows(tiles),
        auroc={
            name: measure_auroc(level)
            for name, level in (("tile", tiles), ("image", images), ("case", cases))
        },
        called={str(name): (len(own), float(own.mean())) for name, own in called},
    )
