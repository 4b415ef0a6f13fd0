"""What real images have been through, as plain functions of pixels.

Training degrades what it learns from with them, and the robustness ladder what it scores
(``bcd_models.local.ladder``), so that both mean the same by "JPEG 80".
Each takes an image of H x W x 3, uint8, and returns a new one of the same shape and type.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bcd_models.images.colour_statistics import DARKEST, STAINS

Pixels = NDArray[np.uint8]
Kernel = Image.Resampling
Subsampling = Literal["4:4:4", "4:2:0"]

KERNELS = (Kernel.BOX, Kernel.BILINEAR, Kernel.HAMMING, Kernel.BICUBIC, Kernel.LANCZOS)
_SIDE_BY_SIDE = (0, 1)  # axes of an image; its colours are never mixed
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
_LEVELS = np.arange(256)
_LOGARITHMS = np.log(np.maximum(_LEVELS / 255, DARKEST)).astype(np.float32)
_AMOUNTS = np.linalg.inv(STAINS)  # of the stains in an optical density


def compress_as_jpeg(pixels: Pixels, quality: int, subsampling: Subsampling) -> Pixels:
    """Save as JPEG and open again; quality from 1 to 100."""
    return _save_and_open(pixels, "JPEG", quality=quality, subsampling=subsampling)


def compress_as_webp(pixels: Pixels, quality: int) -> Pixels:
    """Save as lossy WebP and open again; quality from 1 to 100."""
    return _save_and_open(pixels, "WEBP", quality=quality)


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Blur by a Gaussian; sigma in pixels."""
    return _round(ndimage.gaussian_filter(pixels.astype(np.float32), sigma, axes=_SIDE_BY_SIDE))


def defocus(pixels: Pixels, radius: float) -> Pixels:
    """Average over a disk, as a lens out of focus does; radius in pixels."""
    reach = np.arange(-np.ceil(radius), np.ceil(radius) + 1)
    away = np.hypot(*np.meshgrid(reach, reach))
    disk = np.clip(radius + 0.5 - away, 0, 1)[..., None]  # its edge covers pixels in part
    return _round(ndimage.convolve(pixels.astype(np.float32), disk / disk.sum()))


def sharpen(pixels: Pixels, amount: float, sigma: float = 1.0) -> Pixels:
    """Add so much of what a Gaussian blur takes away: an unsharp mask."""
    values = pixels.astype(np.float32)
    smooth = ndimage.gaussian_filter(values, sigma, axes=_SIDE_BY_SIDE)
    return _round(values + amount * (values - smooth))


def add_noise(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Add Gaussian noise to each value; standard deviation in grey levels."""
    return _round(pixels + deviation * rng.standard_normal(pixels.shape, np.float32))


def resample(
    pixels: Pixels, factor: float, there: Kernel = Kernel.BICUBIC, back: Kernel = Kernel.BICUBIC
) -> Pixels:
    """Reduce or enlarge the sides by a factor, then bring them back."""
    height, width = pixels.shape[:2]
    middle = resize(pixels, max(1, round(height * factor)), max(1, round(width * factor)), there)
    return resize(middle, height, width, back)


def resize(pixels: Pixels, height: int, width: int, kernel: Kernel = Kernel.BICUBIC) -> Pixels:
    """Resize by Pillow, the one function here that changes the shape."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), kernel))


def zoom(pixels: Pixels, factor: float) -> Pixels:
    """Show the tissue larger, cut to the image's middle, or smaller, its edges mirrored."""
    height, width = pixels.shape[:2]
    zoomed = resize(pixels, max(1, round(height * factor)), max(1, round(width * factor)))
    lacking = [(n - m) for n, m in zip((height, width), zoomed.shape, strict=False)]
    around = [(max(n, 0) // 2, max(n, 0) - max(n, 0) // 2) for n in lacking]
    padded = np.pad(zoomed, (*around, (0, 0)), "symmetric")
    top, left = (max(-n, 0) // 2 for n in lacking)
    return padded[top : top + height, left : left + width]


def scale_stains(
    pixels: Pixels, haematoxylin: float = 1.0, eosin: float = 1.0, rest: float = 1.0
) -> Pixels:
    """Multiply each stain's amount (Ruifrok and Johnston 2001); the rest is their DAB."""
    # To stains and back is one matrix, for amounts below zero are kept.
    turned = _AMOUNTS @ np.diag((haematoxylin, eosin, rest)) @ STAINS
    return _round(255 * np.exp(_LOGARITHMS[pixels] @ turned.astype(np.float32)))


def stain_brown(
    pixels: Pixels, haematoxylin: float, dab: float, colour: NDArray[np.float64] = STAINS[2]
) -> Pixels:
    """Put DAB where there was eosin, as immunohistochemistry looks.

    Args:
        pixels: Of H&E-stained tissue.
        haematoxylin: What its amount is multiplied by.
        dab: What the amount of eosin is multiplied by.
        colour: Optical densities of the DAB in red, green and blue.
    """
    amounts = _AMOUNTS[:, :2] * (haematoxylin, dab)
    turned = amounts @ np.stack((STAINS[0], colour))
    return _round(255 * np.exp(_LOGARITHMS[pixels] @ turned.astype(np.float32)))


def shift_hue(pixels: Pixels, turns: float) -> Pixels:
    """Turn the hue of HSV by a share of the colour circle, from -0.5 to 0.5."""
    values = pixels.astype(np.float32) / np.float32(255)
    largest = values.max(-1)
    spread = largest - values.min(-1)
    red, green, blue = np.moveaxis(
        (largest[..., None] - values) / np.where(spread == 0, 1, spread)[..., None], -1, 0
    )
    of_red, of_green = largest == values[..., 0], largest == values[..., 1]
    sixths = np.where(of_red, blue - green, np.where(of_green, 2 + red - blue, 4 + green - red))
    away = (np.array((5, 3, 1), np.float32) + (sixths + np.float32(6 * turns))[..., None]) % 6
    lacking = np.minimum(away, 4 - away).clip(0, 1)
    turned = largest[..., None] - spread[..., None] * lacking
    whole: Pixels = (turned * np.float32(255.999)).astype(np.uint8)  # as torchvision rounds
    return whole


def scale_brightness(pixels: Pixels, factor: float) -> Pixels:
    """Multiply every value."""
    return _round(_LEVELS * factor)[pixels]


def scale_contrast(pixels: Pixels, factor: float) -> Pixels:
    """Multiply every value's distance to the image's mean luma."""
    mean = (pixels @ _LUMA).mean()
    return _round(mean + (_LEVELS - mean) * factor)[pixels]


def scale_saturation(pixels: Pixels, factor: float) -> Pixels:
    """Multiply every value's distance to its pixel's luma."""
    luma = (pixels @ _LUMA)[..., None]
    return _round(luma + (pixels - luma) * factor)


def apply_gamma(pixels: Pixels, gamma: float) -> Pixels:
    """Raise every value, as a share of white, to a power; below 1 is brighter."""
    return _round(255 * (_LEVELS / 255) ** gamma)[pixels]


def shift_white_balance(pixels: Pixels, red: float, blue: float) -> Pixels:
    """Multiply red and blue, as another colour temperature of the lamp does."""
    return _round(pixels * np.array((red, 1, blue), np.float32))


def _save_and_open(pixels: Pixels, kind: str, **options: object) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return np.array(Image.open(file))


def _round(values: NDArray[Any]) -> Pixels:
    whole: Pixels = np.rint(values).clip(0, 255).astype(np.uint8)
    return whole
