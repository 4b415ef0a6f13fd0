"""What storage costs a slide: whole cases of the corpus, stored as scanners store slides.

python -m training.study.slides --model RUN/model --corpus CORPUS --run FOLD-RUN --out SLIDES.json

Each case of which nearly every patch is there is put together on the grid of its patches' names,
enlarged and written as slides that differ in their storage. Each slide is mapped by the fold model
that held the case out, with the model's own rule for tiles and without its gate, and its tiles'
labels are compared with the patches'.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from tqdm import tqdm

from bcd_models.config import Strict, first_error
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.hub.atomic import write_files
from bcd_models.models.classifier import BCDClassifier
from bcd_models.prediction import NOTICE
from training import command
from training.compare.rows import select_source
from training.compare.ways import find_whole_cases, lay_out
from training.corpus import splits
from training.corpus.selection import Corpus, open_corpus
from training.evaluate import answers
from training.run_folder import MODEL, read_provenance
from training.study.pyramid import write_slide
from training.study.scanners import write_dicom, write_svs

FILE = "slides.json"
ENLARGEMENT = 4  # that a patch is enlarged: 1 micrometre a pixel
GLASS = 243
LEVELS = ((1,), (1, 4), (1, 4, 16))
JPEGS = (None, *((quality, chroma) for quality in (90, 70) for chroma in ("4:4:4", "4:2:0")))
# Writes a slide into a folder: level 0, its micrometres a pixel, how much each level is reduced.
Write = Callable[[Path, NDArray[np.uint8], float, Sequence[int]], Path]
BEGIN, END = "<!-- whole cases: written by training.study -->", "<!-- end -->"


class Tiles(Strict):
    """A case's tiles: with carcinoma and those of them found, without and those called so."""

    malignant: int
    found: int
    benign: int
    spared: int


class Stored(Strict):
    """One way to store slides, and what was found in each case, in the order of ``cases``."""

    words: str
    levels: tuple[int, ...]
    tiles: tuple[Tiles, ...]


class WholeCase(Strict):
    """A case, and the weights of the fold model that mapped it."""

    case: str
    weights_sha256: str


class Slides(Strict):
    """A ``slides.json``.

    Attributes:
        name: Of the model whose rule for tiles it was.
        weights_sha256: Of that model.
        cases: The whole cases; none where the corpus has none.
        stored: The ways to store them, the one that others are compared with first.
        notice: For research use only.
    """

    schema_version: Literal[1] = 1
    name: str
    weights_sha256: str
    cases: tuple[WholeCase, ...]
    stored: tuple[Stored, ...]
    notice: str = NOTICE


def measure(model: BCDClassifier, runs: list[Path], corpus: Path) -> Slides:
    """Map whole cases, stored in turn as scanners store slides.

    Args:
        model: Whose rule for tiles is applied.
        runs: Fold runs of its recipe, with their answers and their weights.
        corpus: Their corpus.

    Raises:
        InputError: A run is of another corpus, or lacks its answers or its weights.
    """
    opened = open_corpus(corpus, model.config.provenance.split)
    pooled = answers.read_folds(runs, opened)
    of_fold = {read_provenance(run).held_out.fold: run for run in runs}
    cases = list(find_whole_cases(select_source(pooled, splits.find_larger_source(opened.table))))
    judges = [_load_judge(of_fold[own["fold"].iloc[0]], model) for _, own in cases]
    ways = list(list_ways())
    counts: list[list[Tiles]] = [[] for _ in ways]
    for (_, own), judge in zip(tqdm(cases, "whole cases", disable=None), judges, strict=True):
        places = lay_out(own)[1]
        image = _assemble(opened, own["row"].tolist(), places)
        truth = (own["label"] == "malignant").to_numpy()
        for (_, levels, write), found in zip(ways, counts, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                slide = write(Path(folder), image, judge.mpp / ENLARGEMENT, levels)
                called = judge.predict_slide(slide).labelled[places]
            found.append(
                Tiles(
                    malignant=int(truth.sum()),
                    found=int((truth & called).sum()),
                    benign=int((~truth).sum()),
                    spared=int((~truth & ~called).sum()),
                )
            )
    return Slides(
        name=model.config.name,
        weights_sha256=model.weights_sha256,
        cases=tuple(
            WholeCase(case=case, weights_sha256=judge.weights_sha256)
            for (case, _), judge in zip(cases, judges, strict=True)
        ),
        stored=tuple(
            Stored(words=words, levels=levels, tiles=tuple(found))
            for (words, levels, _), found in zip(ways, counts, strict=True)
        ),
    )


def _load_judge(run: Path, model: BCDClassifier) -> BCDClassifier:
    """Load a fold's model, with another's rules."""
    if not (run / MODEL / model_folder.WEIGHTS).is_file():
        raise InputError(
            f"{run} has no weights, and slides are mapped by them: it comes from records. Delete "
            "the folder and train it again, without --records"
        )
    judge, config = BCDClassifier.from_pretrained(run / MODEL), model.config
    rules = {"decision": config.decision, "tile_decision": config.tile_decision}
    judge.config = judge.config.model_copy(update=rules)
    return judge


def _assemble(
    opened: Corpus, rows: list[int], places: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.uint8]:
    """Put a case together from its patches, on glass, and enlarge it."""
    patches = list(answers.read_patches(opened, rows))
    side, (down, across) = len(patches[0]), (int(axis.max()) + 1 for axis in places)
    picture = np.full((down * side, across * side, 3), GLASS, np.uint8)
    for patch, row, column in zip(patches, *places, strict=True):
        picture[row * side :, column * side :][:side, :side] = patch
    size = picture.shape[1] * ENLARGEMENT, picture.shape[0] * ENLARGEMENT
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def list_ways() -> Iterator[tuple[str, tuple[int, ...], Write]]:
    """Yield the ways to store a slide: in words, its levels, and what writes it."""
    for levels in LEVELS:
        for jpeg in JPEGS:
            words = f"JPEG {jpeg[0]}, {jpeg[1]}" if jpeg else "lossless"
            yield f"TIFF, {words}", levels, partial(_write_tiff, jpeg)
    yield "SVS-like, JPEG 70, 4:4:4", LEVELS[-1], _write_svs
    yield "DICOM, lossless", LEVELS[-1], lambda folder, *of: write_dicom(folder / "series", *of)


def _write_tiff(
    jpeg: tuple[int, str] | None,
    folder: Path,
    image: NDArray[np.uint8],
    mpp: float,
    levels: Sequence[int],
) -> Path:
    return write_slide(folder / "slide.tif", image, mpp, levels, jpeg=jpeg)


def _write_svs(folder: Path, image: NDArray[np.uint8], mpp: float, levels: Sequence[int]) -> Path:
    return write_svs(folder / "slide.svs", image, mpp, levels, quality=70)


def tabulate(document: Slides) -> str:
    """Return the table in Markdown."""
    if not document.cases:
        return "Not measured: the corpus holds no case of which nearly every patch is there."
    first = document.stored[0].tiles
    malignant, benign = sum(one.malignant for one in first), sum(one.benign for one in first)
    names = ", ".join(one.case.partition("/")[2] for one in document.cases)
    lines = [
        f"{len(first)} cases ({names}), {malignant:,} tiles with carcinoma and {benign:,} without; "
        f"{document.name}'s recipe, each case mapped by the model of a fold that held it out.",
        "",
        "| stored as | levels | recall | specificity | recall by case |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in document.stored:
        recall = sum(tiles.found for tiles in one.tiles) / malignant
        specificity = sum(tiles.spared for tiles in one.tiles) / benign
        by_case = ", ".join(f"{tiles.found / tiles.malignant:.2f}" for tiles in one.tiles)
        levels = ", ".join(map(str, one.levels))
        lines.append(f"| {one.words} | {levels} | {recall:.3f} | {specificity:.3f} | {by_case} |")
    return "\n".join(lines)


def read(path: Path) -> Slides:
    """Read a ``slides.json``; InputError names the key and what is wrong with it."""
    try:
        return Slides.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = first_error(error) if isinstance(error, ValidationError) else error
        raise InputError(f"{path} is none of training.study.slides: {why}") from None


def main(
    model: Annotated[Path, typer.Option(help="Model folder, whose rule for tiles is applied.")],
    corpus: Annotated[Path, typer.Option(help="The runs' corpus.")],
    run: Annotated[list[Path], typer.Option(help="A fold's run, with answers and weights.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
) -> None:
    """Measure what storage costs slides, on whole cases of the corpus."""
    document = measure(BCDClassifier.from_pretrained(model), run, corpus)
    write_files({out: f"{document.model_dump_json(indent=1)}\n".encode()})
    typer.echo(tabulate(document))


if __name__ == "__main__":
    command.run(main)
