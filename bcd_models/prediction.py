"""What every surface shows of one image, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

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

Unsuitable: TypeAlias = Literal["refer", "ignore"]
"""What to do with an image that doesn't look like what the model was trained on."""
IN_BAND = "the probability lies within the referral band"  # the reason for a referral
CAMERA = "camera"  # the finding about a whole image that a microscope's camera took
CAMERA_WORDS = "not validated for microscope cameras"
MAX_UNSUITABLE = 0.5  # share of a field's tiles; the answer about the rest would stand for little

# What a table says of an answer, CSV and Parquet alike: each column's name and type.
COLUMNS: dict[str, type] = {
    "label": str,
    "probability": float,
    "decision": str,
    "threshold": float,
    "model": str,
    "model_version": str,
    "weights_sha256": str,
    "mpp": float,
    "scale": str,
    "tiles": int,
    "share": float,
    "reasons": str,
    "ignored": str,
    "point": str,
    "findings": str,
}


@dataclass(frozen=True)
class Finding:
    """What speaks against an image, or some of its tiles, being what the model was trained on.

    Attributes:
        name: Such as "focus".
        value: What was measured; of several tiles the middle one.
        threshold: Beyond which it is a finding.
        words: What it means, such as "out of focus".
        tiles: How many tiles it is about.
    """

    name: str
    value: float
    threshold: float
    words: str
    tiles: int = 1


@dataclass(frozen=True)
class Prediction:
    """A model's answer about one image.

    Attributes:
        name: The image's file name, or "image" where it has none.
        label: The calibrated probability against the threshold, even where the decision is "refer".
            Where ``is_unsuitable``, it says nothing of the image: a network labels a cat, too.
        probability: Calibrated P(malignant), 0 to 1; of several tiles the largest. Where
            ``is_unsuitable``, it is no probability of anything.
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
        point: The operating point that decided; "": a threshold that is none of the model's points.
        missed_of_100: How many of 100 carcinoma patches that point missed in out-of-fold testing;
            None: not measured.
        mpp: Micrometres a pixel of the image; None: not known.
        scale: Where that comes from, such as "given", "PNG pHYs" or "unknown"; "": not recorded.
        tile_probabilities: Of a field larger than the trained one, calibrated P(malignant) of each
            tile, row by row; None where too little tissue was found to look, or the tile is not
            suitable. Empty where there is one tile.
        findings: What speaks against tiles being suitable, that of most tiles first.
        tile_findings: Of a larger field, the name of each tile's finding, row by row; None where
            there is none. Empty where no tile has one.
        ignored: Findings that the caller had ignored: nothing was referred or left out for them.
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
    point: str = ""
    missed_of_100: int | None = None
    mpp: float | None = None
    scale: str = ""
    tile_probabilities: tuple[tuple[float | None, ...], ...] = ()
    findings: tuple[Finding, ...] = ()
    tile_findings: tuple[tuple[str | None, ...], ...] = ()
    ignored: tuple[Finding, ...] = ()

    @property
    def words(self) -> str:
        """The decision in words for people; never a diagnosis."""
        return WORDS[self.decision]

    @property
    def missed_words(self) -> str:
        """What stands under a negative answer: what was missed in testing; "": nothing is known."""
        if self.decision != "benign" or self.missed_of_100 is None:
            return ""
        return describe_missed(self.point, self.missed_of_100)

    @property
    def tiles(self) -> int:
        """How many tiles were answered for."""
        return sum(p is not None for row in self.tile_probabilities for p in row) or 1

    @property
    def judged_tiles(self) -> int:
        """How many tiles were judged: those answered for, and those left out as unsuitable."""
        left_out = (
            p is None and name is not None
            for pair in zip(self.tile_probabilities, self.tile_findings, strict=False)
            for p, name in zip(*pair, strict=True)
        )
        return self.tiles + sum(left_out)

    @property
    def is_unsuitable(self) -> bool:
        """Whether it is referred because of what was found in it, or in most of its tiles."""
        return sum(one.tiles for one in self.findings) > MAX_UNSUITABLE * self.judged_tiles

    @property
    def unsuitable_words(self) -> str:
        """What was found, where it is referred as unsuitable; "" where it isn't."""
        return describe_unsuitable(self.findings, self.judged_tiles) if self.is_unsuitable else ""

    @property
    def malignant_tiles(self) -> int:
        """How many of them are labelled malignant."""
        shown = [p for row in self.tile_probabilities for p in row if p is not None]
        return sum(p >= self.threshold for p in shown or [self.probability])

    @property
    def share(self) -> float:
        """The share of the tiles that are labelled malignant, 0 to 1, whatever the decision."""
        return self.malignant_tiles / self.tiles

    def to_row(self) -> dict[str, Any]:
        """What a table says, by ``COLUMNS``; reasons and findings joined by semicolons.

        Label, probability and share are None where ``is_unsuitable``: beside answers, they would
        be taken for one.
        """
        values = {name: getattr(self, name) for name in COLUMNS}
        if self.is_unsuitable:
            values |= dict.fromkeys(("label", "probability", "share"))
        for name in ("findings", "ignored"):
            values[name] = "; ".join(one.words for one in getattr(self, name))
        return values | {"reasons": "; ".join(self.reasons)}

    def to_dict(self) -> dict[str, Any]:
        """All fields, what follows from them, and the research-use notice, ready for JSON."""
        follows = {"words": self.words, "tiles": self.tiles, "share": self.share}
        return {**asdict(self), **follows, "notice": NOTICE}

    def to_json(self) -> str:
        """``to_dict`` on one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


def describe_unsuitable(findings: Sequence[Finding], judged: int) -> str:
    """Return what was found in an image, or in some of its ``judged`` tiles, to go on with."""
    looks = [one for one in findings if one.name != CAMERA]
    told = [f"the model is {one.words}" for one in findings if one.name == CAMERA]
    if looks:
        tiles, words = sum(one.tiles for one in looks), ", ".join(one.words for one in looks)
        which = f"{tiles:,} of {judged:,} tiles look{'s' if tiles == 1 else ''}"
        told.append(f"{which if judged > 1 else 'the image looks'} unsuitable: {words}")
    return "; ".join(told)


def describe_missed(point: str, missed_of_100: int) -> str:
    """Return the sentence that stands under a negative answer."""
    return (
        f"At this operating point ({point}) the model missed {missed_of_100} of 100 carcinoma "
        "patches in out-of-fold testing."
    )
