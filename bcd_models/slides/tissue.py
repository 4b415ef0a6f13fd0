"""Where a slide has tissue: found on a thumbnail, by how much more green than other light is lost.

Haematoxylin and eosin both take most from green. So the measure is the optical density of green
beyond that of the channel which lost least. Glass, dust and black ink, which take alike from all,
stay near 0, and so do blue and green ink, which take more from red than from green. Red ink is
taken for tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bcd_models.slides.grid import (
    MAX_BLOCK_PIXELS,
    Block,
    Grid,
    choose_level,
    read_block,
    split_into_blocks,
)
from bcd_models.slides.read_ahead import read_ahead

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.slides.slide_file import SlideFacts, SlideReader

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


@dataclass(frozen=True)
class Tissue:
    """What the thumbnail shows.

    Attributes:
        thumbnail: RGB, eight pixels a tile; white where it could not be read.
        tiles: Rows x columns: whether at least a tenth of the tile is tissue. A tile whose
            thumbnail could not be read counts, so that it is tried and, if need be, told.
    """

    thumbnail: NDArray[np.uint8]
    tiles: NDArray[np.bool_]


def find_tissue(facts: SlideFacts, grid: Grid) -> Tissue:
    """Find tissue on the level that is just sharp enough for a thumbnail."""
    side = THUMBNAIL_PIXELS
    level = choose_level(facts, grid.tile_um / side)
    everywhere = np.ones((grid.rows, grid.columns), bool)
    thumbnail = np.full((grid.rows * side, grid.columns * side, 3), 255, np.uint8)
    unread = np.zeros_like(everywhere)

    def read(
        reader: SlideReader, block: Block
    ) -> tuple[Block, NDArray[np.uint8], dict[tuple[int, int], str]]:
        return block, *read_block(reader, grid, block, level, side, everywhere)

    blocks = split_into_blocks(grid, facts, level, everywhere, max_tiles=MAX_BLOCK_PIXELS // side)
    for block, image, failed in read_ahead(facts, blocks, read):
        top, left = block.row * side, block.column * side
        thumbnail[top : top + image.shape[0], left : left + image.shape[1]] = image
        for cell in failed:
            unread[cell] = True
    pixels = is_tissue(thumbnail).reshape(grid.rows, side, grid.columns, side)
    return Tissue(thumbnail, (pixels.mean((1, 3)) >= MIN_TISSUE_SHARE) | unread)


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
