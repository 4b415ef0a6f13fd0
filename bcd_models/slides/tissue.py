"""Where a slide has tissue: found on a thumbnail of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bcd_models.images.tissue import MIN_TISSUE_SHARE, THUMBNAIL_PIXELS, measure_tissue
from bcd_models.images.white_point import estimate_white
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


@dataclass(frozen=True)
class Tissue:
    """What the thumbnail shows.

    Attributes:
        thumbnail: RGB, eight pixels a tile; white where it could not be read.
        white: The colour of the glass on it; None where too little is seen.
        tiles: Rows x columns: whether at least a tenth of the tile is tissue. A tile whose
            thumbnail could not be read counts, so that it is tried and, if need be, told.
    """

    thumbnail: NDArray[np.uint8]
    white: NDArray[np.float64] | None
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
    white = estimate_white(thumbnail)
    shares = measure_tissue(thumbnail, grid.rows, grid.columns, white)
    return Tissue(thumbnail, white, (shares >= MIN_TISSUE_SHARE) | unread)
