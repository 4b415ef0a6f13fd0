"""Meeting the label imbalance: in the sampler, in the loss, in both or in neither.

The sampler draws both labels equally often within each source and leaves a source its natural
share. The loss weights then follow from the prior the network sees: they are 1 and 1 under the
sampler, which has met the imbalance already. ``both`` corrects it twice, as the project this one
is compared with did: it pushes the probabilities towards the rarer label, which the calibration's
intercept takes back afterwards.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bcd_models.errors import InputError
from training.recipes.schema import Recipe

MAX_DRAWS = 3
_ROUNDS, _NEARLY = 200, 1.005
_LEFT = 1e-6  # draws that rounding may leave over


def draw_weights(
    frame: pd.DataFrame, balance: str, case_share: float = 1.0, case_weight: str = "rows"
) -> NDArray[np.float64]:
    """Return the probability of each row at one draw; they sum to 1.

    A source keeps its natural share. Within it, labels are level where the sampler balances, and
    no row is drawn more than three times a pass.

    Args:
        frame: Columns ``label``, ``source`` and ``case_id``, one line a row.
        balance: As in a recipe.
        case_share: The largest share of the draws that one case may have.
        case_weight: As in a recipe: "root" draws a case as often as the root of its rows.

    Raises:
        InputError: There are too few cases for so small a share.
    """
    frame = frame.reset_index(drop=True)
    balances = balance in ("sampler", "both")
    draws = pd.Series(1.0, frame.index)
    if case_weight == "root":
        draws /= np.sqrt(frame.groupby("case_id")["case_id"].transform("size"))
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
            levelled[rarer.index] = few = _fill(rarer, len(source) / 2)
            levelled[other.index] = _fill(other, len(source) - few.sum())
        else:
            levelled[source.index] = _fill(draws[source.index], len(source))
    return levelled


def _fill(draws: pd.Series, total: float) -> pd.Series:
    """Scale draws to a total, none beyond the limit; where all reach it, the total is less."""
    filled = draws * 0.0
    while total - filled.sum() > _LEFT and (is_open := filled < MAX_DRAWS).any():
        left = total - filled[~is_open].sum()
        filled[is_open] = (draws * (left / draws[is_open].sum())).clip(upper=MAX_DRAWS)[is_open]
    return filled


def draw_order(frame: pd.DataFrame, recipe: Recipe, seed: int, count: int = 0) -> Tensor:
    """Draw the row positions of one pass, or so many as asked for; equal in every process.

    Each row comes as often as its draws say, rounded up or down by lot: the systematic sampling of
    Madow (Annals of Mathematical Statistics, 1949). Independent draws would bring some rows far
    more than three times a pass.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = draw_weights(frame, recipe.balance, recipe.case_share, recipe.case_weight)
    draws = torch.tensor(weights) * len(frame)
    passes = math.ceil(count / len(frame)) or 1
    drawn = torch.cat([_draw_pass(draws, generator) for _ in range(passes)])
    return drawn[:count] if count else drawn


def _draw_pass(draws: Tensor, generator: torch.Generator) -> Tensor:
    rows = len(draws)
    shuffled = torch.randperm(rows, generator=generator)
    ends = (draws[shuffled].cumsum(0) + torch.rand(1, generator=generator)).floor().long()
    ends[-1] = rows  # whatever rounding has left
    drawn = shuffled.repeat_interleave(ends.diff(prepend=torch.zeros(1, dtype=torch.long)))
    return drawn[torch.randperm(rows, generator=generator)]


def class_weights(
    frame: pd.DataFrame, balance: str, case_share: float = 1.0, case_weight: str = "rows"
) -> Tensor:
    """Return loss weights (benign, malignant), of mean 1 under the prior the network sees."""
    if balance not in ("loss", "both"):
        return torch.ones(2)
    is_malignant = (frame["label"] == "malignant").to_numpy()
    natural = float(is_malignant.mean())
    shown = float(draw_weights(frame, balance, case_share, case_weight)[is_malignant].sum())
    inverse = np.array([0.5 / (1 - natural), 0.5 / natural])
    mean = inverse @ np.array([1 - shown, shown])
    return torch.tensor(inverse / mean, dtype=torch.float32)


def weighted_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return cross entropy with soft targets, each label's share weighted, over the batch.

    Never normalised by the weights' sum: weights of mean 1 under the prior shown then mean the
    same with and without MixUp.
    """
    return -(targets * weights * logits.log_softmax(1)).sum(1).mean()
