"""From the cells of a method to a heat map, the mean over views of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bcd_models.images.preprocess import turn, turn_back

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig, Label
    from bcd_models.explain.methods import Method


def draw_map(
    method: Method,
    forward: Any,
    inputs: NDArray[np.float32],
    decision: DecisionConfig,
    label: Label,
    size: tuple[int, int],
    views: int = 1,
) -> NDArray[np.float32]:
    """Return the map of a label, size[1] x size[0] in [0, 1], see ``bcd_models.Explanation``.

    Args:
        method: Computes the cells.
        forward: Gives what the method asks.
        inputs: The network's input of one image, 1 x 3 x S x S.
        decision: Calibrates margins, and holds the threshold.
        label: The label to explain.
        size: Width and height of the map in pixels.
        views: The mean over so many of the square's eight symmetries, the four turns first, each
            map turned back.
    """
    mean = average_cells(method, forward, inputs, decision, label, views)
    enlarged = np.asarray(Image.fromarray(mean).resize(size, Image.Resampling.BILINEAR))
    heat: NDArray[np.float32] = (
        np.clip(enlarged, 0, 1) if method.is_stretched else np.tanh(np.maximum(enlarged, 0) / 2)
    )
    return heat


def average_cells(
    method: Method,
    forward: Any,
    inputs: NDArray[np.float32],
    decision: DecisionConfig,
    label: Label,
    views: int = 1,
) -> NDArray[np.float32]:
    """Return the cells of a map, h x w, on the method's own scale; arguments as ``draw_map``."""
    turned = np.concatenate([turn(inputs, which) for which in range(views)])
    cells = method.compute(forward, turned, decision, label)
    back = [turn_back(one, which) for which, one in enumerate(cells)]
    mean: NDArray[np.float32] = np.stack(back).mean(0, dtype=np.float64).astype(np.float32)
    return mean
