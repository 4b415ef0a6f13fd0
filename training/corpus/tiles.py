"""From an image at its own scale to rows of a corpus: tiles of the field IDC's patches show."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bcd_models.errors import ImageError
from bcd_models.images.field import MAX_ENLARGEMENT, SMALLEST_FIELD, cut_field, plan_layout
from bcd_models.images.scale import Scale

ROW_MPP, ROW_UM = 4.0, 200.0  # micrometres a pixel and across of every row: those of IDC's patches
COARSEST_MPP = MAX_ENLARGEMENT * ROW_MPP
MIN_TISSUE = 0.5  # of a tile's area: what is mostly glass or fat shows little of a field's label
TILE_NAME = re.compile(r"#r\d+c\d+$")  # that follows the image's own
UNKNOWN_SCALE = (
    "scale unknown, and not about 50x50 pixels: state micrometres a pixel, which the scanner's or "
    "camera's software calls pixel size or calibration"
)
TOO_COARSE = f"more than {COARSEST_MPP:g} micrometres a pixel: take it at a higher magnification"
TOO_SMALL = f"shows less than {SMALLEST_FIELD:.0%} of {ROW_UM:g} micrometres, the side of a row"
BLANK = f"no tile with {MIN_TISSUE:.0%} of tissue"


@dataclass(frozen=True)
class Tile:
    """One row's pixels, and where in the image they lie.

    Attributes:
        row: Of the image's grid of tiles, from 0 at the top.
        column: Of that grid, from 0 at the left.
        pixels: 50 x 50 x 3, uint8, 4 micrometres a pixel.
    """

    row: int
    column: int
    pixels: NDArray[np.uint8]

    def name_in(self, image: str) -> str:
        """Name the tile by the image that it is of: ``a.png#r0c1``."""
        return f"{image}#r{self.row}c{self.column}"


def cut_rows(image: Image.Image, scale: Scale | None) -> list[Tile]:
    """Cut an image into the tiles that a model would be shown of it, where half is tissue.

    An image of one tile is that tile, whatever it shows. One of 40 to 60 pixels a side and without
    a scale is taken as being at the rows' scale.

    Raises:
        ImageError: It gives no tile; the message is the same for all images of a kind.
    """
    layout = plan_layout(image.size, scale, ROW_MPP, ROW_UM)
    if layout.scale is None:
        raise ImageError(UNKNOWN_SCALE)
    if layout.reasons:
        coarsest = max(layout.scale.mpp_x, layout.scale.mpp_y)
        raise ImageError(TOO_COARSE if coarsest > COARSEST_MPP else TOO_SMALL)
    field = cut_field(np.asarray(image), layout, min_tissue=MIN_TISSUE)
    if not field.has_tissue:
        raise ImageError(BLANK)
    places = np.argwhere(field.shown).tolist()
    found = zip(places, field.tiles, strict=True)
    return [Tile(row, column, pixels) for (row, column), pixels in found]
