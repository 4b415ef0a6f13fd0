"""Grad-CAM (Selvaraju et al., ICCV 2017) on one fixed scale for all images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from bcd_models.config import Label
from bcd_models.decision import log_odds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig


class ExplainedForward(Protocol):
    """What a map is made of, whichever runtime computes it."""

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits N x 2 of N x 3 x S x S inputs."""

    def cells(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the margin that each cell speaks for, N x h x w."""


def draw_gradcam(
    forward: ExplainedForward,
    inputs: NDArray[np.float32],
    decision: DecisionConfig,
    label: Label,
    size: tuple[int, int],
) -> NDArray[np.float32]:
    """Return the Grad-CAM map of a label.

    Where global average pooling and a linear layer follow the last feature map, Grad-CAM of the
    logit margin, before its rectification, adds up to the margin itself: each cell can be read as
    the margin if all cells were like this one. It takes what an explainer takes.
    """
    calibrated = decision.slope * forward.cells(inputs)[0] + decision.intercept
    beyond = calibrated - float(log_odds(decision.threshold))
    evidence = Image.fromarray((beyond if label == "malignant" else -beyond).astype(np.float32))
    enlarged = np.asarray(evidence.resize(size, Image.Resampling.BILINEAR))
    return np.tanh(np.maximum(enlarged, 0) / 2).astype(np.float32)  # type: ignore[no-any-return]
