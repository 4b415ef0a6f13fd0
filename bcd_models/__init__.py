"""Benign or malignant? A breast-histopathology patch classifier that says how sure it is and why.

Research use only: not a medical device, an aid to and no replacement for a pathologist.

The public names load on first use, so ``import bcd_models`` is cheap.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bcd_models.errors import BCDError, HubError, ImageError, InputError, ModelFolderError
    from bcd_models.explanation import Explanation
    from bcd_models.images.open import ImageLimits
    from bcd_models.models.classifier import BCDClassifier
    from bcd_models.models.ensemble import BCDEnsemble
    from bcd_models.prediction import Prediction
    from bcd_models.slides.prediction import SlidePrediction

# ONNX Runtime's Linux wheels and the Hub's client tell their makers of uses, unless these are set
# before their import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

__version__ = "0.2.0"

_HOME = {
    "BCDClassifier": "models.classifier",
    "BCDEnsemble": "models.ensemble",
    "BCDError": "errors",
    "Explanation": "explanation",
    "HubError": "errors",
    "ImageError": "errors",
    "ImageLimits": "images.open",
    "InputError": "errors",
    "ModelFolderError": "errors",
    "Prediction": "prediction",
    "SlidePrediction": "slides.prediction",
}
__all__ = [
    "BCDClassifier",
    "BCDEnsemble",
    "BCDError",
    "Explanation",
    "HubError",
    "ImageError",
    "ImageLimits",
    "InputError",
    "ModelFolderError",
    "Prediction",
    "SlidePrediction",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
