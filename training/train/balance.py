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

from bcd_models.errors import InputError
from training.recipes.schema import Recipe

MAX_DRAWS = 3
_ROUNDS, _NEARLY = 200, 1.005


def draw_weights(frame: pd.DataFrame, balance: str, case_share: float = 1.0) -> NDArray[np.float64]:
    """Return the probability of each row at one draw; they sum to 1.

    A source keeps its natural share. Within it, labels are level where the sampler balances, and
    no row is drawn more than three times a pass.

    Args:
        frame: Columns ``label``, ``source`` and ``case_id``, one line a row.
        balance: As in a recipe.
        case_share: The largest share of the draws that one case may have.

    Raises:
        InputError: There are too few cases for so small a share.
    """
    frame = frame.reset_index(drop=True)
    balances = balance in ("sampler", "both")
    draws = pd.Series(1.0, frame.index)
    for _ in range(_ROUNDS):
        draws = _level(draws, frame, balances)
        of_case = draws.groupby(frame["case_id"]).transform("sum") / len(frame)
        if (of_case <= case_share * _NEARLY).all():
            return np.asarray(draws / draws.sum())
        draws *= (case_share / of_case).clip(upper=1)
    raise InputError(
        f"case_share {case_share:g} can't be kept with {frame['case_id'].nunique()} cases and "
        f"balance {balance!r}: raise it"
    )


def _level(draws: pd.Series, frame: pd.DataFrame, balances: bool) -> pd.Series:
    """Scale draws so that each source has its share, and in it each label half where it can."""
    levelled = draws.copy()
    for _, source in frame.groupby("source"):
        labels = [draws[rows] for rows in source.groupby("label").groups.values()]
        labels.sort(key=len)
        if balances and len(labels) == 2:
            rarer, other = labels
            most = MAX_DRAWS * rarer.sum() / rarer.max()
            wanted = min(len(source) / 2, most)
            levelled[rarer.index] = rarer * (wanted / rarer.sum())
            levelled[other.index] = other * ((len(source) - wanted) / other.sum())
        else:
            levelled[source.index] = draws[source.index] * (len(source) / draws[source.index].sum())
    return levelled


def draw_order(frame: pd.DataFrame, recipe: Recipe, seed: int) -> Tensor:
    """Draw the row positions of one pass, as many as there are rows; equal in every process.

    Each row comes as often as its draws say, rounded up or down by lot: the systematic sampling of
    Madow (Annals of Mathematical Statistics, 1949). Independent draws would bring some rows far
    more than three times a pass.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.tensor(draw_weights(frame, recipe.balance, recipe.case_share)) * len(frame)
    shuffled = torch.randperm(len(frame), generator=generator)
    ends = (draws[shuffled].cumsum(0) + torch.rand(1, generator=generator)).floor().long()
    ends[-1] = len(frame)  # whatever rounding has left
    drawn = shuffled.repeat_interleave(ends.diff(prepend=torch.zeros(1, dtype=torch.long)))
    return drawn[torch.randperm(len(frame), generator=generator)]


def class_weights(frame: pd.DataFrame, balance: str, case_share: float = 1.0) -> Tensor:
    """Return loss weights (benign, malignant), of mean 1 under the prior the network sees."""
    if balance not in ("loss", "both"):
        return torch.ones(2)
    is_malignant = (frame["label"] == "malignant").to_numpy()
    natural = float(is_malignant.mean())
    shown = float(draw_weights(frame, balance, case_share)[is_malignant].sum())
    inverse = np.array([0.5 / (1 - natural), 0.5 / natural])
    mean = inverse @ np.array([1 - shown, shown])
    return torch.tensor(inverse / mean, dtype=torch.float32)


def weighted_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return cross entropy with soft targets, each label's share weighted, over the batch.

    Never normalised by the weights' sum: weights of mean 1 under the prior shown then mean the
    same with and without MixUp.
    """
    return -(targets * weights * logits.log_softmax(1)).sum(1).mean()
