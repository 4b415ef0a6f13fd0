"""What maps are put to: each trial takes inputs and what maps them, and gives a number."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn

from bcd_models.explain.cells import GRID, hide
from bcd_models.images.preprocess import turn, turn_back
from bcd_models.local import metrics
from training.evaluate.faithfulness.maps import Cells, Inputs, MapOf, to_size

CELLS = GRID * GRID
REMOVED = SHOWN = tuple(round(share * CELLS) for share in (1 / 6, 1 / 3, 1 / 2))
SHIFT = 8  # pixels of the input
QUARTERS = (1, 2, 3)
CASCADE = 5  # parts of a network that are randomised one after the other, from its end
MIN_GLASS = 0.95  # of a cell that shows nothing else
MIN_TISSUE = 0.9
HALVES = tuple(np.indices((GRID, GRID))[axis] // (GRID // 2) == 0 for axis in (0, 1))

Margins = Callable[[Inputs], NDArray[np.float32]]
"""Logit margins (malignant minus benign) of N x 3 x S x S inputs, shape (N,)."""
One = NDArray[np.float32]
"""3 x S x S, an input without its batch."""


def rank(cells: Cells) -> NDArray[np.intp]:
    """Return the places of the grid's cells, the hottest first; ties in an order that is fixed."""
    shuffled = np.random.default_rng(0).permutation(CELLS)
    values = to_size(cells, GRID).ravel()[shuffled]
    order: NDArray[np.intp] = shuffled[np.argsort(-values, kind="stable")]
    return order


def keep(places: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return a grid with these cells kept alone."""
    kept = np.zeros(CELLS, bool)
    kept[places] = True
    return kept.reshape(GRID, GRID)


def remove(margins_of: Margins, one: One, fill: One, cells: Cells) -> tuple[float, float]:
    """Return the gaps of deletion and insertion, in logits.

    Deletion: the margin with the coldest sixth, third and half of the cells hidden, minus that with
    as many of the hottest, on average. Insertion: the margin where the hottest sixth, third and
    half alone are shown, minus that of the coldest.
    """
    order = rank(cells)
    kept = [keep(order[: CELLS - n]) for n in REMOVED] + [keep(order[:n]) for n in SHOWN]
    kept += [keep(order[n:]) for n in REMOVED] + [keep(order[CELLS - n :]) for n in SHOWN]
    told = margins_of(hide(one, np.stack(kept), fill)).reshape(2, 2, -1)
    deletion, insertion = (told[0] - told[1]).mean(1)
    return float(deletion), float(insertion)


def impute(margins_of: Margins, one: One, cells: Cells) -> float:
    """Return the gap of deletion where pixels are imputed from those around: ROAD.

    Rong et al., ICML 2022: what is removed leaves no edge that gives away where it was.
    """
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    torch.manual_seed(0)  # of the imputer's noise
    imputer, order, image = NoisyLinearImputer(), rank(cells), torch.from_numpy(one)
    sides = np.diff(np.rint(np.linspace(0, one.shape[-1], GRID + 1)).astype(int))
    kept = [keep(order[: CELLS - n]) for n in REMOVED] + [keep(order[n:]) for n in REMOVED]
    masks = [one.repeat(sides, 0).repeat(sides, 1).astype(np.float32) for one in kept]
    with warnings.catch_warnings():  # it hands tensors to numpy
        warnings.simplefilter("ignore", DeprecationWarning)
        imputed = np.stack([imputer(image, torch.from_numpy(mask)).numpy() for mask in masks])
    coldest, hottest = margins_of(imputed).reshape(2, -1)
    return float((coldest - hottest).mean())


def separate(cells: Cells, malignant: NDArray[np.bool_]) -> tuple[float, float]:
    """Return how a composite's map tells its halves: AUROC of its cells, and the pointing game.

    Args:
        cells: Of its map.
        malignant: GRID x GRID, which half is malignant.

    Returns:
        The area, and 1.0 where the hottest cell lies in the malignant half, 0.0 where it doesn't.
    """
    values = to_size(cells, GRID).astype(np.float64).ravel()
    return metrics.auroc(malignant.ravel(), values), float(malignant.flat[rank(cells)[0]])


def turn_along(map_of: MapOf, inputs: Inputs) -> float:
    """Return how a map keeps its order when the image is turned: mean rank correlation."""
    upright = map_of(inputs)
    turned = (turn_back(map_of(turn(inputs, which)), which) for which in QUARTERS)
    return float(np.mean([correlate(upright, one) for one in turned]))


def shift_along(map_of: MapOf, inputs: Inputs) -> float:
    """Return how a map moves along when the image is shifted by 8 pixels, over what both show."""
    side = inputs.shape[-1]
    upright = to_size(map_of(inputs), side)
    found = []
    for down, across in ((SHIFT, 0), (-SHIFT, 0), (0, SHIFT), (0, -SHIFT)):
        around = ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT))
        padded = np.pad(inputs, around, mode="reflect")
        top, left = SHIFT + down, SHIFT + across
        moved = np.ascontiguousarray(padded[..., top : top + side, left : left + side])
        shifted = to_size(map_of(moved), side)
        there = upright[max(down, 0) : side + min(down, 0), max(across, 0) : side + min(across, 0)]
        here = shifted[max(-down, 0) : side - max(down, 0), max(-across, 0) : side - max(across, 0)]
        found.append(correlate(there, here))
    return float(np.mean(found))


def correlate(one: Cells, other: Cells) -> float:
    """Return Spearman's rank correlation of two maps; 0 where one is the same all over."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


def randomise(network: nn.Module, seed: int, parts: int = CASCADE) -> nn.Module:
    """Return a copy of a network whose last parts of ``CASCADE`` have weights of chance."""
    copied = copy.deepcopy(network)
    layers: list[Any] = [one for one in copied.modules() if hasattr(one, "reset_parameters")]
    kept = len(layers) - round(len(layers) * parts / CASCADE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers[kept:]:
            layer.reset_parameters()
    return copied.eval()
