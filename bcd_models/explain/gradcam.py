"""Grad-CAM (Selvaraju et al., ICCV 2017) on one fixed scale for all images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bcd_models.decision import Label, log_odds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig


def draw_gradcam(
    cells: NDArray[np.float32], decision: DecisionConfig, label: Label, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the heat map of a label.

    Where global average pooling and a linear layer follow the last feature map, Grad-CAM of the
    logit margin, before its rectification, adds up to the margin itself: each cell can be read as
    the margin of an image that looked like this cell all over.

    Args:
        cells: The margin of each cell, h x w, as a runtime's ``cells`` gives it.
        decision: Calibrates margins, and holds the threshold.
        label: The label to explain.
        size: Width and height of the map in pixels.

    Returns:
        Height x width in [0, 1], see ``Explanation``.
    """
    calibrated = decision.slope * cells + decision.intercept
    beyond = calibrated - float(log_odds(decision.threshold))
    evidence = Image.fromarray((beyond if label == "malignant" else -beyond).astype(np.float32))
    enlarged = np.asarray(evidence.resize(size, Image.Resampling.BILINEAR))
    return np.tanh(np.maximum(enlarged, 0) / 2).astype(np.float32)  # type: ignore[no-any-return]
