"""Occlusion (Zeiler & Fergus, ECCV 2014): what the margin loses where a window is hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bcd_models.explain.cells import GRID, compute_margins, hide, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig, Label
    from bcd_models.explain.forward import ExplainedForward

WINDOW = 2  # cells a side, moved by one; at the edges it reaches over
FORWARDS = (GRID + WINDOW - 1) ** 2 + 1


def compute_occlusion(
    forward: ExplainedForward,
    inputs: NDArray[np.float32],
    decision: DecisionConfig,
    label: Label,
) -> NDArray[np.float32]:
    """Return the mean loss a cell over the windows that hide it, as ``methods.Compute`` says."""
    windows = _lay_windows()
    shown = np.concatenate((np.zeros((1, GRID, GRID), bool), windows))
    hidden = np.concatenate([hide(one, ~shown) for one in inputs])
    margins = compute_margins(forward, hidden).reshape(len(inputs), -1)
    losses = (margins[:, :1] - margins[:, 1:]) / windows.sum((1, 2))
    over_windows = np.einsum("nw,wyx->nyx", losses, windows) / windows.sum(0)
    return spread(over_windows.astype(np.float32), decision, label)


def _lay_windows() -> NDArray[np.bool_]:
    """Return which cells each window hides, W x GRID x GRID; each cell lies in as many."""
    first = np.arange(1 - WINDOW, GRID)
    places = np.arange(GRID)
    along = (places >= first[:, None]) & (places < first[:, None] + WINDOW)
    both = along[:, None, :, None] & along[None, :, None, :]
    return both.reshape(-1, GRID, GRID)
