"""Reports as PDF: of images that somebody tries, and of an examination.

The same inputs, times included, give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from reportlab.platypus import CondPageBreak, KeepTogether, PageBreak

from bcd_models.config import ModelConfig
from bcd_models.explanation import Explanation
from bcd_models.prediction import Prediction
from clinic.analysis import wording
from clinic.reports.paper import Pictures, Story, answer, facts, gap, notice, text, write_pdf

TITLE = "Image analysis report"
SUBTITLE = "One H&E image of breast tissue and what a classification model says of it"
EXAMINATION = "Examination report"
SYNTHETIC = (
    "A synthetic record of a demonstration: the patient is made up. The images are what was handed "
    "in for it."
)
HIDDEN = "The models' answers were kept hidden in this examination and are not part of this report."
LARGE, SMALL = 206.0, 158.0  # points of a picture's longer side
UNREAD = "This examination has not been read by a pathologist."

Facts = tuple[tuple[str, str], ...]  # names and values


@dataclass(frozen=True)
class ReportedImage:
    """One image of an examination."""

    position: int  # from 1
    size: tuple[int, int]  # width and height in pixels
    scale: str  # in words, or that it is not known
    warnings: tuple[str, ...]  # what speaks against the answers about it
    # what the models said of it; empty where that is not to be told
    explanations: tuple[Explanation, ...]


@dataclass(frozen=True)
class ReportedExamination:
    """All that a report of an examination tells, as it is told."""

    id: str  # the report's
    letterhead: str  # first line; may be ""
    facts: Facts  # names and values of patient and examination
    synthetic: bool  # whether it is a demonstration's
    read: str  # the read that counts, in a sentence; "" where there is none
    # each read, the newest first: when and by whom, and the rest of it
    reads: Facts
    images: tuple[ReportedImage, ...]  # in order
    models: tuple[tuple[str, Facts], ...]  # name and facts of each that answered
    shown: bool  # whether the models' answers are part of it


def lay_out_answers(
    explanations: Sequence[Explanation], config: ModelConfig, when: datetime
) -> bytes:
    """Write the report of some images, a page each.

    Args:
        explanations: Each image with its heat map and the model's answer.
        config: The config of the model that gave the answers.
        when: When they were given; must know its time zone, and is shown in UTC.

    Raises:
        ValueError: ``when`` has no time zone.
    """
    if when.tzinfo is None:
        raise ValueError("the time of a report needs a time zone")

    def story() -> Story:
        pages = [_page(one, config, when) for one in explanations]
        return [*pages[0], *(part for page in pages[1:] for part in (PageBreak(), *page))]

    return write_pdf(story, TITLE)


def _page(explanation: Explanation, config: ModelConfig, when: datetime) -> Story:
    prediction = explanation.prediction
    return [
        *_head(TITLE, SUBTITLE),
        text("The model's answer", quiet=True),
        *answer(prediction),
        *_pictures(explanation, LARGE, wording.cell_line(config)),
        gap(10),
        *facts(
            [
                ("Image", wording.printable(prediction.name)),
                ("Image size", f"{prediction.width} × {prediction.height} pixels"),
                ("Scale", wording.capitalise(wording.scale_words(prediction))),
                ("Analysed", f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"),
                ("Model", f"{prediction.model}, version {prediction.model_version}"),
                *model_facts(prediction),
                ("Trained on fields", wording.field_line(config.preprocess)),
                ("What the answers cover", wording.classes_line()),
            ]
        ),
    ]


def lay_out_examination(told: ReportedExamination) -> bytes:
    """Write the report of an examination: the read first, then each image with its answers."""
    mark = f"Report {told.id}"

    def story() -> Story:
        return [
            *([text(wording.printable(told.letterhead), 11), gap(6)] if told.letterhead else []),
            *_head(EXAMINATION, mark),
            *([text(SYNTHETIC, bold=True), gap(6)] if told.synthetic else []),
            *_reads(told),
            *facts(_printable(told.facts)),
            *([] if told.shown else [gap(10), text(HIDDEN)]),
            *(part for image in told.images for part in _image(image)),
            *(part for model in told.models for part in _model(*model)),
            *([gap(10), text(wording.classes_line(), 8, quiet=True)] if told.models else []),
        ]

    return write_pdf(story, EXAMINATION, mark)


def model_facts(prediction: Prediction) -> list[tuple[str, str]]:
    """Return names and values of the model behind an answer."""
    answered_by = wording.runtime_words(prediction)
    return [
        ("SHA-256 of its weights", prediction.weights_sha256),
        *([("Answered by", answered_by)] if answered_by else []),
        *([("Operating point", prediction.point)] if prediction.point else []),
        ("Threshold", wording.figure(prediction.threshold)),
        ("Referral band", wording.band_words(prediction)),
    ]


def _head(title: str, subtitle: str) -> Story:
    return [
        text(title, 17, bold=True),
        gap(2),
        text(subtitle, 10, quiet=True),
        gap(8),
        notice(),
        gap(12),
    ]


def _pictures(explanation: Explanation, side: float, cells: str = "") -> Story:
    prediction, lines = explanation.prediction, []
    if not prediction.is_unsuitable:
        lines.append(f"{wording.map_line(prediction, explanation.label)} {cells}".strip())
        lines.append("The colours mean the same in every image.")
    lines += wording.findings_lines(prediction)
    return [Pictures(explanation, side), gap(4), *(text(one, 8, quiet=True) for one in lines)]


def _reads(told: ReportedExamination) -> Story:
    if not told.read:
        return [text(UNREAD, 11, bold=True), gap(8)]
    return [
        text("The pathologist's read", quiet=True),
        text(told.read, 15, bold=True),
        gap(4),
        *facts(_printable(told.reads)),
        gap(10),
    ]


def _image(image: ReportedImage) -> Story:
    width, height = image.size
    head: Story = [
        text(f"Image {image.position}", 12, bold=True),
        text(f"{width} × {height} pixels; {image.scale}.", quiet=True),
        *(text(f"Mind: {warning}.") for warning in image.warnings),
        gap(4),
    ]
    first, *others = [_answer(one) for one in image.explanations] or [[]]
    return [gap(14), KeepTogether([*head, *first]), *map(KeepTogether, others)]


def _answer(explanation: Explanation) -> Story:
    model = explanation.prediction.model
    return [
        text(f"What {model} says of it", quiet=True),
        *answer(explanation.prediction),
        *_pictures(explanation, SMALL),
        gap(10),
    ]


def _model(name: str, known: Facts) -> Story:
    title = text(f"The model {name}", 11, bold=True)
    return [CondPageBreak(120), gap(12), title, gap(2), *facts(known)]


def _printable(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return lines of users' text, each letter visible."""
    return [(name, "\n".join(map(wording.printable, value.split("\n")))) for name, value in pairs]
