"""What models said of a stored image, as they said it then."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from bcd_models.explanation import Explanation
from bcd_models.prediction import Prediction
from clinic.storage.tables import ExaminedImage, Result


def prediction(image: ExaminedImage, result: Result) -> Prediction:
    """Return a model's answer about an image."""
    refer = None
    if result.refer_low is not None and result.refer_high is not None:
        refer = (result.refer_low, result.refer_high)
    return Prediction(
        name=f"image {image.position}",
        label=result.label,
        probability=result.probability,
        decision=result.decision,
        reasons=tuple(result.reasons),
        threshold=result.threshold,
        refer=refer,
        model=result.model,
        model_version=result.model_version,
        weights_sha256=result.weights_sha256,
        width=image.width,
        height=image.height,
        runtime=result.runtime,
    )


def explanation(answer: Prediction, picture: bytes, heat: bytes) -> Explanation:
    """Return the answer with its picture and heat map, both stored as PNG.

    The map has the size it was stored in, which may be another than the picture's.
    """
    with Image.open(io.BytesIO(picture)) as stored, Image.open(io.BytesIO(heat)) as grey:
        image = stored.convert("RGB")
        heatmap = np.asarray(grey, np.float32) / np.float32(255)
    return Explanation(image, answer.label, heatmap, answer)
