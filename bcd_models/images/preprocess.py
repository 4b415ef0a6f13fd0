"""RGB pixels -> the network's input, by numpy and Pillow alone, whichever runtime answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import PreprocessConfig


def resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Squash an image to a square by Pillow's bicubic filter, which antialiases.

    torch's kernel for bytes, which training uses on whole batches, differs from it in under 0.5% of
    values, by at most 2.

    Args:
        pixels: H x W x 3, 0 to 255.
        size: Side of the square in pixels.

    Returns:
        size x size x 3.
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    square = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(square)


def normalise(images: Sequence[NDArray[np.uint8]], config: PreprocessConfig) -> NDArray[np.float32]:
    """Bring resized images to the mean and deviation that the network expects.

    Args:
        images: S x S x 3 each, 0 to 255.
        config: The preprocessing that travels with the weights.

    Returns:
        N x 3 x S x S, contiguous.
    """
    # As one product and one difference, once the colours lie apart: half the time of other ways.
    scale = (1 / (255 * np.array(config.std))).astype(np.float32)
    shift = (np.array(config.mean) / np.array(config.std)).astype(np.float32)
    planes = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    inputs: NDArray[np.float32] = planes * scale[:, None, None]
    inputs -= shift[:, None, None]
    return inputs


def turn(inputs: NDArray[np.float32], which: int) -> NDArray[np.float32]:
    """Return one of the eight turns and reflections of ... x S x S inputs, 0 being none."""
    turned = np.rot90(inputs, which % 4, (-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if which >= 4 else turned)


def turn_back(turned: NDArray[np.float32], which: int) -> NDArray[np.float32]:
    """Undo one of the eight turns and reflections that ``turn`` gives."""
    upright = turned[..., ::-1] if which >= 4 else turned
    return np.ascontiguousarray(np.rot90(upright, -(which % 4), (-2, -1)))
