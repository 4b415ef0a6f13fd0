"""Connected regions of a grid, and their outlines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Corner = tuple[int, int]  # column, row; of the grid's lines, not its tiles
Ring = list[Corner]


@dataclass(frozen=True)
class Region:
    """Tiles that touch along their sides.

    Attributes:
        cells: N x 2, row and column of each tile.
    """

    cells: NDArray[np.intp]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """First row and column, and last row and column."""
        low, high = self.cells.min(0), self.cells.max(0)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def regions_of(mask: NDArray[np.bool_]) -> list[Region]:
    """Return the connected regions of a rows x columns mask, the largest first."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    cells = ndimage.value_indices(labels, ignore_value=0)
    regions = [Region(np.transpose(places)) for places in cells.values()]
    return sorted(regions, key=lambda region: (-len(region.cells), *region.box))


def outline(region: Region) -> list[Ring]:
    """Return a region's outer ring, then the rings of its holes.

    Rings are closed (the last corner is the first), have no corner on a straight line, and touch
    one another, if at all, in single corners. Seen with rows growing upwards, the outer one runs
    anticlockwise and holes clockwise, as RFC 7946 has it.
    """
    import shapely
    from shapely.geometry.polygon import orient

    rows, columns = region.cells.T
    tiles = shapely.box(columns, rows, columns + 1, rows + 1)
    # A ring keeps its first corner, whatever line it stands on: normalised, that is a true corner.
    polygon = orient(shapely.coverage_union_all(tiles).normalize().simplify(0))
    return [
        [(int(column), int(row)) for column, row in ring.coords]
        for ring in (polygon.exterior, *polygon.interiors)
    ]
