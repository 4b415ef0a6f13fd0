"""What models said of a stored image, as they said it then."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from bcd_models.explanation import Explanation
from bcd_models.prediction import Prediction
from clinic.analysis.display import decode_heat_map
from clinic.storage.tables import ExaminedImage, Result

# What an answer and the row that keeps it call the same, and hold alike.
ANSWER_COLUMNS = (
    "model", "model_version", "weights_sha256", "runtime",
    "label", "probability", "decision", "threshold", "point", "missed_of_100",
    "mpp", "scale",
)  # fmt: skip


def prediction(image: ExaminedImage, result: Result) -> Prediction:
    """Return a model's answer about an image."""
    refer = None
    if result.refer_low is not None and result.refer_high is not None:
        refer = (result.refer_low, result.refer_high)
    return Prediction(
        name=f"image {image.position}",
        reasons=tuple(result.reasons),
        refer=refer,
        tile_probabilities=tuple(map(tuple, result.tile_probabilities)),
        width=image.width,
        height=image.height,
        **{name: getattr(result, name) for name in ANSWER_COLUMNS},
    )


def explanation(answer: Prediction, picture: bytes, heat: bytes) -> Explanation:
    """Return the answer with its picture and heat map, both stored as PNG.

    The map has the size it was stored in, which may be another than the picture's.
    """
    with Image.open(io.BytesIO(picture)) as stored:
        image = stored.convert("RGB")
    values, seen = decode_heat_map(heat)
    return Explanation(
        image, answer.label, values.astype(np.float32) / np.float32(255), answer, seen
    )
