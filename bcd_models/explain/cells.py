"""Cells of an image: the grid that hides and sums them, and the scale of what they contribute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig, Label
    from bcd_models.explain.forward import ExplainedForward

GRID = 6  # cells a side, for methods that don't take the network's own
FORWARDS_AT_ONCE = 64


def spread(
    contributions: NDArray[np.float32], decision: DecisionConfig, label: Label
) -> NDArray[np.float32]:
    """Return contributions to the margin as log-odds that an image of such cells would have.

    Args:
        contributions: N x h x w, to the logit margin; positive speaks for malignant.
        decision: Its slope calibrates them.
        label: The label to explain.

    Returns:
        N x h x w: calibrated, times the number of cells, so that maps of few and of many cells
        have one scale.
    """
    sign = decision.slope if label == "malignant" else -decision.slope
    cells = contributions.shape[1] * contributions.shape[2]
    log_odds: NDArray[np.float32] = (sign * cells * contributions).astype(np.float32)
    return log_odds


def find_edges(side: int) -> NDArray[np.intp]:
    """Return where ``GRID`` cells begin and end along a side in pixels, shape (GRID + 1,)."""
    return np.rint(np.linspace(0, side, GRID + 1)).astype(np.intp)


def hide(
    one: NDArray[np.float32], kept: NDArray[np.bool_], fill: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Hide cells of an input.

    Args:
        one: 3 x S x S.
        kept: M x GRID x GRID, which cells stay in each result.
        fill: 3 x S x S, what the others show; by default the input's own mean colour, which leaves
            the stain and takes the form.

    Returns:
        M x 3 x S x S.
    """
    sizes = np.diff(find_edges(one.shape[-1]))
    pixels = kept.repeat(sizes, 1).repeat(sizes, 2)[:, None]
    return np.where(pixels, one, find_fill(one) if fill is None else fill)


def find_fill(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean colour of ... x S x S inputs, ... x 1 x 1."""
    colour: NDArray[np.float32] = inputs.mean((-2, -1), keepdims=True)
    return colour


def compute_margins(forward: ExplainedForward, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logit margins (malignant minus benign) of inputs, some at a time, shape (N,)."""
    starts = range(0, len(inputs), FORWARDS_AT_ONCE)
    parts = [forward.logits(inputs[first : first + FORWARDS_AT_ONCE]) for first in starts]
    logits = np.concatenate(parts)
    margins: NDArray[np.float32] = logits[:, 1] - logits[:, 0]
    return margins
