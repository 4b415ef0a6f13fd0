"""``bcd slide``: a whole slide as a map, and how far it has come."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd_models.cli.arguments import Device, Model, Mpp, Point, Suitability, load_model
from bcd_models.cli.output import escape_controls, print_error, print_notice

if TYPE_CHECKING:
    from bcd_models.slides.prediction import SlidePrediction

SECONDS_BETWEEN_LINES = 0.2


def slide(
    slide: Annotated[Path, typer.Argument(help="A whole slide: SVS, NDPI, MRXS, TIFF, DICOM.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for heat map, regions, tiles and summary.")],
    mpp: Mpp = None,
    point: Point = None,
    suitability: Suitability = "refer",
    batch: Annotated[int, typer.Option(min=1, help="Tiles through the model at once.")] = 32,
    device: Device = "auto",
) -> None:
    """Map a whole slide; exit code 1 where some tiles could not be read, 2 where none could."""
    from bcd_models.slides.output import output_paths

    progress = ProgressLine()
    try:
        prediction = load_model(model, device).predict_slide(
            slide,
            out=out,
            mpp=mpp,
            point=point,
            suitability=suitability,
            batch=batch,
            progress=progress,
        )
    finally:
        progress.end()
    for line in _report(prediction, output_paths(prediction, out)):
        typer.echo(escape_controls(line))
    for tile in prediction.failed:
        print_error(f"tile in row {tile.row}, column {tile.column}: {tile.reason}")
    print_notice()
    if prediction.failed:
        tissue = int(prediction.tissue.sum())
        typer.echo(f"{len(prediction.failed)} of {tissue} tiles could not be read", err=True)
        raise typer.Exit(1 if prediction.predicted else 2)


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
        elif now - self._last < SECONDS_BETWEEN_LINES and done < total:
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


def _report(prediction: SlidePrediction, files: list[Path]) -> list[str]:
    """Return the lines that say what was found, and where it is written."""
    from bcd_models.slides.prediction import count_looks

    facts = prediction.facts
    pixel = f"{facts.mpp_x:g} x {facts.mpp_y:g} um a pixel"
    lines = [
        f"{'slide':12} {facts.path.name}: {facts.vendor}, {facts.width:,} x {facts.height:,} "
        f"pixels, {pixel}{' (as handed in)' if facts.mpp_given else ''}",
        f"{'tiles':12} {prediction.predicted:,} of {prediction.grid.tile_um:g} um, read from level "
        f"{prediction.level}{', colours converted to sRGB' if facts.has_profile else ''}",
        f"{'found':12} {prediction.words}",
    ]
    if prediction.missed_words:
        lines.append(f"{'tested':12} {prediction.missed_words}")
    for what, how, tiles in (
        ("left out", "", prediction.unsuitable),
        ("counted", " all the same", prediction.ignored),
    ):
        looks = count_looks(tiles).items()
        for words, count in looks:
            which = "1 tile" if count == 1 else f"{count:,} tiles"
            lines.append(f"{what:12} {which}{how}: {words}")
    return lines + [f"{'written':12} {path}" for path in files]
