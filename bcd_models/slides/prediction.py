"""SlidePrediction: a model's answers all over a slide, and what they add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bcd_models.decision import Decision
from bcd_models.prediction import MAX_UNSUITABLE, NOTICE, WORDS, describe_missed
from bcd_models.slides.regions import Region, regions_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig
    from bcd_models.slides.grid import Grid
    from bcd_models.slides.slide_file import SlideFacts

TOP_REGIONS = 10
UM2_IN_MM2 = 1e6
REPORTED: tuple[Decision, ...] = ("malignant", "refer")
DECISIONS: tuple[Decision, ...] = (*REPORTED, "benign")


@dataclass(frozen=True)
class FailedTile:
    """A tile with tissue that could not be read; what the model would say of it is not known.

    Attributes:
        row: Of the grid.
        column: Of the grid.
        reason: What the file's decoder said.
    """

    row: int
    column: int
    reason: str


@dataclass(frozen=True)
class UnsuitableTile:
    """A tile that doesn't look like H&E-stained tissue in focus.

    Attributes:
        row: Of the grid.
        column: Of the grid.
        words: What it looks like, such as "out of focus".
    """

    row: int
    column: int
    words: str


@dataclass(frozen=True)
class SlidePrediction:
    """A model's answers all over a slide. Regions of tissue, not cells; never a diagnosis.

    Attributes:
        facts: What the slide says of itself.
        grid: Where the tiles lie.
        level: The slide's level the tiles were read from.
        probabilities: Rows x columns, calibrated P(malignant) from 0 to 1; NaN where there is no
            tissue, where a tile failed and where it is unsuitable.
        tissue: Rows x columns: where tissue was found, failed and unsuitable tiles included.
        failed: The tiles that could not be read.
        thumbnail: RGB, eight pixels a tile.
        rule: The model's decision rule.
        model: The model's name.
        model_version: The model's version.
        weights_sha256: Which weights gave the answers.
        unsuitable: The tiles that were left out of all that is counted.
        ignored: Those that are counted all the same, because the caller asked for it.
    """

    facts: SlideFacts
    grid: Grid
    level: int
    probabilities: NDArray[np.float64]
    tissue: NDArray[np.bool_]
    failed: tuple[FailedTile, ...]
    thumbnail: NDArray[np.uint8]
    rule: DecisionConfig
    model: str
    model_version: str
    weights_sha256: str
    unsuitable: tuple[UnsuitableTile, ...] = ()
    ignored: tuple[UnsuitableTile, ...] = ()

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows x columns: the label is "malignant", whatever the decision."""
        return self.probabilities >= self.rule.threshold  # NaN never is

    @cached_property
    def referred(self) -> NDArray[np.bool_]:
        """Rows x columns: the decision is "refer"."""
        if self.rule.refer is None:
            return np.zeros_like(self.tissue)
        low, high = self.rule.refer
        return (self.probabilities >= low) & (self.probabilities <= high)

    def where(self, decision: Decision) -> NDArray[np.bool_]:
        """Return which tiles have a decision, rows x columns; each predicted tile has just one."""
        if decision == "refer":
            return self.referred
        predicted = ~np.isnan(self.probabilities)
        label = self.labelled if decision == "malignant" else ~self.labelled
        return predicted & label & ~self.referred

    def tiles(self, decision: Decision) -> int:
        """Count the tiles with a decision."""
        return int(self.where(decision).sum())

    @property
    def predicted(self) -> int:
        """How many tiles the model answered for."""
        return int((~np.isnan(self.probabilities)).sum())

    @property
    def share(self) -> float | None:
        """The share of predicted tiles that are labelled malignant, 0 to 1; None: none predicted.

        As that of a ``Prediction``, whatever their decision.
        """
        return int(self.labelled.sum()) / self.predicted if self.predicted else None

    def area_mm2(self, tiles: int) -> float:
        """Return the area of so many tiles in square millimetres."""
        return tiles * self.grid.tile_um**2 / UM2_IN_MM2

    def regions(self, decision: Decision) -> list[Region]:
        """Return connected regions of tiles with a decision, the largest first."""
        return regions_of(self.where(decision))

    @property
    def words(self) -> str:
        """What was found, in words for people; never a diagnosis."""
        tissue = f"{self.area_mm2(self.predicted):.2f} mm2 of tissue"
        if self.grid.is_enlarged:
            tissue += f", enlarged from {max(self.facts.mpp_x, self.facts.mpp_y):g} um a pixel"
        if not self.tissue.any():
            return "no tissue found: nothing was looked at"
        if not self.predicted:
            why = "is suitable" if self.unsuitable else "could be read"
            return f"no tile of the tissue found {why}: nothing was looked at"
        shares = [
            f"{WORDS[decision]} in {100 * tiles / self.predicted:.1f}%"
            for decision in REPORTED
            if (tiles := self.tiles(decision))
        ]
        found = " and ".join(shares)
        words = f"{found} of {tissue}" if shares else f"{WORDS['benign']} in {tissue}"
        left_out, all_tiles = len(self.unsuitable), int(self.tissue.sum())
        if left_out > MAX_UNSUITABLE * all_tiles:
            words += f"; {left_out:,} of {all_tiles:,} tiles look unsuitable and are left out"
        return words

    @property
    def point(self) -> str:
        """The operating point that decided; "": none of the model's."""
        return self.rule.own_point

    @property
    def missed_words(self) -> str:
        """What stands under a negative answer, as of a ``Prediction``; "": nothing is known."""
        missed = self.rule.points[self.point].missed_of_100 if self.point else None
        if not self.predicted or any(map(self.tiles, REPORTED)) or missed is None:
            return ""
        return describe_missed(self.point, missed)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the tiles, with the research-use notice, ready for JSON."""
        facts, grid = self.facts, self.grid
        return {
            "words": self.words,
            "notice": NOTICE,
            "slide": {
                "name": facts.path.name,
                "vendor": facts.vendor,
                "width": facts.width,
                "height": facts.height,
                "mpp_x": facts.mpp_x,
                "mpp_y": facts.mpp_y,
                "mpp_from": "handed in" if facts.mpp_given else "slide",
                "colours": "converted to sRGB" if facts.has_profile else "as stored",
                "bounds": list(facts.bounds),
                "levels": [list(level) for level in facts.levels],
                "level_read": self.level,
                "bytes": facts.bytes,
                "quickhash": facts.quickhash,
            },
            "model": {
                "name": self.model,
                "version": self.model_version,
                "weights_sha256": self.weights_sha256,
                "point": self.point,
                "threshold": self.rule.threshold,
                "refer": self.rule.refer,
            },
            "tiles": {
                "side_um": grid.tile_um,
                "mpp": grid.mpp,
                "enlarged": grid.is_enlarged,
                "rows": grid.rows,
                "columns": grid.columns,
                "tissue": int(self.tissue.sum()),
                "predicted": self.predicted,
                "share": self.share,
                "failed": len(self.failed),
                "unsuitable": count_looks(self.unsuitable),
                "ignored": count_looks(self.ignored),
            },
            "tissue": {
                "share_of_slide": float(self.tissue.mean()),
                "area_mm2": self.area_mm2(int(self.tissue.sum())),
                "predicted_area_mm2": self.area_mm2(self.predicted),
            },
            "decisions": {
                decision: {
                    "words": WORDS[decision],
                    "tiles": tiles,
                    "share_of_predicted": tiles / self.predicted if self.predicted else None,
                    "area_mm2": self.area_mm2(tiles),
                }
                for decision in DECISIONS
                for tiles in (self.tiles(decision),)
            },
            "top_regions": [
                self.describe(region) for region in self.regions("malignant")[:TOP_REGIONS]
            ],
            "failed": [{"row": t.row, "column": t.column, "reason": t.reason} for t in self.failed],
        }

    def describe(self, region: Region) -> dict[str, Any]:
        """Return a region's size, probabilities and place in level-0 pixels."""
        top, left, bottom, right = region.box
        x, y, *_ = self.grid.edges(top, left)
        *_, x_end, y_end = self.grid.edges(bottom, right)
        values = self.probabilities[region.cells[:, 0], region.cells[:, 1]]
        return {
            "tiles": len(values),
            "area_mm2": self.area_mm2(len(values)),
            "mean_probability": float(values.mean()),
            "highest_probability": float(values.max()),
            "x": x,
            "y": y,
            "width": x_end - x,
            "height": y_end - y,
        }


def count_looks(tiles: Sequence[UnsuitableTile]) -> dict[str, int]:
    """Return how many tiles look how, the most frequent first."""
    return dict(Counter(tile.words for tile in tiles).most_common())
