"""The grid of tiles over a slide, the level they are read from, and the blocks read at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bcd_models.errors import ImageError
from bcd_models.images.field import MAX_ENLARGEMENT
from bcd_models.slides.slide_file import Area, SlideFacts, SlideReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

# How many times sharper than the model's scale a level must be: scanners store each as JPEG, whose
# traces the reduction takes away. Training's patches have none.
MIN_SHARPNESS = 2
# Scans of one nominal magnification differ by a few per cent: a level that much coarser will do,
# where the next would cost sixteen times the pixels.
MAX_MPP_RATIO = 1.05
MAX_BLOCK_PIXELS = 2048  # about the most a block measures across, in the pixels read
MAX_BLOCK_TILES = 16  # the most tiles across a block, so that a killed run loses little


@dataclass(frozen=True)
class Grid:
    """Square fields of tissue, side by side over what was scanned.

    Attributes:
        left: Of the first tile, in level-0 pixels.
        top: Of the first tile, in level-0 pixels.
        tile_width: Level-0 pixels, seldom a whole number.
        tile_height: The same, down; another number where pixels are not square.
        columns: Whole tiles across; what is left of the slide at the right edge is not looked at.
        rows: Whole tiles down; the same at the lower edge.
        tile_um: Side of a tile in micrometres.
        mpp: Micrometres a pixel of a tile as the model gets it.
    """

    left: int
    top: int
    tile_width: float
    tile_height: float
    columns: int
    rows: int
    tile_um: float
    mpp: float

    @property
    def tile_pixels(self) -> int:
        """Side in pixels of a tile as the model gets it: that of training's patches."""
        return max(1, round(self.tile_um / self.mpp))

    @property
    def is_enlarged(self) -> bool:
        """Whether the slide is coarser than the model needs: its tiles have fewer pixels."""
        return min(self.tile_width, self.tile_height) * MAX_MPP_RATIO < self.tile_um / self.mpp

    def area(self, block: Block) -> Area:
        """Return what a block covers."""
        return Area(
            self.left + block.column * self.tile_width,
            self.top + block.row * self.tile_height,
            block.columns * self.tile_width,
            block.rows * self.tile_height,
        )

    def edges(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return a tile's left, top, right and lower edge in whole level-0 pixels."""
        return (
            round(self.left + column * self.tile_width),
            round(self.top + row * self.tile_height),
            round(self.left + (column + 1) * self.tile_width),
            round(self.top + (row + 1) * self.tile_height),
        )


@dataclass(frozen=True)
class Block:
    """A rectangle of the grid's tiles, read in one go."""

    row: int
    column: int
    rows: int
    columns: int

    @property
    def cells(self) -> tuple[slice, slice]:
        """The index of its tiles in an array of the grid's."""
        return (
            slice(self.row, self.row + self.rows),
            slice(self.column, self.column + self.columns),
        )


def plan_grid(facts: SlideFacts, tile_um: float, mpp: float) -> Grid:
    """Lay tiles over a slide.

    Args:
        facts: Of the slide.
        tile_um: Side of a tile in micrometres: the field of the model's training patches.
        mpp: Micrometres a pixel of those patches.

    Raises:
        ImageError: Less than one tile was scanned, or too coarsely to be enlarged to ``mpp``.
    """
    if max(facts.mpp_x, facts.mpp_y) > mpp * MAX_ENLARGEMENT:
        raise ImageError(
            f"{facts.path} has {facts.mpp_x:g} x {facts.mpp_y:g} micrometres a pixel, more than "
            f"the {mpp * MAX_ENLARGEMENT:g} that can be enlarged to the model's {mpp:g}: scan at a "
            "higher magnification, or hand in the true size with --mpp"
        )
    left, top, width, height = facts.bounds
    across, down = tile_um / facts.mpp_x, tile_um / facts.mpp_y
    # A billionth of a tile is floating point's, not the slide's.
    columns, rows = math.floor(width / across + 1e-9), math.floor(height / down + 1e-9)
    if not columns or not rows:
        raise ImageError(
            f"{facts.path} shows {width * facts.mpp_x:.0f} x {height * facts.mpp_y:.0f} "
            f"micrometres, less than one tile of {tile_um:g}: use bcd predict for single patches"
        )
    return Grid(left, top, across, down, columns, rows, tile_um, mpp)


def choose_level(facts: SlideFacts, mpp: float) -> int:
    """Return the coarsest level of at most ``mpp`` micrometres a pixel, or a few per cent more.

    Where there is none, that is the full resolution. A level of another shape shows something else,
    such as the whole glass, and is none.
    """
    finest = max(facts.mpp_x, facts.mpp_y)
    return max(
        (
            level
            for level, downsample in enumerate(facts.downsamples)
            if downsample * finest <= mpp * MAX_MPP_RATIO and _has_shape_of_slide(facts, level)
        ),
        key=lambda level: facts.downsamples[level],
        default=0,
    )


def _has_shape_of_slide(facts: SlideFacts, level: int) -> bool:
    """Return whether a level is as wide for its height as level 0, but for a pixel of rounding."""
    width, height = facts.levels[level]
    is_wider = (width - 1) * facts.height > (height + 1) * facts.width
    is_higher = (height - 1) * facts.width > (width + 1) * facts.height
    return not (is_wider or is_higher)


def split_into_blocks(
    grid: Grid,
    facts: SlideFacts,
    level: int,
    wanted: NDArray[np.bool_],
    max_tiles: int = MAX_BLOCK_TILES,
) -> Iterator[Block]:
    """Yield blocks that hold all wanted tiles, no larger than they need.

    Args:
        grid: The tiles.
        facts: Of the slide.
        level: Where they will be read.
        wanted: Rows x columns.
        max_tiles: Across a block.
    """
    pixels = max(grid.tile_width, grid.tile_height) / facts.downsamples[level]
    side = min(max(int(MAX_BLOCK_PIXELS / pixels), 1), max_tiles)
    for row in range(0, grid.rows, side):
        for column in range(0, grid.columns, side):
            inside = wanted[row : row + side, column : column + side]
            if inside.any():
                rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
                yield Block(
                    row + int(rows[0]),
                    column + int(columns[0]),
                    int(rows[-1] - rows[0]) + 1,
                    int(columns[-1] - columns[0]) + 1,
                )


def read_block(
    reader: SlideReader,
    grid: Grid,
    block: Block,
    level: int,
    pixels: int,
    wanted: NDArray[np.bool_],
) -> tuple[NDArray[np.uint8], dict[tuple[int, int], str]]:
    """Read a block's tiles, each reduced to ``pixels`` x ``pixels``.

    A block that can't be read is parted in four again and again, so that a damaged spot costs the
    tiles on it only.

    Returns:
        Rows * pixels x columns * pixels x 3, white where a tile failed; and why each wanted tile
        failed, by row and column of the grid.
    """
    try:
        size = (block.columns * pixels, block.rows * pixels)
        return reader.read(grid.area(block), level, size), {}
    except ImageError as error:
        if block.rows == block.columns == 1:
            return np.full((pixels, pixels, 3), 255, np.uint8), {
                (block.row, block.column): str(error)
            }
    image = np.full((block.rows * pixels, block.columns * pixels, 3), 255, np.uint8)
    failed: dict[tuple[int, int], str] = {}
    for part in _quarter(block):
        if wanted[part.cells].any():
            down, right = (part.row - block.row) * pixels, (part.column - block.column) * pixels
            place = np.s_[down : down + part.rows * pixels, right : right + part.columns * pixels]
            image[place], reasons = read_block(reader, grid, part, level, pixels, wanted)
            failed |= reasons
    return image, failed


def _quarter(block: Block) -> Iterator[Block]:
    """Yield up to four blocks in a block's place."""
    upper, left = (block.rows + 1) // 2, (block.columns + 1) // 2
    for row, rows in ((block.row, upper), (block.row + upper, block.rows - upper)):
        for column, columns in ((block.column, left), (block.column + left, block.columns - left)):
            if rows and columns:
                yield Block(row, column, rows, columns)


def cut_tiles(image: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """Return a block's image as rows x columns x pixels x pixels x 3 tiles."""
    rows, columns = image.shape[0] // pixels, image.shape[1] // pixels
    return image.reshape(rows, pixels, columns, pixels, 3).swapaxes(1, 2)
