"""Which pixels show stained tissue, by how much more green than other light is lost.

Haematoxylin and eosin both take most from green. So the measure is the optical density of green
beyond that of the channel which lost least. Glass, dust and black ink, which take alike from all,
stay near 0, and so do blue and green ink, which take more from red than from green. Red ink is
taken for tissue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bcd_models.images.white_point import divide_white

if TYPE_CHECKING:
    from numpy.typing import NDArray

THUMBNAIL_PIXELS = 8  # across a tile: 25 micrometres each
# Otsu's threshold, but never so high that pale stroma beside dark tumour is lost, nor so low that a
# slide of glass alone is parted in two.
MIN_THRESHOLD, MAX_THRESHOLD = 0.02, 0.03
MIN_TISSUE_SHARE = 0.1  # of a tile's thumbnail pixels: fat is mostly holes
# Of green's optical density: half and more in H&E, under a tenth in black ink.
MIN_STAIN_SHARE = 0.15
DENSITY = -np.log10(np.arange(1, 257, dtype=np.float32) / 256)  # of each grey level
# Of their optical densities: about 1 and more in H&E, under 0.8 in blue ink.
MIN_GREEN_TO_RED = 0.85


def measure_tissue(
    rgb: NDArray[np.uint8], rows: int, columns: int, white: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return which share of each tile of an image is tissue, rows x columns, 0 to 1.

    Args:
        rgb: H x W x 3, the whole tiles of a grid; looked at eight pixels a tile.
        rows: Tiles down.
        columns: Tiles across.
        white: The colour of its glass, which is divided out: a tinted lamp hides pale tissue. None
            where it isn't known.
    """
    side = THUMBNAIL_PIXELS
    if white is not None:
        rgb = divide_white(rgb, white)
    size = columns * side, rows * side
    if rgb.shape[:2] != size[::-1]:
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
    shares: NDArray[np.float64] = is_tissue(rgb).reshape(rows, side, columns, side).mean((1, 3))
    return shares


def is_tissue(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels show H&E-stained tissue.

    Args:
        rgb: H x W x 3.

    Returns:
        H x W.
    """
    red, green, blue = (DENSITY[rgb[..., channel]] for channel in range(3))
    stain = green - np.minimum(red, blue)
    threshold = float(np.clip(_find_otsu_threshold(stain), MIN_THRESHOLD, MAX_THRESHOLD))
    mask: NDArray[np.bool_] = (
        (stain >= threshold)
        & (stain >= MIN_STAIN_SHARE * green)
        & (green >= MIN_GREEN_TO_RED * red)
    )
    return mask


def _find_otsu_threshold(values: NDArray[np.float32]) -> float:
    """Return the threshold that parts values from 0 to 0.5 best in two.

    Otsu, IEEE Transactions on Systems, Man, and Cybernetics 1979.
    """
    counts, edges = np.histogram(np.clip(values, 0, 0.5), bins=128, range=(0, 0.5))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sums / below - (sums[-1] - sums) / above
    spread = np.where((below > 0) & (above > 0), below * above * gap**2, 0.0)
    return float(edges[1:][np.argmax(spread)])
