"""Meeting the label imbalance: in the sampler, in the loss, in both or in neither.

The sampler draws both labels equally often within each source and leaves a source its natural
share. The loss weights then follow from the prior the network sees: they are 1 and 1 under the
sampler, which has met the imbalance already. ``both`` corrects it twice, as the project this one
is compared with did: it pushes the probabilities towards the rarer label, which the calibration's
intercept takes back afterwards.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

MOST_DRAWS = 3


def draw_weights(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Probability of each row at one draw: labels level within a source, no row above three a pass.

    Args:
        frame: Columns ``label`` and ``source``, one line a row.
    """
    draws = np.ones(len(frame))
    for _, source in frame.reset_index(drop=True).groupby("source"):
        sizes = source["label"].value_counts()
        if len(sizes) == 2:
            rarer = (source["label"] == sizes.index[-1]).to_numpy()
            each = min(len(source) / (2 * rarer.sum()), MOST_DRAWS)
            rest = (len(source) - each * rarer.sum()) / (~rarer).sum()
            draws[source.index] = np.where(rarer, each, rest)
    return draws / draws.sum()


def sampler(frame: pd.DataFrame, balance: str) -> WeightedRandomSampler:
    """Draws as many rows a pass as there are, with replacement where it balances."""
    balances = balance in ("sampler", "both")
    weights = draw_weights(frame) if balances else np.ones(len(frame))
    return WeightedRandomSampler(weights.tolist(), len(frame), replacement=balances)


def class_weights(frame: pd.DataFrame, balance: str) -> Tensor:
    """Loss weights (benign, malignant), of mean 1 under the prior the network is shown."""
    if balance not in ("loss", "both"):
        return torch.ones(2)
    malignant = float((frame["label"] == "malignant").mean())
    inverse = np.array([0.5 / (1 - malignant), 0.5 / malignant])
    shown = 0.5 if balance == "both" else malignant
    mean = inverse @ np.array([1 - shown, shown])
    return torch.tensor(inverse / mean, dtype=torch.float32)
