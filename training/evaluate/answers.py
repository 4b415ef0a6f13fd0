"""Record what a finished run says of the rows of its corpus, in every way that a study asks for.

python -m training.evaluate.answers RUN --corpus CORPUS

``RUN/answers.parquet`` has a line a row of the corpus, in its order, and a column of margins a way
of asking; null where it was not asked. What needs weights is asked here once, so that everything
after it needs none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray

from bcd_models.config import HeldOut
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.local.degradations import Pixels, zoom
from bcd_models.local.ladder import LADDER
from bcd_models.local.robustness import degrade
from bcd_models.models.classifier import BCDClassifier
from training import command
from training.corpus.pixels import select_rows
from training.corpus.selection import Corpus, check_corpus, find_unlearnt_rows, open_corpus
from training.evaluate import robustness, scoring
from training.recipes import schema as recipe
from training.run_folder import MODEL, read_provenance

ANSWERS = "answers.parquet"
VIEWS = (1, 4, 8)
FIELDS = (0.8, 1.25)  # shares of the field that is shown
SIZES = (128, 160)  # pixels a side of the input, or what of them is whole cells of a backbone's


def record(model: BCDClassifier, opened: Corpus) -> pd.DataFrame:
    """Return the margins of the rows of a corpus that a fold model, or a refit, was trained on.

    Columns: ``views_1``, ``views_4`` and ``views_8`` of what was held out, and ``field_0.8``,
    ``field_1.25``, ``size_128`` and ``size_160`` of the same with one view; a column a rung of the
    robustness ladder's patches among these, with the views that the recipe asks for; ``other`` of
    all rows besides, with one view: those learnt from, which students are taught by, and all of a
    source that the recipe leaves out. No other row of the test part is read.

    Raises:
        InputError: It was trained on another corpus or split.
    """
    provenance = model.config.provenance
    check_corpus(provenance, opened)
    plan = recipe.parse(provenance.recipe, f"{model.config.name}'s recipe")
    held = provenance.held_out
    is_held_out = find_unlearnt_rows(opened, held) & (not held.nothing)
    is_usable = (opened.split.part != "test").to_numpy()
    if plan.sources:
        is_usable = is_usable | ~opened.table["source"].isin(plan.sources).to_numpy()
    of_fold, others = np.flatnonzero(is_held_out), np.flatnonzero(is_usable & ~is_held_out)
    answers = pd.DataFrame(index=pd.RangeIndex(len(opened.table), name="row"))
    margins = scoring.score_patches(model, read_patches(opened, others), views=1)
    coarse = {"other": pd.Series(margins, others)}
    if len(of_fold):
        for views in VIEWS:  # read anew each time: whole images of a fold would fill the memory
            patches = read_patches(opened, of_fold)
            answers.loc[of_fold, f"views_{views}"] = scoring.score_patches(model, patches, views)
        coarse |= _climb(model, opened, held, of_fold, plan.views)
        for share in FIELDS:
            zoomed = (zoom(patch, 1 / share) for patch in read_patches(opened, of_fold))
            margins = scoring.score_patches(model, zoomed, views=1)
            coarse[f"field_{share:g}"] = pd.Series(margins, of_fold)
        cell = model.backbone.cell_pixels  # of which a transformer takes whole ones alone
        held_out = select_rows(opened.rows, opened.table, of_fold, max(SIZES))
        for size in SIZES:  # last: from here on the network answers, not its export
            margins = scoring.score(
                model.network, held_out, model.config.preprocess, size - size % cell
            )
            coarse[f"size_{size}"] = pd.Series(margins, of_fold)
    return answers.astype(np.float32).join(pd.DataFrame(coarse).astype(np.float16))


def _climb(
    model: BCDClassifier, opened: Corpus, held: HeldOut, rows: NDArray[np.int64], views: int
) -> dict[str, pd.Series]:
    """Return the margins of the ladder's patches among some rows, by rung."""
    drawn = robustness.draw_rows(opened, held).index.intersection(rows).to_numpy()
    patches = list(read_patches(opened, drawn))
    margins = {}
    for rung in LADDER:
        degraded = degrade(rung, patches, drawn)
        margins[rung.name] = pd.Series(scoring.score_patches(model, degraded, views), drawn)
    return margins


def read_patches(opened: Corpus, rows: Iterable[int]) -> Iterator[Pixels]:
    """Yield the pixels of some rows of a corpus."""
    for image in opened.rows.select(rows)["image"]:
        yield np.asarray(image.convert("RGB"))


def read(run: Path) -> pd.DataFrame:
    """Read a run's answers; InputError where there are none."""
    try:
        return pd.read_parquet(run / ANSWERS)
    except (OSError, ValueError) as error:
        raise InputError(f"{run / ANSWERS} can't be read: {error}") from None


def read_folds(runs: Iterable[Path], opened: Corpus) -> pd.DataFrame:
    """Read the rows that fold runs held out: the corpus' columns, ``row``, and the answers'.

    Raises:
        InputError: A run is of another corpus, or has no answers.
    """
    table = opened.table.assign(row=opened.table.index)
    parts = []
    for run in runs:
        provenance = read_provenance(run)
        check_corpus(provenance, opened)
        held_out = find_unlearnt_rows(opened, provenance.held_out)
        parts.append(table[held_out].join(read(run)[held_out].astype(np.float64)))
    return pd.concat(parts).sort_index()


def main(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
) -> None:
    """Record what a run says of the rows of its corpus."""
    command.keep_freed_memory()
    model = BCDClassifier.from_pretrained(run / MODEL)
    answers = record(model, open_corpus(corpus, model.config.provenance.split))
    data = answers.to_parquet(compression="zstd", use_dictionary=False, use_byte_stream_split=True)
    write_files({run / ANSWERS: bytes(data)})
    typer.echo(f"{run / ANSWERS}: {answers.shape[1]} ways")


if __name__ == "__main__":
    command.run(main)
