"""Rows of a corpus with their pixels, ready to train or evaluate on."""

from __future__ import annotations

from dataclasses import dataclass

import datasets
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.corpus.pixels import Pixels


@dataclass
class Rows:
    """Some rows of a corpus, ready to train or evaluate on.

    Attributes:
        frame: One line a row: label, source, case_id.
        pixels: Their pixels, in the same order.
        taught: P(malignant) that teachers give each row, NaN where they say nothing; or None.
    """

    frame: pd.DataFrame
    pixels: Pixels
    taught: NDArray[np.float64] | None = None

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Whether each row is malignant."""
        truth: NDArray[np.bool_] = (self.frame["label"] == "malignant").to_numpy()
        return truth

    def where(self, mask: NDArray[np.bool_]) -> Rows:
        """Return some of the rows."""
        taught = None if self.taught is None else self.taught[mask]
        return Rows(self.frame[mask].reset_index(drop=True), self.pixels.where(mask), taught)


def rows_of(
    corpus: datasets.Dataset, frame: pd.DataFrame, indices: NDArray[np.int64], largest: int
) -> Rows:
    """Rows of a corpus by position; ``frame`` is the whole corpus' table."""
    chosen = frame.iloc[indices].reset_index(drop=True)
    return Rows(chosen, Pixels(corpus, indices, largest))
