"""One image's result as one page of PDF.

The same inputs, time included, give the same bytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

import matplotlib
import numpy as np
from PIL import Image
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph

from bcd_models.config import ModelConfig
from bcd_models.explain import COLOURS, Explanation
from bcd_models.prediction import NOTICE, Prediction
from clinic import wording
from clinic.display import for_display

TITLE = "Image analysis report"
SUBTITLE = "One H&E image of breast tissue and what a classification model says of it"
OPACITY = 0.5

MARGIN = 48.0
WIDTH = A4[0] - 2 * MARGIN
PICTURE = 206.0
SCALE_WIDTH = 12.0
INK, QUIET, LINE = HexColor("#1b1f2a"), HexColor("#565d6d"), HexColor("#c4c8d2")
TINT, BAND = HexColor("#f3f1f8"), HexColor("#d9d3ea")

REGULAR, BOLD = "DejaVuSans", "DejaVuSans-Bold"


@dataclass
class _Page:
    """A canvas and how far down it is filled."""

    canvas: Canvas
    y: float

    def text(self, text: str, style: ParagraphStyle, *, after: float = 0, **place: float) -> None:
        """Write escaped text, wrapped, and move down; ``place`` holds x and width."""
        paragraph = Paragraph(escape(text), style)
        _, height = paragraph.wrap(place.get("width", WIDTH), A4[1])
        self.y -= height
        paragraph.drawOn(self.canvas, place.get("x", MARGIN), self.y)
        self.y -= after


def report(explanation: Explanation, config: ModelConfig, when: datetime) -> bytes:
    """Write the report of one image.

    Args:
        explanation: The image, its heat map and the model's answer.
        config: The config of the model that gave the answer.
        when: When it was given; must know its time zone, and is shown in UTC.

    Returns:
        The PDF's bytes: one A4 page, fonts embedded, text that can be searched and copied.

    Raises:
        ValueError: ``when`` has no time zone.
    """
    if when.tzinfo is None:
        raise ValueError("the time of a report needs a time zone")
    _load_fonts()
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A4, invariant=1, lang="en")
    canvas.setTitle(TITLE)
    canvas.setSubject(NOTICE)
    canvas.setCreator("bcd-models")
    page = _Page(canvas, A4[1] - MARGIN)
    _head(page)
    _result(page, explanation.prediction)
    _pictures(page, explanation, config)
    _facts(page, explanation.prediction, config, when)
    _foot(canvas)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _style(size: float, font: str = REGULAR, colour: HexColor = INK) -> ParagraphStyle:
    return ParagraphStyle("", fontName=font, fontSize=size, leading=size * 1.4, textColor=colour)


def _head(page: _Page) -> None:
    page.text(TITLE, _style(17, BOLD))
    page.text(SUBTITLE, _style(10, REGULAR, QUIET), after=8)
    _notice_box(page)


def _notice_box(page: _Page) -> None:
    height = 22.0
    page.y -= height
    page.canvas.setFillColor(TINT)
    page.canvas.setStrokeColor(LINE)
    page.canvas.roundRect(MARGIN, page.y, WIDTH, height, 3, fill=1)
    page.canvas.setFillColor(INK)
    page.canvas.setFont(BOLD, 8.5)
    page.canvas.drawString(MARGIN + 8, page.y + 7.5, NOTICE)
    page.y -= 16


def _result(page: _Page, prediction: Prediction) -> None:
    page.text("The model's answer", _style(9.5, REGULAR, QUIET))
    page.text(wording.heading(prediction), _style(15, BOLD), after=2)
    page.text(wording.probability_line(prediction), _style(9.5))
    if prediction.reasons:
        page.text(wording.reasons_line(prediction), _style(9.5))
    page.y -= 8
    _probability_bar(page, prediction)


def _probability_bar(page: _Page, prediction: Prediction) -> None:
    """0 to 1 with the probability above the bar, threshold and referral band on and below it."""
    canvas, height = page.canvas, 9.0
    top = page.y - 13
    bottom = top - height

    def at(probability: float) -> float:
        return MARGIN + WIDTH * probability

    canvas.setFillColor(TINT)
    canvas.rect(MARGIN, bottom, WIDTH, height, stroke=0, fill=1)
    if prediction.refer:
        low, high = map(at, prediction.refer)
        canvas.setFillColor(BAND)
        canvas.rect(low, bottom, high - low, height, stroke=0, fill=1)
    canvas.setStrokeColor(LINE)
    canvas.rect(MARGIN, bottom, WIDTH, height)
    canvas.setStrokeColor(INK)
    canvas.setLineWidth(1.2)
    threshold, here = at(prediction.threshold), at(prediction.probability)
    canvas.line(threshold, bottom - 4, threshold, top)
    canvas.setFillColor(INK)
    _triangle(canvas, here, top)
    _label(canvas, here, top + 8, f"this image: {wording.figure(prediction.probability)}", BOLD)
    _label(canvas, threshold, bottom - 12, _threshold_words(prediction))
    canvas.setLineWidth(0.6)
    canvas.setFont(REGULAR, 7.5)
    canvas.setFillColor(QUIET)
    canvas.drawString(MARGIN, bottom - 21, "0")
    canvas.drawRightString(MARGIN + WIDTH, bottom - 21, "1")
    page.y = bottom - 32


def _threshold_words(prediction: Prediction) -> str:
    words = f"threshold {wording.figure(prediction.threshold)}"
    if prediction.refer is None:
        return words
    low, high = map(wording.figure, prediction.refer)
    return f"{words}, shaded: referral band {low} to {high}"


def _triangle(canvas: Canvas, x: float, tip: float) -> None:
    path = canvas.beginPath()
    path.moveTo(x, tip)
    path.lineTo(x - 4, tip + 6)
    path.lineTo(x + 4, tip + 6)
    path.close()
    canvas.drawPath(path, stroke=0, fill=1)


def _label(canvas: Canvas, x: float, y: float, text: str, font: str = REGULAR) -> None:
    """Text centred on x, kept within the margins."""
    half = pdfmetrics.stringWidth(text, font, 7.5) / 2
    canvas.setFont(font, 7.5)
    canvas.drawCentredString(min(max(x, MARGIN + half), MARGIN + WIDTH - half), y, text)


def _pictures(page: _Page, explanation: Explanation, config: ModelConfig) -> None:
    shown = for_display(explanation)
    bottom = page.y - 12 - PICTURE
    titles = ("Image", f"Heat map over the image, {OPACITY:.0%} opaque")
    images = (shown.image, shown.overlay(OPACITY))
    for place, (title, image) in enumerate(zip(titles, images, strict=True)):
        left = MARGIN + place * (PICTURE + 14)
        page.canvas.setFont(BOLD, 8)
        page.canvas.setFillColor(INK)
        page.canvas.drawString(left, page.y - 6, title)
        _picture(page.canvas, image, left, bottom)
    _colour_scale(page.canvas, MARGIN + 2 * (PICTURE + 14), bottom)
    page.y = bottom - 6
    for line in (
        f"{wording.map_line(explanation.label)} {wording.cell_line(config.preprocess)}",
        "The scale is the same for every image.",
    ):
        page.text(line, _style(8, REGULAR, QUIET))
    page.y -= 10


def _picture(canvas: Canvas, image: Image.Image, left: float, bottom: float) -> None:
    scale = PICTURE / max(image.size)
    width, height = image.width * scale, image.height * scale
    x, y = left + (PICTURE - width) / 2, bottom + (PICTURE - height) / 2
    canvas.drawImage(ImageReader(image), x, y, width, height)


def _colour_scale(canvas: Canvas, left: float, bottom: float) -> None:
    canvas.drawImage(ImageReader(_colours()), left, bottom, SCALE_WIDTH, PICTURE)
    canvas.setStrokeColor(LINE)
    canvas.rect(left, bottom, SCALE_WIDTH, PICTURE)
    x = left + SCALE_WIDTH + 4
    canvas.setFillColor(INK)
    canvas.setFont(REGULAR, 7.5)
    for value in (0.0, 0.5, 1.0):
        canvas.drawString(x, bottom + value * (PICTURE - 7), f"{value:g}")
    for text, top in ((wording.BRIGHT, bottom + PICTURE - 9), (wording.DARK, bottom + 32)):
        label = _Page(canvas, top)
        label.text(text, _style(6.5, REGULAR, QUIET), x=x, width=MARGIN + WIDTH - x)


def _colours() -> Image.Image:
    """The heat map's colours from 1 (top) to 0 (bottom)."""
    steps = np.linspace(1, 0, 256)[:, None]
    rgba = matplotlib.colormaps[COLOURS](steps, bytes=True)
    return Image.fromarray(np.ascontiguousarray(rgba[..., :3]))


def _facts(page: _Page, prediction: Prediction, config: ModelConfig, when: datetime) -> None:
    band = "none"
    if prediction.refer:
        band = " to ".join(map(wording.figure, prediction.refer))
    for name, value in (
        ("File", wording.printable(prediction.name)),
        ("Image size", f"{prediction.width} × {prediction.height} pixels"),
        ("Analysed", f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"),
        ("Model", f"{prediction.model}, version {prediction.model_version}"),
        ("SHA-256 of its weights", prediction.weights_sha256),
        ("Threshold", wording.figure(prediction.threshold)),
        ("Referral band", band),
        ("Trained on fields", wording.field_line(config.preprocess)),
        ("What the answers cover", wording.classes_line()),
    ):
        _fact(page, name, value)


def _fact(page: _Page, name: str, value: str) -> None:
    page.canvas.setStrokeColor(LINE)
    page.canvas.setLineWidth(0.4)
    page.canvas.line(MARGIN, page.y, MARGIN + WIDTH, page.y)
    page.y -= 3
    column = 122.0
    page.canvas.setFont(REGULAR, 8)
    page.canvas.setFillColor(QUIET)
    page.canvas.drawString(MARGIN, page.y - 8.5, name)
    page.text(value, _style(8), x=MARGIN + column, width=WIDTH - column, after=3)


def _foot(canvas: Canvas) -> None:
    canvas.setFont(REGULAR, 7.5)
    canvas.setFillColor(QUIET)
    canvas.drawString(MARGIN, MARGIN - 18, NOTICE)


@cache
def _load_fonts() -> None:
    """DejaVu Sans, which matplotlib ships: Latin, Greek and Cyrillic letters, free to embed."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in (REGULAR, BOLD):
        pdfmetrics.registerFont(TTFont(name, folder / f"{name}.ttf"))
