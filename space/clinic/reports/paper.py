"""What all reports look like on paper: fonts, styles, the parts they are made of, and the pages.

Everything here turns user text into plain text: no markup in it is ever interpreted.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cache, partial
from html import escape
from pathlib import Path

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
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
)

from bcd_models.explanation import Explanation, apply_colours
from bcd_models.prediction import NOTICE, Prediction
from clinic.analysis import wording
from clinic.analysis.display import resize_for_display

MARGIN = 48.0
WIDTH = A4[0] - 2 * MARGIN
OPACITY = 0.5
SCALE_WIDTH = 12.0
NAME_WIDTH = 122.0  # width of the column of a fact's names
MAX_PIECE_HEIGHT = A4[1] / 3  # points of a piece that stays whole; two of them fit on a page
INK, QUIET, LINE = HexColor("#1b1f2a"), HexColor("#565d6d"), HexColor("#c4c8d2")
TINT, BAND = HexColor("#f3f1f8"), HexColor("#d9d3ea")
REGULAR, BOLD = "DejaVuSans", "DejaVuSans-Bold"

Story = Sequence[Flowable]


def write_pdf(story: Callable[[], Story], title: str, mark: str = "") -> bytes:
    """Lay out a report.

    Args:
        story: Makes its parts; called twice, for the pages are counted first.
        title: Of the document.
        mark: What the foot of each page says besides the notice, such as the report's id.

    Returns:
        The PDF's bytes: A4, fonts embedded, text that can be searched and copied. The same parts
        give the same bytes.
    """
    _load_fonts()
    pages = _build_document(io.BytesIO(), story(), title, mark, 0)
    buffer = io.BytesIO()
    _build_document(buffer, story(), title, mark, pages)
    return buffer.getvalue()


def text(words: str, size: float = 9.5, *, bold: bool = False, quiet: bool = False) -> Paragraph:
    """Return a paragraph of plain text."""
    style = ParagraphStyle(
        "",
        fontName=BOLD if bold else REGULAR,
        fontSize=size,
        leading=size * 1.4,
        textColor=QUIET if quiet else INK,
        splitLongWords=1,
    )
    return Paragraph(escape(words, quote=False), style)


def gap(height: float) -> Spacer:
    """Return room between parts, in points."""
    return Spacer(WIDTH, height)


def notice() -> Table:
    """Return what every report says first."""
    return Table(
        [[text(NOTICE, 8.5, bold=True)]],
        [WIDTH],
        style=[
            ("BACKGROUND", (0, 0), (-1, -1), TINT),
            ("BOX", (0, 0), (-1, -1), 0.6, LINE),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
        ],
    )


def facts(pairs: Sequence[tuple[str, str]]) -> Story:
    """Return names and values; lines of a value stay lines, over as many pages as they need."""
    return [_fact(name, value) for name, value in pairs]


def answer(prediction: Prediction) -> Story:
    """Return a model's answer in words, and where it lies."""
    tiles = wording.tiles_line(prediction)
    said: Story = [
        text(wording.heading(prediction), 15, bold=True),
        gap(2),
        *([text(override, bold=True)] if (override := wording.override_line(prediction)) else []),
        *map(text, wording.reason_lines(prediction)),
    ]
    if prediction.is_unsuitable:
        return [*said, gap(8)]
    return [
        *said,
        *([text(prediction.missed_words)] if prediction.missed_words else []),
        text(wording.probability_line(prediction)),
        *([text(tiles)] if tiles else []),
        gap(8),
        ProbabilityBar(prediction),
    ]


class ProbabilityBar(Flowable):
    """0 to 1 with the probability above the bar, threshold and referral band on and below it."""

    def __init__(self, prediction: Prediction) -> None:
        super().__init__()
        self.prediction = prediction
        self.width, self.height = WIDTH, 54.0

    def draw(self) -> None:
        """Draw it; called by reportlab."""
        canvas, prediction, thick = self.canv, self.prediction, 9.0
        bottom = self.height - 13 - thick
        top = bottom + thick
        canvas.setFillColor(TINT)
        canvas.rect(0, bottom, WIDTH, thick, stroke=0, fill=1)
        if prediction.refer:
            low, high = (WIDTH * edge for edge in prediction.refer)
            canvas.setFillColor(BAND)
            canvas.rect(low, bottom, high - low, thick, stroke=0, fill=1)
        canvas.setStrokeColor(LINE)
        canvas.rect(0, bottom, WIDTH, thick)
        canvas.setStrokeColor(INK)
        canvas.setLineWidth(1.2)
        threshold, here = WIDTH * prediction.threshold, WIDTH * prediction.probability
        canvas.line(threshold, bottom - 4, threshold, top)
        canvas.setFillColor(INK)
        _draw_triangle(canvas, here, top)
        _draw_label(
            canvas, here, top + 8, f"this image: {wording.figure(prediction.probability)}", BOLD
        )
        _draw_label(canvas, threshold, bottom - 12, _threshold_words(prediction))
        canvas.setFont(REGULAR, 7.5)
        canvas.setFillColor(QUIET)
        canvas.drawString(0, bottom - 21, "0")
        canvas.drawRightString(WIDTH, bottom - 21, "1")


class Pictures(Flowable):
    """An image, the same with its heat map over it, and what the colours mean.

    Of an image that looks unsuitable it is the image alone.

    Args:
        explanation: Of the image.
        side: Of the longer side of each picture, in points.
    """

    def __init__(self, explanation: Explanation, side: float) -> None:
        super().__init__()
        shown = resize_for_display(explanation)
        self.images = [("Image", shown.image)]
        if not explanation.prediction.is_unsuitable:
            over = shown.overlay(OPACITY)
            self.images.append((f"Heat map over the image, {OPACITY:.0%} opaque", over))
        self.side = side
        self.width, self.height = WIDTH, side + 14

    def draw(self) -> None:
        """Draw them; called by reportlab."""
        for place, (title, image) in enumerate(self.images):
            left = place * (self.side + 14)
            self.canv.setFont(BOLD, 8)
            self.canv.setFillColor(INK)
            self.canv.drawString(left, self.side + 6, title)
            _draw_picture(self.canv, image, left, self.side)
        if len(self.images) > 1:
            _draw_colour_scale(self.canv, 2 * (self.side + 14), self.side)


def _fact(name: str, value: str) -> Table:
    """Lay out a name and its value, a row for each line of it, none of them taller than a page."""
    # reportlab 5.1 could break within a row (splitInRow), but then begins the next page with a
    # blank line, and with an empty row where a row misses the page by its padding alone.
    pieces = [piece for line in value.split("\n") for piece in _split_line(line)]
    first = [text(name, 8, quiet=True), pieces[:2]]  # beside a name that may take two lines
    return Table(
        [first, *([[], piece] for piece in pieces[2:])],
        [NAME_WIDTH, WIDTH - NAME_WIDTH],
        style=[
            ("LINEABOVE", (0, 0), (-1, 0), 0.4, LINE),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 0),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, 0), 2),
            ("BOTTOMPADDING", (0, -1), (-1, -1), 2),
        ],
    )


def _split_line(line: str) -> Story:
    """Break a line into paragraphs, none of them taller than ``TALLEST``."""
    rest = text(line.strip() or "\N{NO-BREAK SPACE}", 8)  # without a letter it would have no height
    pieces = []
    while len(broken := rest.split(WIDTH - NAME_WIDTH, MAX_PIECE_HEIGHT)) > 1:
        piece, rest = broken
        pieces.append(piece)
    return [*pieces, rest]


def _build_document(buffer: io.BytesIO, story: Story, title: str, mark: str, pages: int) -> int:
    """Write into a buffer; returns the number of pages."""
    document = BaseDocTemplate(
        buffer,
        pagesize=A4,
        title=title,
        subject=NOTICE,
        creator="bcd-models",
        invariant=1,
        lang="en",
    )
    frame = Frame(MARGIN, MARGIN, WIDTH, A4[1] - 2 * MARGIN, 0, 0, 0, 0)
    foot = partial(_draw_foot, mark=mark, pages=pages)
    document.addPageTemplates(PageTemplate(frames=[frame], onPage=foot))
    document.build(list(story))
    return int(document.page)


def _draw_foot(canvas: Canvas, document: BaseDocTemplate, mark: str, pages: int) -> None:
    canvas.setFont(REGULAR, 7.5)
    canvas.setFillColor(QUIET)
    canvas.drawString(MARGIN, MARGIN - 18, NOTICE)
    number = f"page {document.page} of {pages}"
    canvas.drawRightString(MARGIN + WIDTH, MARGIN - 18 - 10 * bool(mark), number)
    if mark:
        canvas.drawString(MARGIN, MARGIN - 28, mark)


def _threshold_words(prediction: Prediction) -> str:
    words = f"threshold {wording.figure(prediction.threshold)}"
    if prediction.refer is None:
        return words
    return f"{words}, shaded: referral band {wording.band_words(prediction)}"


def _draw_triangle(canvas: Canvas, x: float, tip: float) -> None:
    path = canvas.beginPath()
    path.moveTo(x, tip)
    path.lineTo(x - 4, tip + 6)
    path.lineTo(x + 4, tip + 6)
    path.close()
    canvas.drawPath(path, stroke=0, fill=1)


def _draw_label(canvas: Canvas, x: float, y: float, words: str, font: str = REGULAR) -> None:
    """Draw text centred on x, kept within the margins."""
    half = pdfmetrics.stringWidth(words, font, 7.5) / 2
    canvas.setFont(font, 7.5)
    canvas.drawCentredString(min(max(x, half), WIDTH - half), y, words)


def _draw_picture(canvas: Canvas, image: Image.Image, left: float, side: float) -> None:
    scale = side / max(image.size)
    width, height = image.width * scale, image.height * scale
    x, y = left + (side - width) / 2, (side - height) / 2
    canvas.drawImage(ImageReader(image), x, y, width, height)


def _draw_colour_scale(canvas: Canvas, left: float, height: float) -> None:
    colours = Image.fromarray(apply_colours(np.linspace(1, 0, 256)[:, None]))  # 1 at the top
    canvas.drawImage(ImageReader(colours), left, 0, SCALE_WIDTH, height)
    canvas.setStrokeColor(LINE)
    canvas.rect(left, 0, SCALE_WIDTH, height)
    x = left + SCALE_WIDTH + 4
    canvas.setFillColor(INK)
    canvas.setFont(REGULAR, 7.5)
    for value in (0.0, 0.5, 1.0):
        canvas.drawString(x, value * (height - 7), f"{value:g}")
    for words, top in ((wording.BRIGHT, height - 9), (wording.DARK, 32)):
        paragraph = text(words, 6.5, quiet=True)
        _, needed = paragraph.wrap(WIDTH - x, height)
        paragraph.drawOn(canvas, x, top - needed)


@cache
def _load_fonts() -> None:
    """Load DejaVu Sans, as matplotlib ships it: Latin, Greek, Cyrillic letters, free to embed."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in (REGULAR, BOLD):
        pdfmetrics.registerFont(TTFont(name, folder / f"{name}.ttf"))
