"""Grad-CAM (Selvaraju et al., ICCV 2017) on one fixed scale for all images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bcd_models.decision import log_odds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig, Label
    from bcd_models.explain.forward import ExplainedForward


def compute_gradcam(
    forward: ExplainedForward,
    inputs: NDArray[np.float32],
    decision: DecisionConfig,
    label: Label,
) -> NDArray[np.float32]:
    """Return how far beyond the threshold each cell speaks, as ``methods.Compute`` says.

    Where global average pooling and a linear layer follow the last feature map, Grad-CAM of the
    logit margin, before its rectification, adds up to the margin itself: each cell can be read as
    the margin if all cells were like this one.
    """
    calibrated = decision.slope * forward.cells(inputs) + decision.intercept
    beyond: NDArray[np.float32] = calibrated - float(log_odds(decision.threshold))
    return beyond if label == "malignant" else -beyond
