"""Connected regions of a grid, and their outlines."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
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
    """Connected regions of a rows x columns mask, the largest first."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    regions = []
    while left:
        found = [left.pop()]
        for row, column in found:
            for beside in (
                (row - 1, column),
                (row, column - 1),
                (row, column + 1),
                (row + 1, column),
            ):
                if beside in left:
                    left.remove(beside)
                    found.append(beside)
        regions.append(Region(np.array(sorted(found))))
    return sorted(regions, key=lambda region: (-len(region.cells), *region.box))


def outline(region: Region) -> list[Ring]:
    """A region's outer ring, then the rings of its holes.

    Rings are closed (the last corner is the first), have no corner on a straight line, and touch
    one another, if at all, in single corners. Seen with rows growing upwards, the outer one runs
    anticlockwise and holes clockwise, as RFC 7946 has it.
    """
    cells = set(map(tuple, region.cells.tolist()))
    leaving: dict[Corner, list[Corner]] = defaultdict(list)
    for row, column in cells:
        west, north, east, south = column, row, column + 1, row + 1
        sides = (
            ((row - 1, column), (west, north), (east, north)),
            ((row, column + 1), (east, north), (east, south)),
            ((row + 1, column), (east, south), (west, south)),
            ((row, column - 1), (west, south), (west, north)),
        )
        for beside, start, end in sides:
            if beside not in cells:
                leaving[start].append(end)
    rings = []
    while leaving:
        rings.append(_follow(leaving))
    return sorted(rings, key=_doubled_area, reverse=True)


def _follow(leaving: dict[Corner, list[Corner]]) -> Ring:
    """Take one ring's sides out of all.

    The leftmost corner, where it starts, is passed once: of two tiles that touch in a corner, the
    one to the left has corners further left.
    """
    start = before = here = min(leaving)
    ring = [start]
    while len(ring) == 1 or here != start:
        ahead = leaving[here]
        there = ahead[0] if len(ahead) == 1 else _across(before, here)
        ahead.remove(there)
        if not ahead:
            del leaving[here]
        before, here = here, there
        ring.append(here)
    return _without_straights(ring)


def _across(before: Corner, here: Corner) -> Corner:
    """Where two tiles touch in a corner, go on along the other, so that no ring touches itself."""
    step = here[0] - before[0], here[1] - before[1]
    return here[0] + step[1], here[1] - step[0]


def _without_straights(ring: Ring) -> Ring:
    around = [ring[-2], *ring]
    kept = [
        here
        for before, here, after in zip(around, ring, ring[1:], strict=False)
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1])
    ]
    return [*kept, kept[0]]


def _doubled_area(ring: Ring) -> int:
    return sum(x * v - u * y for (x, y), (u, v) in pairwise(ring))
