"""What every surface shows of one image, and its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from bcd_models.config import Label
from bcd_models.decision import Decision

NOTICE = (
    "For research use only. Not a medical device. An aid to, and no replacement for, a pathologist."
)

WORDS = {
    "malignant": "invasive carcinoma pattern",
    "benign": "no invasive carcinoma pattern found",
    "refer": "unclear: refer to a pathologist",
}


@dataclass(frozen=True)
class Prediction:
    """A model's answer about one image.

    Attributes:
        name: The image's file name, or "image" where it has none.
        label: The calibrated probability against the threshold.
        probability: Calibrated P(malignant), 0 to 1.
        decision: The label, or "refer" where the answer should not be relied on.
        reasons: Why the decision is "refer"; empty otherwise.
        threshold: The probability from which the label is "malignant".
        refer: The referral band of probabilities, or None.
        model: The model's name.
        model_version: The model's version.
        weights_sha256: SHA-256 of the weights file, or of what it would hold if never saved.
        width: Width of the image in pixels, upright.
        height: Height of the image in pixels, upright.
        runtime: What answered and in which precision, such as "onnx float32"; "": not known.
    """

    name: str
    label: Label
    probability: float
    decision: Decision
    reasons: tuple[str, ...]
    threshold: float
    refer: tuple[float, float] | None
    model: str
    model_version: str
    weights_sha256: str
    width: int
    height: int
    runtime: str = ""

    @property
    def words(self) -> str:
        """The decision in words for people; never a diagnosis."""
        return WORDS[self.decision]

    def to_dict(self) -> dict[str, Any]:
        """All fields, the words and the research-use notice, ready for JSON."""
        return {**asdict(self), "words": self.words, "notice": NOTICE}

    def to_json(self) -> str:
        """``to_dict`` on one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)
