"""An explanation at a size for looking at, on screen and on paper."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bcd_models.explanation import Explanation, colour_map
from clinic.storage.shown_images import encode_png

MAX_SIDE = 800
SEEN_ALPHA, LEFT_OUT_ALPHA = 255, 128  # alpha of a stored heat map; 0: not looked at


def resize_for_display(explanation: Explanation) -> Explanation:
    """Return the same image and heat map with a longer side of at most ``MAX_SIDE`` pixels.

    Small images grow by a whole factor, so that their pixels stay what they are.
    """
    size = display_size(explanation.image.size)
    return replace(_resize_map(explanation, size), image=enlarge(explanation.image))


def reduce_heat_map(explanation: Explanation) -> Explanation:
    """Return it with a heat map whose longer side is at most ``MAX_SIDE``, a smaller one as is."""
    height, width = explanation.heatmap.shape
    if max(width, height) <= MAX_SIDE:
        return explanation
    return _resize_map(explanation, display_size((width, height)))


def enlarge(image: Image.Image) -> Image.Image:
    """Return an image enlarged, or reduced, to a longer side of at most ``MAX_SIDE`` pixels."""
    grows = max(image.size) <= MAX_SIDE
    way = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return image.resize(display_size(image.size), way)


def display_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of an image as ``enlarge`` makes it."""
    width, height = size
    longer = max(size)
    if longer <= MAX_SIDE:
        factor = MAX_SIDE // longer
        return width * factor, height * factor
    return max(1, round(width * MAX_SIDE / longer)), max(1, round(height * MAX_SIDE / longer))


def encode_heat_map(explanation: Explanation) -> bytes:
    """Return a heat map as it is stored, a grey PNG.

    It is clear where nothing was looked at, and half clear where tiles are left out as unsuitable.
    """
    height, width = explanation.heatmap.shape
    shown = _resize_map(explanation, display_size((width, height)))
    grey = Image.fromarray(np.rint(shown.heatmap * 255).astype(np.uint8))
    if not shown.seen.all():
        alpha = np.where(shown.seen, SEEN_ALPHA, 0)
        if shown.left_out is not None:
            alpha[shown.left_out] = LEFT_OUT_ALPHA
        grey.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return encode_png(grey)


def decode_heat_map(
    png: bytes,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return a stored heat map, from 0 to 255, and its pixels looked at and left out."""
    with Image.open(io.BytesIO(png)) as stored:
        grey, alpha = map(np.asarray, stored.convert("LA").split())
    return grey, alpha == SEEN_ALPHA, alpha == LEFT_OUT_ALPHA


def _resize_map(explanation: Explanation, size: tuple[int, int]) -> Explanation:
    def resize(values: NDArray[Any], way: Image.Resampling) -> NDArray[Any]:
        return np.asarray(Image.fromarray(values).resize(size, way))

    nearest, left_out = Image.Resampling.NEAREST, explanation.left_out
    return replace(
        explanation,
        heatmap=resize(explanation.heatmap, Image.Resampling.BILINEAR),
        seen=resize(explanation.seen, nearest),
        left_out=None if left_out is None else resize(left_out, nearest),
    )


def colour_heat_map(grey: bytes) -> bytes:
    """Return a stored heat map, a grey PNG, in the colours that it is shown in, as PNG."""
    return encode_png(colour_map(*decode_heat_map(grey)))
