"""The registry of explainers: one entry a method, for ``explain(method=...)`` and the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bcd_models.errors import InputError
from bcd_models.explain.gradcam import draw_gradcam

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig, Label
    from bcd_models.explain.gradcam import ExplainedForward


class Explainer(Protocol):
    """Draws the heat map of a label."""

    def __call__(
        self,
        forward: ExplainedForward,
        inputs: NDArray[np.float32],
        decision: DecisionConfig,
        label: Label,
        size: tuple[int, int],
    ) -> NDArray[np.float32]:
        """Return a map of size[1] x size[0] in [0, 1], see ``bcd_models.Explanation``.

        Args:
            forward: Computes logits and cells.
            inputs: The network's input of one image, 1 x 3 x S x S.
            decision: Calibrates margins, and holds the threshold.
            label: The label to explain.
            size: Width and height of the map in pixels.
        """


METHODS: dict[str, Explainer] = {"gradcam": draw_gradcam}
DEFAULT = "gradcam"


def get_method(name: str) -> Explainer:
    """Look an explainer up; InputError where there is none of that name."""
    if not isinstance(name, str) or name not in METHODS:
        raise InputError(f"no method {name!r}: choose one of {', '.join(METHODS)}")
    return METHODS[name]
