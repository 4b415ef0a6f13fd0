"""An arm's out-of-fold answers by group: quarters by look, and other sources."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.special import expit

from bcd_models.images.tissue import is_tissue
from bcd_models.local import metrics
from bcd_models.local.degradations import Pixels
from training.compare.rows import count_rows, measure_auroc, resample_cases
from training.evaluate.schema import Group, OtherSource

QUARTERS = (0, 0.25, 0.5, 0.75, 1)


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
