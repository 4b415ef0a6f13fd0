"""The registry of explainers: one entry a method, for ``explain(method=...)`` and the command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcd_models.errors import InputError
from bcd_models.explain import occlusion, shap
from bcd_models.explain.grad_cam_package import from_package
from bcd_models.explain.gradcam import compute_gradcam
from bcd_models.explain.hirescam import compute_hirescam
from bcd_models.explain.integrated_gradients import STEPS, compute_integrated_gradients

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig, Label
    from bcd_models.explain.forward import Asked

    # Of a forward and inputs N x 3 x S x S, under a rule and for a label, the cells N x h x w:
    # what each says for the label, in calibrated log-odds, or from 0 to 1 where a method stretches.
    Compute = Callable[[Any, NDArray[np.float32], DecisionConfig, Label], NDArray[np.float32]]

RUNTIMES = {
    "logits": "any runtime",
    "cells": "model.onnx or torch",
    "contributions": "explain.onnx or torch",
    "network": "torch",
}


@dataclass(frozen=True)
class Method:
    """An explainer.

    Attributes:
        compute: Computes the cells of a map.
        title: What people call it.
        cost: Of one view, in forwards.
        asks: What it asks of a forward.
        is_stretched: Whether its cells are from 0 to 1 in each image, however much they say; the
            others have one scale for all images.
    """

    compute: Compute
    title: str
    cost: str
    asks: Asked
    is_stretched: bool = False

    @property
    def runtime(self) -> str:
        """What can compute it, in words."""
        return RUNTIMES[self.asks]


BOTH = "a forward and its gradient"
PIXELS = f"{STEPS} forwards and gradients"

METHODS = {
    "gradcam": Method(compute_gradcam, "Grad-CAM", "a forward", "cells"),
    "hirescam": Method(compute_hirescam, "HiResCAM", BOTH, "contributions"),
    "layercam": Method(from_package("LayerCAM", earlier=True), "LayerCAM", BOTH, "network", True),
    "gradcam++": Method(from_package("GradCAMPlusPlus"), "Grad-CAM++", BOTH, "network", True),
    "xgradcam": Method(from_package("XGradCAM"), "XGrad-CAM", BOTH, "network", True),
    "eigencam": Method(from_package("EigenCAM"), "Eigen-CAM", "a forward", "network", True),
    "scorecam": Method(
        from_package("ScoreCAM"), "Score-CAM", "a forward a channel", "network", True
    ),
    "occlusion": Method(
        occlusion.compute_occlusion, "Occlusion", f"{occlusion.FORWARDS} forwards", "logits"
    ),
    "shap": Method(shap.compute_shap, "SHAP", f"{shap.FORWARDS} forwards", "logits"),
    "integrated_gradients": Method(
        compute_integrated_gradients, "Integrated gradients", PIXELS, "network"
    ),
}
DEFAULT = "gradcam"
FALLBACK = "occlusion"  # where neither a graph nor torch gives what a method asks


def get_method(name: str) -> Method:
    """Look an explainer up; InputError where there is none of that name."""
    if not isinstance(name, str) or name not in METHODS:
        raise InputError(f"no method {name!r}: choose one of {', '.join(METHODS)}")
    return METHODS[name]
