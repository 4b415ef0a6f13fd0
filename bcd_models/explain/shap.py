"""Shapley values of superpixels (Lundberg & Lee, NeurIPS 2017), by the shap package."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from bcd_models.explain.cells import GRID, compute_margins, hide, spread
from bcd_models.runtime.choice import require_explainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig, Label
    from bcd_models.explain.forward import ExplainedForward

PERMUTATIONS = 4
MASKS_EACH = 2 * GRID**2 + 1  # of a permutation, forth and back
FORWARDS = PERMUTATIONS * MASKS_EACH

# The package draws by numpy's global generator.
_one_at_a_time = Lock()


def compute_shap(
    forward: ExplainedForward,
    inputs: NDArray[np.float32],
    decision: DecisionConfig,
    label: Label,
) -> NDArray[np.float32]:
    """Return the Shapley value of each cell of a grid, as ``methods.Compute`` says.

    Over permutations of the cells, forth and back; the cells add up to what the margin is beyond
    that of an image of the mean colour. Each image has the same permutations.

    Raises:
        InputError: The shap package is missing.
    """
    require_explainer("shap")
    contributions = np.stack([_explain_one(forward, one) for one in inputs])
    return spread(contributions, decision, label)


def _explain_one(forward: ExplainedForward, one: NDArray[np.float32]) -> NDArray[np.float32]:
    import shap

    def margins_of(kept: NDArray[np.float64]) -> NDArray[np.float32]:
        return compute_margins(forward, hide(one, kept.reshape(-1, GRID, GRID) > 0))

    nothing, all_cells = np.zeros((1, GRID**2)), np.ones((1, GRID**2))
    with _one_at_a_time:
        state = np.random.get_state()
        try:
            explainer = shap.PermutationExplainer(
                margins_of, shap.maskers.Independent(nothing), seed=0
            )
            found = explainer(all_cells, max_evals=FORWARDS, batch_size=MASKS_EACH, silent=True)
        finally:
            np.random.set_state(state)
    values: NDArray[np.float32] = found.values.reshape(GRID, GRID).astype(np.float32)
    return values
