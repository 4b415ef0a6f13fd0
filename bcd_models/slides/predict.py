"""From a slide and a model to a SlidePrediction: reading and computing side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bcd_models import __version__
from bcd_models.decision import calibrate, smooth_margins
from bcd_models.errors import InputError
from bcd_models.images.suitability import WORDS, find_unsuitable
from bcd_models.images.white_point import divide_white
from bcd_models.runtime.ahead import ahead
from bcd_models.slides.grid import (
    MIN_SHARPNESS,
    Block,
    Grid,
    choose_level,
    cut_tiles,
    plan_grid,
    read_block,
    split_into_blocks,
)
from bcd_models.slides.journal import Answer, Journal, describe_run, open_journal
from bcd_models.slides.output import output_path, write
from bcd_models.slides.prediction import FailedTile, SlidePrediction, UnsuitableTile
from bcd_models.slides.read_ahead import read_ahead
from bcd_models.slides.slide_file import SlideFacts, SlideReader, read_facts
from bcd_models.slides.tissue import Tissue, find_tissue

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig, SuitabilityConfig
    from bcd_models.slides.model import TileModel

    Progress = Callable[[int, int], None]
    Cell = tuple[int, int]

BATCH_TILES = 32
MAX_BATCHES_IN_MODEL = 2  # one is worked on, one waits
NOTHING_STORED = "the slide holds no pixels here"


@dataclass
class _BlockTiles:
    """A block on its way through the model.

    Attributes:
        block: Its place.
        cells: Row and column of each tile with tissue, failed ones left out.
        tiles: N x side x side x 3, as ``cells``.
        failed: Why tiles failed, by row and column.
        unsuitable: For each of ``cells`` the name of what was found, None where nothing was.
        margins: Those computed so far, in the order of ``cells``.
    """

    block: Block
    cells: list[Cell]
    tiles: NDArray[np.uint8]
    failed: dict[Cell, str]
    unsuitable: list[str | None]
    margins: list[float] = field(default_factory=list)

    @property
    def answers(self) -> list[Answer]:
        """What the journal keeps of each cell."""
        return list(zip(self.margins, self.unsuitable, strict=True))


def predict_slide(
    model: TileModel,
    slide: str | Path,
    *,
    out: str | Path | None = None,
    mpp: float | None = None,
    point: str | None = None,
    white_point: bool = False,
    suitability: SuitabilityConfig | None = None,
    ignore_unsuitable: bool = False,
    batch: int = BATCH_TILES,
    progress: Progress | None = None,
) -> SlidePrediction:
    """Answer for all tissue of a slide, tile by tile.

    A tile is a square as wide as the field that the model's training patches show (about 200
    micrometres), and is shown to the model as they were: reduced to their micrometres a pixel (4,
    so 50 x 50 pixels) by an antialiasing filter, then enlarged by the model's own preprocessing. It
    is read from the coarsest level of at least twice that sharpness, or from the sharpest there is.
    Colours are converted to sRGB where the slide has a profile, as those of patches are. Where the
    model's rule for tiles says so, a tile's answer is averaged with its neighbours'.

    Memory depends on the batch and on how many tiles the grid has, not on the slide's pixels.

    Args:
        model: A classifier, an ensemble, or any other ``TileModel``.
        slide: Path of an SVS, NDPI, MRXS, tiled TIFF or DICOM slide, or what else OpenSlide reads.
        out: Folder for heat map, regions, tiles and summary. What is finished is kept there, so
            that the same call goes on where it was after a kill.
        mpp: Micrometres a level-0 pixel, where the slide doesn't say or is wrong.
        point: Operating point that decides labels and referral; the rule's own by default.
        white_point: Whether the colour of the slide's glass, as its thumbnail shows it, is divided
            out of the tiles; tissue is looked for without it in any case.
        suitability: By what tiles are left out that don't look like H&E-stained tissue in focus;
            None: none is.
        ignore_unsuitable: Whether they are counted as any other, and named in ``ignored``.
        batch: Tiles that go through the model at once.
        progress: Called with how many tiles are done, and how many there are.

    Raises:
        ImageError: The slide can't be used; the message says why.
        InputError: Another run's unfinished work is in ``out``, it can't be written, or the model
            has no such operating point.
    """
    if batch < 1:
        raise InputError(f"a batch of {batch} tiles: it must hold 1 or more")
    rule = model.config.for_tiles.at(point)
    facts = read_facts(Path(slide), mpp)
    grid = plan_grid(facts, model.field_um, model.mpp)
    folder = Path(out) if out is not None else None
    path = output_path(folder, facts.path, model.config.name, ".unfinished") if folder else None
    about = describe_run(facts, grid, model.weights_sha256, __version__)
    about |= {"white_point": True} if white_point else {}
    about |= {"suitability": suitability.model_dump(mode="json")} if suitability else {}
    with open_journal(path, about) as journal:
        tissue = find_tissue(facts, grid)
        white = tissue.white if white_point else None
        prediction = _predict(
            model,
            rule,
            facts,
            grid,
            tissue,
            white,
            suitability,
            ignore_unsuitable,
            journal,
            batch,
            progress,
        )
    if folder and path:
        write(prediction, folder)
        if not prediction.failed:  # or the next run would not try those tiles alone
            path.unlink(missing_ok=True)
    return prediction


def _predict(
    model: TileModel,
    rule: DecisionConfig,
    facts: SlideFacts,
    grid: Grid,
    tissue: Tissue,
    white: NDArray[np.float64] | None,
    suitability: SuitabilityConfig | None,
    ignore_unsuitable: bool,
    journal: Journal,
    batch: int,
    progress: Progress | None,
) -> SlidePrediction:
    level = choose_level(facts, grid.mpp / MIN_SHARPNESS)
    margins = np.full((grid.rows, grid.columns), np.nan)
    failed: dict[Cell, str] = {}
    unsuitable: dict[Cell, str] = {}
    total, done = int(tissue.tiles.sum()), 0
    rest = []

    def note(cells: list[Cell], answers: list[Answer]) -> None:
        for cell, (margin, name) in zip(cells, answers, strict=True):
            if name:
                unsuitable[cell] = name
            if ignore_unsuitable or not name:
                margins[cell] = margin

    for block in split_into_blocks(grid, facts, level, tissue.tiles):
        wanted = tissue.tiles[block.cells]
        known = journal.answers_of(block)
        if known is None or len(known) != wanted.sum():
            rest.append(block)
        else:
            note(_find_cells(block, wanted), known)
            done += len(known)
    if progress:
        progress(done, total)

    def read(reader: SlideReader, block: Block) -> _BlockTiles:
        return _read_tiles(reader, grid, block, level, tissue.tiles, white, suitability)

    for finished in _answer_blocks(model, read_ahead(facts, rest, read), batch):
        note(finished.cells, finished.answers)
        failed |= finished.failed
        if not finished.failed:
            journal.add(finished.block, finished.answers)
        done += len(finished.cells) + len(finished.failed)
        if progress:
            progress(done, total)
    for row, column in np.argwhere(tissue.tiles & np.isnan(margins)).tolist():
        if ignore_unsuitable or (row, column) not in unsuitable:
            failed.setdefault((row, column), "the model gave no number")
    found = tuple(UnsuitableTile(*cell, WORDS[name]) for cell, name in sorted(unsuitable.items()))
    return SlidePrediction(
        facts=facts,
        grid=grid,
        level=level,
        probabilities=calibrate(smooth_margins(margins, rule.context), rule),
        tissue=tissue.tiles,
        failed=tuple(FailedTile(*cell, reason) for cell, reason in sorted(failed.items())),
        unsuitable=() if ignore_unsuitable else found,
        ignored=found if ignore_unsuitable else (),
        thumbnail=tissue.thumbnail,
        rule=rule,
        model=model.config.name,
        model_version=model.config.version,
        weights_sha256=model.weights_sha256,
    )


def _read_tiles(
    reader: SlideReader,
    grid: Grid,
    block: Block,
    level: int,
    wanted: NDArray[np.bool_],
    white: NDArray[np.float64] | None,
    suitability: SuitabilityConfig | None,
) -> _BlockTiles:
    side = grid.tile_pixels
    image, failed = read_block(reader, grid, block, level, side, wanted)
    cells = _find_cells(block, wanted[block.cells])
    tiles = cut_tiles(image, side)[wanted[block.cells]]
    for index in np.flatnonzero((tiles == tiles[:, :1, :1]).all((1, 2, 3))).tolist():
        failed.setdefault(cells[index], NOTHING_STORED)  # tissue is never of one colour
    kept = [index for index, cell in enumerate(cells) if cell not in failed]
    tiles = tiles[kept]
    if white is not None and len(tiles):
        tiles = divide_white(tiles.reshape(-1, side, 3), white).reshape(tiles.shape)
    found = find_unsuitable(tiles, suitability) if suitability else [None] * len(tiles)
    names = [one.name if one else None for one in found]
    return _BlockTiles(block, [cells[index] for index in kept], tiles, failed, names)


def _find_cells(block: Block, wanted: NDArray[np.bool_]) -> list[Cell]:
    """Return row and column, on the slide's grid, of a block's tiles that are wanted."""
    return [
        (block.row + down, block.column + right) for down, right in np.argwhere(wanted).tolist()
    ]


def _answer_blocks(
    model: TileModel, blocks: Iterator[_BlockTiles], batch: int
) -> Iterator[_BlockTiles]:
    """Yield each block once all its tiles have their margin; a batch may span several blocks.

    The next batch is stacked while the model works on one.
    """
    waiting: deque[_BlockTiles] = deque()

    def stream_tiles() -> Iterator[tuple[_BlockTiles, NDArray[np.uint8]]]:
        for block in blocks:
            waiting.append(block)
            yield from ((block, tile) for tile in block.tiles)

    def answer(
        tiles: list[tuple[_BlockTiles, NDArray[np.uint8]]],
    ) -> tuple[list[_BlockTiles], list[float]]:
        margins = model.margins_of(np.stack([tile for _, tile in tiles]))
        return [block for block, _ in tiles], margins.tolist()

    tiles = stream_tiles()
    batches = iter(lambda: list(islice(tiles, batch)), [])
    for owners, margins in ahead(answer, batches, MAX_BATCHES_IN_MODEL):
        for block, margin in zip(owners, margins, strict=True):
            block.margins.append(margin)
        while waiting and len(waiting[0].margins) == len(waiting[0].cells):
            yield waiting.popleft()
    yield from waiting  # those whose tiles have all failed
