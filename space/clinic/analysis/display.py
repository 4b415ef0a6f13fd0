"""An explanation at a size for looking at, on screen and on paper."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bcd_models.explanation import Explanation, apply_colours
from clinic.storage.shown_images import encode_png

MAX_SIDE = 800


def resize_for_display(explanation: Explanation, side: int = MAX_SIDE) -> Explanation:
    """Return the same image and heat map with a longer side of at most ``side`` pixels.

    Small images grow by a whole factor, so that their pixels stay what they are.
    """
    size = display_size(explanation.image.size, side)
    heat = _resize(explanation.heatmap, size)
    return replace(explanation, image=enlarge(explanation.image, side), heatmap=heat)


def reduce_heat_map(heatmap: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a heat map with a longer side of at most ``MAX_SIDE``; a smaller one as it is."""
    height, width = heatmap.shape
    if max(width, height) <= MAX_SIDE:
        return heatmap
    return _resize(heatmap, display_size((width, height)))


def enlarge(image: Image.Image, side: int = MAX_SIDE) -> Image.Image:
    """Return an image with a longer side of at most ``side`` pixels; small ones are enlarged."""
    grows = max(image.size) <= side
    way = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return image.resize(display_size(image.size, side), way)


def display_size(size: tuple[int, int], side: int = MAX_SIDE) -> tuple[int, int]:
    """Return width and height of an image as ``enlarge`` makes it."""
    width, height = size
    longer = max(size)
    if longer <= side:
        factor = side // longer
        return width * factor, height * factor
    return max(1, round(width * side / longer)), max(1, round(height * side / longer))


def _resize(heatmap: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(heatmap).resize(size, Image.Resampling.BILINEAR))


def colour_heat_map(grey: bytes) -> bytes:
    """Return a stored heat map, a grey PNG, in the colours that it is shown in, as PNG."""
    with Image.open(io.BytesIO(grey)) as stored:
        return encode_png(Image.fromarray(apply_colours(np.asarray(stored))))
