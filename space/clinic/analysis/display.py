"""An explanation at a size for looking at, on screen and on paper."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from bcd_models.explanation import Explanation, apply_colours

SIDE = 800


def resize_for_display(explanation: Explanation, side: int = SIDE) -> Explanation:
    """Return the same image and heat map with a longer side of at most ``side`` pixels.

    Small images grow by a whole factor, so that their pixels stay what they are.
    """
    size = display_size(explanation.image.size, side)
    heat = Image.fromarray(explanation.heatmap).resize(size, Image.Resampling.BILINEAR)
    return replace(explanation, image=enlarge(explanation.image, side), heatmap=np.asarray(heat))


def enlarge(image: Image.Image, side: int = SIDE) -> Image.Image:
    """An image with a longer side of at most ``side`` pixels, small ones grown as they are."""
    grows = max(image.size) <= side
    way = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return image.resize(display_size(image.size, side), way)


def display_size(size: tuple[int, int], side: int = SIDE) -> tuple[int, int]:
    """Width and height of an image as ``enlarge`` makes it."""
    width, height = size
    longer = max(size)
    if longer <= side:
        factor = side // longer
        return width * factor, height * factor
    return max(1, round(width * side / longer)), max(1, round(height * side / longer))


def colour_heat_map(grey: bytes) -> bytes:
    """Return a stored heat map, a grey PNG, in the colours that it is shown in, as PNG."""
    with Image.open(io.BytesIO(grey)) as stored:
        coloured = Image.fromarray(apply_colours(np.asarray(stored)))
    buffer = io.BytesIO()
    coloured.save(buffer, "PNG")
    return buffer.getvalue()
