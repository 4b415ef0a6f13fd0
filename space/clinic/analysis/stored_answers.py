"""What models said of a stored image, as they said it then."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from bcd_models.explanation import Explanation
from bcd_models.prediction import Finding, Prediction
from clinic.analysis.display import decode_heat_map
from clinic.storage.tables import ExaminedImage, Result

# What an answer and the row that keeps it call the same, and hold alike.
ANSWER_COLUMNS = (
    "model", "model_version", "weights_sha256", "runtime",
    "label", "probability", "decision", "threshold", "point", "missed_of_100",
    "mpp", "scale",
)  # fmt: skip
LIST_COLUMNS = ("reasons", "tile_probabilities", "findings", "tile_findings", "ignored")


def list_columns(answer: Prediction) -> dict[str, list[Any]]:
    """Return what ``LIST_COLUMNS`` of a row keep of an answer."""
    fields = asdict(answer)
    return {name: [_thaw(one) for one in fields[name]] for name in LIST_COLUMNS}


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
        findings=tuple(Finding(**one) for one in result.findings),
        tile_findings=tuple(map(tuple, result.tile_findings)),
        ignored=tuple(Finding(**one) for one in result.ignored),
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
    values, seen, left_out = decode_heat_map(heat)
    heat_map = values.astype(np.float32) / np.float32(255)
    return Explanation(image, answer.label, heat_map, answer, seen, left_out)


def _thaw(one: Any) -> Any:
    """Return a row of tiles as JSON gives it back; anything else as it is."""
    return list(one) if isinstance(one, tuple) else one
