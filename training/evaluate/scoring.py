"""Rows of a corpus, and what a network says of them."""

from __future__ import annotations

from dataclasses import dataclass

import datasets
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bcd_models.config import PreprocessConfig
from bcd_models.images.preprocess import normalise
from bcd_models.models.classifier import margins_of
from training.corpus import splits
from training.corpus.pixels import Pixels, resized
from training.evaluate import metrics

BATCH = 128


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
        return (self.frame["label"] == "malignant").to_numpy()

    def where(self, mask: NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        taught = None if self.taught is None else self.taught[mask]
        return Rows(self.frame[mask].reset_index(drop=True), self.pixels.where(mask), taught)


def rows_of(
    corpus: datasets.Dataset, frame: pd.DataFrame, indices: NDArray[np.int64], largest: int
) -> Rows:
    """Rows of a corpus by position; ``frame`` is the whole corpus' table."""
    chosen = frame.iloc[indices].reset_index(drop=True)
    return Rows(chosen, Pixels(corpus, indices, largest))


def score(
    network: nn.Module,
    rows: Rows,
    preprocess: PreprocessConfig,
    size: int | None = None,
    share: slice = slice(None),
    views: int = 1,
) -> NDArray[np.float64]:
    """Logit margins (malignant minus benign) of rows, shape (N,).

    Args:
        network: Two logits.
        rows: What to score.
        preprocess: Of the network.
        size: Side of the input; the network's own by default.
        share: Which of the rows.
        views: Turns and reflections averaged, as in a decision rule.
    """
    network = network.eval().to(memory_format=torch.channels_last)
    device = next(network.parameters()).device
    batches = torch.arange(len(rows.pixels))[share].split(BATCH)

    def logits(inputs: Tensor) -> NDArray[np.float32]:
        found: NDArray[np.float32] = network(inputs).float().cpu().numpy()
        return found

    margins = [np.empty(0, np.float32)]
    with torch.inference_mode():
        for found in map(rows.pixels.rows, batches):
            pixels = resized(found, size or preprocess.input_size, device)
            margins.append(margins_of(logits, normalise(pixels, preprocess), views))
    return np.concatenate(margins).astype(np.float64)


def auroc_within(rows: Rows, margins: NDArray[np.float64]) -> float | None:
    """AUROC within the larger source; None where one label is missing there."""
    larger = (rows.frame["source"] == splits.larger_source(rows.frame)).to_numpy()
    truth = rows.truth[larger]
    both = truth.any() and not truth.all()
    return metrics.auroc(truth, margins[larger]) if both else None
