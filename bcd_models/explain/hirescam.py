"""HiResCAM (Draelos & Carin, 2020), one stage before the last: four times the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bcd_models.explain.cells import spread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig, Label
    from bcd_models.explain.forward import ExplainedForward


def compute_hirescam(
    forward: ExplainedForward,
    inputs: NDArray[np.float32],
    decision: DecisionConfig,
    label: Label,
) -> NDArray[np.float32]:
    """Return gradient times activation of each cell, as ``methods.Compute`` says."""
    return spread(forward.contributions(inputs), decision, label)
