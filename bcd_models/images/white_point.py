"""The colour of glass in an image, and the image as it would look were glass white.

Tissue is looked for in such an image; a model is shown it only where its config says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bcd_models.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 8  # pixels, side of the squares that are judged as a whole
MIN_GLASS_SHARE = 0.02  # of an image's blocks, below which its glass is no evidence
MIN_GLASS_BLOCKS = 16  # and in all: 32 x 32 pixels
MAX_BLOCK_RANGE = 20  # levels between a smooth block's darkest and brightest pixel
MIN_BRIGHTNESS = 170.0  # mean of a block's channels
MAX_SATURATION = 0.2  # (largest - smallest) / largest of its channels: what lamps tint at most
# Lamps are warm or cool, so that green lies between red and blue; haematoxylin and eosin take
# green most. This share of the lesser of red and blue may be missing of green.
MAX_GREEN_LACK = 0.015
MAX_BELOW_BRIGHTEST = 8.0  # levels: faint tissue is darker than the glass beside it


def estimate_white(pixels: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return the colour of the glass of a slide or large field.

    Glass is what is bright, smooth, hardly coloured and not short of green, and as bright as the
    brightest such place.

    Args:
        pixels: H x W x 3, 0 to 255.

    Returns:
        Red, green and blue, 0 to 255; None where glass makes up less than MIN_GLASS_SHARE of the
        image or fewer than MIN_GLASS_BLOCKS blocks.
    """
    colours = _reduce_blocks(np.add, pixels.astype(np.uint16)) / BLOCK**2
    ranges = _reduce_blocks(np.maximum, pixels) - _reduce_blocks(np.minimum, pixels)
    is_smooth = ranges.max(axis=1) <= MAX_BLOCK_RANGE
    candidates = colours[is_smooth & _could_be_glass(colours)]
    least = max(MIN_GLASS_BLOCKS, MIN_GLASS_SHARE * len(colours))
    if len(candidates) < least:
        return None
    brightness = candidates.mean(axis=1)
    glass = candidates[brightness >= np.quantile(brightness, 0.9) - MAX_BELOW_BRIGHTEST]
    return np.median(glass, axis=0) if len(glass) >= least else None


def divide_white(pixels: NDArray[np.uint8], white: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return an image as it would look where glass is white.

    sRGB is nearly a power of light, so that what a lamp multiplies is divided out of the values
    themselves.

    Args:
        pixels: H x W x 3, 0 to 255.
        white: Red, green and blue of the glass, as `estimate_white` returns it.

    Returns:
        H x W x 3, each channel divided by the glass's and clipped to 255.

    Raises:
        InputError: The white isn't three numbers above 0.
    """
    if white.shape != (3,) or not (np.isfinite(white).all() and (white > 0).all()):
        raise InputError(f"the white {white} must be three numbers above 0")
    levels = np.arange(256) * 255 / white[:, None]
    table = np.minimum(np.rint(levels), 255).astype(np.uint8).ravel()
    return np.array(Image.fromarray(pixels).point(table.tolist()))


def _reduce_blocks(operation: np.ufunc, pixels: NDArray[Any]) -> NDArray[Any]:
    """Bring each whole block to one number a channel: N x 3, of the same type."""
    rows, columns = pixels.shape[0] // BLOCK, pixels.shape[1] // BLOCK
    whole = pixels[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns * BLOCK * 3)
    # Down before across: long rows of memory reduce several times faster than blocks.
    down = operation.reduce(whole, axis=1, dtype=pixels.dtype)
    across = down.reshape(rows, columns, BLOCK, 3)
    return np.asarray(operation.reduce(across, axis=2, dtype=pixels.dtype)).reshape(-1, 3)


def _could_be_glass(colours: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell bright colours that a lamp may have from those of tissue; N x 3."""
    red, green, blue = colours.T
    largest, smallest = colours.max(axis=1), colours.min(axis=1)
    is_bright = colours.mean(axis=1) >= MIN_BRIGHTNESS
    is_pale = largest - smallest <= MAX_SATURATION * largest
    has_green = green >= (1 - MAX_GREEN_LACK) * np.minimum(red, blue)
    could_be: NDArray[np.bool_] = is_bright & is_pale & has_green
    return could_be
