"""The heat map over a slide's thumbnail, with its bar: one fixed scale for all slides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bcd_models.explanation import LEFT_OUT, apply_colours
from bcd_models.prediction import NOTICE
from bcd_models.slides.prediction import count_looks

if TYPE_CHECKING:
    from bcd_models.slides.prediction import SlidePrediction, UnsuitableTile

OPACITY = 0.5
MIN_SIDE = 600  # a small slide's map is enlarged to about this, by a whole number
MARGIN, BAR_WIDTH, LINE, TEXT = 16, 24, 20, 13
FAILED = (0, 190, 255)  # a colour neither stain nor scale has


def draw_heat_map(prediction: SlidePrediction) -> Image.Image:
    """Draw P(malignant) of each tile over the thumbnail in colour: dark is 0, yellow is 1.

    Tiles without tissue are left as they are; those that failed are crossed out in blue,
    unsuitable ones struck through in grey, or framed where they are counted all the same.
    """
    picture = _draw_map(prediction)
    bar = max(picture.height, 240)
    font = ImageFont.load_default(TEXT)
    lines = _write_captions(prediction)
    wide = max(round(font.getlength(line)) for line in lines)
    right = max(picture.width + BAR_WIDTH + 190, wide) + 2 * MARGIN
    below = bar + 2 * MARGIN
    page = Image.new("RGB", (right, below + len(lines) * LINE + MARGIN), "white")
    page.paste(picture, (MARGIN, MARGIN))
    pen = ImageDraw.Draw(page)
    _draw_bar(page, pen, font, (picture.width + 2 * MARGIN, MARGIN, bar), prediction)
    for index, line in enumerate(lines):
        pen.text((MARGIN, below + index * LINE), line, fill="black", font=font)
    return page


def colours(prediction: SlidePrediction) -> Image.Image:
    """Return P(malignant) in colour, RGBA of the thumbnail's size; clear where there is none.

    Tiles that look unsuitable are marked.
    """
    picture = _colour_tiles(prediction)
    mark_unsuitable(picture, prediction)
    return picture


def mark_unsuitable(picture: Image.Image, prediction: SlidePrediction) -> None:
    """Strike unsuitable tiles of a slide's picture through in grey, and frame ignored ones."""
    step, pen = picture.height // prediction.grid.rows, ImageDraw.Draw(picture)
    for left, top in _find_corners(prediction.unsuitable, step):
        pen.line((left, top + step - 1, left + step - 1, top), fill=LEFT_OUT, width=2)
    for left, top in _find_corners(prediction.ignored, step):
        pen.rectangle((left, top, left + step - 1, top + step - 1), outline=LEFT_OUT, width=2)


def _find_corners(tiles: Iterable[UnsuitableTile], step: int) -> list[tuple[int, int]]:
    return [(tile.column * step, tile.row * step) for tile in tiles]


def _colour_tiles(prediction: SlidePrediction) -> Image.Image:
    shown = ~np.isnan(prediction.probabilities)
    picture = Image.fromarray(apply_colours(np.where(shown, prediction.probabilities, 0)))
    picture.putalpha(Image.fromarray(np.where(shown, 255, 0).astype(np.uint8)))
    height, width = prediction.thumbnail.shape[:2]
    return picture.resize((width, height), Image.Resampling.NEAREST)


def _draw_map(prediction: SlidePrediction) -> Image.Image:
    picture = Image.fromarray(prediction.thumbnail)
    over = _colour_tiles(prediction)
    picture.paste(over, mask=over.getchannel("A").point(lambda alpha: round(alpha * OPACITY)))
    side = picture.height // prediction.grid.rows
    factor = max(1, MIN_SIDE // max(picture.size))
    picture = picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )
    pen = ImageDraw.Draw(picture)
    step = side * factor
    for tile in prediction.failed:
        left, top = tile.column * step, tile.row * step
        pen.line((left, top, left + step - 1, top + step - 1), fill=FAILED, width=2)
        pen.line((left, top + step - 1, left + step - 1, top), fill=FAILED, width=2)
    mark_unsuitable(picture, prediction)
    return picture


def _draw_bar(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    place: tuple[int, int, int],
    prediction: SlidePrediction,
) -> None:
    left, top, height = place
    column = apply_colours(np.linspace(1, 0, height))[:, None]
    page.paste(Image.fromarray(np.repeat(column, BAR_WIDTH, axis=1)), (left, top))
    rule = prediction.rule
    marks = {1.0: "1  P(malignant)", 0.0: "0", rule.threshold: f"{rule.threshold:.2f}  threshold"}
    for value, text in marks.items():
        y = top + round((1 - value) * (height - 1))
        pen.line((left, y, left + BAR_WIDTH + 4, y), fill="black")
        pen.text((left + BAR_WIDTH + 8, y), text, fill="black", font=font, anchor="lm")
    if rule.refer:
        low, high = (top + round((1 - value) * (height - 1)) for value in rule.refer)
        pen.line((left - 4, low, left - 4, high), fill="black", width=3)


def _write_captions(prediction: SlidePrediction) -> list[str]:
    lines = [
        _replace_unprintable(prediction.facts.path.name),
        _replace_unprintable(f"{prediction.model} {prediction.model_version}: {prediction.words}"),
    ]
    if prediction.failed:
        lines.append(f"{len(prediction.failed)} tiles could not be read: crossed out in blue")
    for how, tiles in (
        ("left out as unsuitable, struck through in grey", prediction.unsuitable),
        ("that look unsuitable and are counted all the same, framed in grey", prediction.ignored),
    ):
        if said := ", ".join(f"{words}: {count}" for words, count in count_looks(tiles).items()):
            lines.append(f"tiles {how}: {said}")
    if prediction.rule.refer:
        lines.append("line beside the bar: what is referred")
    return [*lines, NOTICE]


def _replace_unprintable(text: str) -> str:
    """Keep to what Pillow's own font has; a line break would shift the lines below."""
    return "".join(c if c.isprintable() else "?" for c in text)
