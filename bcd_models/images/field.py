"""From an image at a known scale to tiles of the field that a model was trained on.

Nothing is ever squashed: tissue is brought to the trained scale, larger fields are cut into tiles,
and what is missing at the edges is reflected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from bcd_models.errors import ImageError
from bcd_models.images.open import ImageLimits
from bcd_models.images.scale import Scale
from bcd_models.images.tissue import MIN_TISSUE_SHARE, measure_tissue
from bcd_models.images.white_point import divide_white, estimate_white

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ENLARGEMENT = 1.5  # of a pixel to the model's: beyond it nothing of its scale is left
SMALLEST_FIELD = 0.75  # of the trained field's side
MAX_UNSEEN = 0.25  # of a tile's side that a grid may leave out, rather than reflect three quarters
TRAINED_SIDES = 0.8, 1.2  # of the trained side in pixels: taken as the trained scale, if unknown
TRAINED = "taken as the model's own"
UNKNOWN = "unknown"
# A mean over the pixels that fall together: of all kernels, the one that changes answers least.
REDUCING = Image.Resampling.BOX


@dataclass(frozen=True)
class Layout:
    """Where the tiles of an image lie: a grid over its middle, at the trained scale.

    Attributes:
        width: Of the image in pixels.
        height: Of the image in pixels.
        scale: Of the image; None where it is unknown, and the shorter side is taken for the
            trained field's.
        source: Where the scale comes from, in words.
        window: Left, top, width and height in pixels of what is looked at: all of the image, or
            one field in its middle where the scale is unknown or too coarse.
        reduced: Width and height of the window at the trained scale, in pixels.
        tile: Side of a tile in those pixels.
        columns: Tiles across.
        rows: Tiles down.
        reasons: Why no answer about the image should be relied on, with the remedy; mostly none.
    """

    width: int
    height: int
    scale: Scale | None
    source: str
    window: tuple[int, int, int, int]
    reduced: tuple[int, int]
    tile: int
    columns: int
    rows: int
    reasons: tuple[str, ...]

    @property
    def mpp(self) -> float | None:
        """Micrometres a pixel of the image, the mean of across and down; None: unknown."""
        return (self.scale.mpp_x + self.scale.mpp_y) / 2 if self.scale else None


@dataclass(frozen=True)
class TissueField:
    """What a model is shown of an image.

    Attributes:
        layout: Where the tiles lie.
        tiles: N x tile x tile x 3, those with tissue, row by row.
        shown: Rows x columns: which tiles these are.
        has_tissue: Whether a tile shows enough of it; else the one that shows most stands for all.
        reasons: Why no answer about the field should be relied on.
    """

    layout: Layout
    tiles: NDArray[np.uint8]
    shown: NDArray[np.bool_]
    has_tissue: bool
    reasons: tuple[str, ...]

    def keep(self, kept: NDArray[np.bool_]) -> TissueField:
        """Return the field without some of its tiles; ``kept`` has one value a tile, N."""
        shown = self.shown.copy()
        shown[self.shown] = kept
        return replace(self, tiles=self.tiles[kept], shown=shown)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which pixels of the image lie in a tile that is shown, H x W."""
        return self.cover(self.shown)

    def cover(self, cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which pixels of the image lie in some of its tiles, H x W."""
        whole = np.ones((self.layout.tile, self.layout.tile), np.float32)
        return replace(self, shown=cells).lay_out(repeat(whole, int(cells.sum()))) >= 0.5

    def lay_out(self, maps: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the tiles' maps, each tile x tile, at their place in the image; 0 elsewhere."""
        side, layout = self.layout.tile, self.layout
        canvas = np.zeros((layout.rows, side, layout.columns, side), np.float32)
        for (row, column), values in zip(np.argwhere(self.shown), maps, strict=True):
            canvas[row, :, column] = values
        flat = canvas.reshape(layout.rows * side, layout.columns * side)
        columns, rows = layout.reduced
        placed = _fit(_fit(flat, 0, rows, "constant"), 1, columns, "constant")
        left, top, width, height = layout.window
        if (columns, rows) != (width, height):
            enlarged = Image.fromarray(placed).resize((width, height), Image.Resampling.BILINEAR)
            placed = np.asarray(enlarged)
        heat = np.zeros((layout.height, layout.width), np.float32)
        heat[top : top + height, left : left + width] = placed
        return heat


def plan_layout(
    size: tuple[int, int],
    scale: Scale | None,
    trained_mpp: float,
    trained_um: float,
    max_tiles: int = ImageLimits().max_tiles,
) -> Layout:
    """Lay a grid of the trained field over an image.

    Args:
        size: Width and height of the image in pixels.
        scale: Of the image; None: unknown.
        trained_mpp: Micrometres a pixel of the training patches.
        trained_um: Side in micrometres of the field that they show.
        max_tiles: Above which the image is refused.

    Raises:
        ImageError: There would be more tiles.
    """
    tile = max(1, round(trained_um / trained_mpp))
    low, high = (share * tile for share in TRAINED_SIDES)
    reasons: tuple[str, ...] = ()
    if scale:
        reasons = _find_reasons(size, scale, trained_mpp, trained_um)
    elif low <= min(size) and max(size) <= high:
        scale = Scale(trained_mpp, trained_mpp, TRAINED)
    else:
        reasons = (
            "the image's scale is unknown: give the micrometres a pixel, which a scanner's or "
            "camera's software calls pixel size or calibration",
        )
    mpp_x, mpp_y = (scale.mpp_x, scale.mpp_y) if scale else (trained_um / min(size),) * 2
    window = 0, 0, *size
    if not scale or max(mpp_x, mpp_y) > MAX_ENLARGEMENT * trained_mpp:  # the middle will do
        across, down = (
            min(side, max(1, round(trained_um / mpp)))
            for side, mpp in zip(size, (mpp_x, mpp_y), strict=True)
        )
        window = (size[0] - across) // 2, (size[1] - down) // 2, across, down
    width, height = (
        max(1, round(side * mpp / trained_mpp))
        for side, mpp in zip(window[2:], (mpp_x, mpp_y), strict=True)
    )
    columns, rows = (max(1, math.ceil(side / tile - MAX_UNSEEN)) for side in (width, height))
    if rows * columns > max_tiles:
        raise ImageError(
            f"the image would be {rows * columns:,} tiles of {trained_um:g} micrometres, at most "
            f"{max_tiles:,} are answered for: check the micrometres a pixel, cut out the region of "
            "interest, or hand it in as a whole slide"
        )
    source = scale.source if scale else UNKNOWN
    return Layout(*size, scale, source, window, (width, height), tile, columns, rows, reasons)


def cut_field(
    pixels: NDArray[np.uint8],
    layout: Layout,
    white_point: bool = False,
    min_tissue: float = MIN_TISSUE_SHARE,
) -> TissueField:
    """Return an image's tiles.

    Args:
        pixels: H x W x 3, as the layout was made for.
        layout: Where the tiles lie.
        white_point: Whether the colour of glass is divided out, where there are several tiles and
            glass is found; tissue is looked for without it in any case, as on slides.
        min_tissue: Of several tiles, those with a smaller share of tissue are left out.
    """
    left, top, width, height = layout.window
    pixels = pixels[top : top + height, left : left + width]
    reduced = resample(pixels, layout.reduced)
    side, rows, columns = layout.tile, layout.rows, layout.columns
    canvas = _fit(_fit(reduced, 0, rows * side), 1, columns * side)
    if rows == columns == 1:
        return TissueField(layout, canvas[None], np.ones((1, 1), bool), True, layout.reasons)
    white = estimate_white(pixels)
    shares = measure_tissue(canvas, rows, columns, white)
    shown, reasons = shares >= min_tissue, layout.reasons
    has_tissue = bool(shown.any())
    if not has_tissue:
        shown, why = _choose_stand_in(shares, min_tissue)
        reasons = (*reasons, why)
    if white_point and white is not None:
        canvas = divide_white(canvas, white)
    tiles = canvas.reshape(rows, side, columns, side, 3).swapaxes(1, 2)[shown]
    return TissueField(layout, tiles, shown, has_tissue, reasons)


def _choose_stand_in(
    shares: NDArray[np.float64], min_tissue: float
) -> tuple[NDArray[np.bool_], str]:
    """Return which tile stands for a field of too little tissue, rows x columns, and why."""
    shown = np.zeros(shares.shape, bool)
    if not shares.any():
        shown[shares.shape[0] // 2, shares.shape[1] // 2] = True
        return shown, "no H&E-stained tissue was found: the answer is about the middle alone"
    shown.flat[shares.argmax()] = True
    return shown, (
        f"too little H&E-stained tissue was found, at most {shares.max():.0%} of a tile where "
        f"{min_tissue:.0%} are needed: the answer is about that tile alone"
    )


def resample(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image at another width and height: reduced without aliasing, or enlarged."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    shrinks = size[0] <= width and size[1] <= height
    kernel = REDUCING if shrinks else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize(size, kernel))


def _find_reasons(
    size: tuple[int, int], scale: Scale, trained_mpp: float, trained_um: float
) -> tuple[str, ...]:
    reasons = []
    coarsest = MAX_ENLARGEMENT * trained_mpp
    mpp = max(scale.mpp_x, scale.mpp_y)
    if mpp > coarsest:
        reasons.append(
            f"{mpp:g} micrometres a pixel ({scale.source}) is too coarse, {coarsest:g} is "
            "the limit: give the true scale, or hand in the image at a higher magnification"
        )
    shown = size[0] * scale.mpp_x, size[1] * scale.mpp_y
    if min(shown) < SMALLEST_FIELD * trained_um:
        reasons.append(
            f"the image shows {shown[0]:.0f} x {shown[1]:.0f} micrometres, less than "
            f"three quarters of the {trained_um:g} x {trained_um:g} that the model was trained on: "
            "hand in a larger field"
        )
    return tuple(reasons)


def _fit(
    values: NDArray[Any], axis: int, length: int, mode: Literal["reflect", "constant"] = "reflect"
) -> NDArray[Any]:
    """Return values cut or padded to a length along an axis, alike at either end."""
    missing = length - values.shape[axis]
    if missing > 0:
        around = [(0, 0)] * values.ndim
        around[axis] = missing // 2, missing - missing // 2
        return np.pad(values, around, mode=mode)
    first = -missing // 2
    return values.take(range(first, first + length), axis) if missing else values
