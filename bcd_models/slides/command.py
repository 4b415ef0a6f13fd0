"""What ``bcd slide`` prints."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bcd_models.slides.prediction import SlidePrediction

EVERY = 0.2  # seconds between two progress lines


class ProgressLine:
    """One line on stderr that is written over and over; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._last = self._started = time.monotonic()
        self._before: int | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show how many tiles are done."""
        now = time.monotonic()
        if self._before is None:  # what an earlier run did says nothing of this one's pace
            self._before, self._started = done, now
        elif now - self._last < EVERY and done < total:
            return
        self._last = now
        if self._shown:
            share = done / total if total else 1
            pace = (done - self._before) / (now - self._started) if now > self._started else 0
            sys.stderr.write(
                f"\rpredicting {done:,} of {total:,} tiles, {share:4.0%}, {pace:.0f}/s "
            )
            sys.stderr.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._shown and self._before is not None:
            sys.stderr.write("\n")


def report(prediction: SlidePrediction, files: list[Path]) -> list[str]:
    """The lines that tell people what was found, and where it is written."""
    facts = prediction.facts
    pixel = f"{facts.mpp_x:g} x {facts.mpp_y:g} um a pixel"
    lines = [
        f"{'slide':12} {facts.path.name}: {facts.vendor}, {facts.width:,} x {facts.height:,} "
        f"pixels, {pixel}{' (as handed in)' if facts.mpp_given else ''}",
        f"{'tiles':12} {prediction.predicted:,} of {prediction.grid.tile_um:g} um, read from level "
        f"{prediction.level}",
        f"{'found':12} {prediction.words}",
    ]
    return lines + [f"{'written':12} {path}" for path in files]
