"""Teachers for a training: what models say of its rows that have not learnt from their cases.

python -m training.train.teach --config RECIPE --corpus CORPUS --out TEACHERS [--fold K]

The rows that ``training.train`` would learn from are learnt from by folds: one network a fold, by
the same recipe without teachers, and colour statistics alone; each calibrated, their mean is what
``training.train --teacher TEACHERS`` hears of a row. Whatever that run holds out, no teacher has
seen, so its figures stay those of unseen cases.
"""

from __future__ import annotations

import os
import shutil
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bcd_models.config import HeldOut
from bcd_models.decision import calibrate, log_odds
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from training import command, run_folder
from training.corpus import predictions
from training.corpus.pixels import Rows
from training.corpus.selection import open_data
from training.evaluate import floors, scoring
from training.recipes import schema as recipe
from training.run_folder import PREDICTIONS
from training.train import engine
from training.train.run import build_network, build_provenance, fit_decision_rule


def teach(
    config: Path, corpus: Path, out: Path, start: Path | None = None, held: HeldOut = HeldOut()
) -> Path:
    """Write what teachers say of the rows that a run would learn from; returns the file.

    Rows of no fold, which are only ever trained on, get no teacher.

    Args:
        config: The run's recipe.
        corpus: As written by ``training.corpus``.
        out: Folder of the predictions; a training cut off goes on from its checkpoint there.
        start: Start weights.
        held: What the run holds out.

    Raises:
        InputError: The rows lie in fewer than two folds, or the folder was begun with something
            else.
    """
    plan = recipe.read(config).model_copy(update={"teachers": 0.0})
    data = open_data(corpus, plan, held)
    known, fold = data.training, data.training.frame["fold"].to_numpy()
    if len(np.unique(fold[fold >= 0])) < 2:
        raise InputError("what is learnt from lies in fewer than two folds: no teachers")
    _, _, sha256 = build_network(plan, start)
    provenance = build_provenance(plan, data, held, (start, sha256), ())
    with run_folder.hold(out, plan, provenance, engine.find_processes()):
        margins = _predict_by_networks(known, fold, plan, start, out)
        placed = fold >= 0
        colour = log_odds(floors.predict_across_folds(known, fold)[placed])
        frame = known.frame[placed].reset_index(drop=True)
        both = [calibrate(m, fit_decision_rule(frame, m, plan)) for m in (margins[placed], colour)]
        mean = np.mean(both, axis=0)
        predictions.write(frame, log_odds(mean), mean, out / PREDICTIONS)
    return out / PREDICTIONS


def _predict_by_networks(
    known: Rows,
    fold: NDArray[np.int64],
    plan: recipe.Recipe,
    start: Path | None,
    out: Path,
) -> NDArray[np.float64]:
    """Return margins of each fold by a network trained on all other rows; NaN for no fold's."""
    margins = np.full(len(fold), np.nan)
    for asked in np.unique(fold[fold >= 0]):
        kept = out / f"fold-{asked}.npy"
        if not kept.exists():
            network, preprocess, _ = build_network(plan, start)
            inside = out / f"fold-{asked}"
            inside.mkdir(exist_ok=True)
            learnt = known.where(fold != asked)
            network = engine.fit(network, plan, preprocess, learnt, None, inside)
            answers = scoring.score(
                network, known.where(fold == asked), preprocess, views=plan.views
            )
            data = BytesIO()
            np.save(data, answers)
            write_files({kept: data.getvalue()})
            shutil.rmtree(inside)
        margins[fold == asked] = np.load(kept)
    return margins


def main(
    config: Annotated[Path, typer.Option(help="Recipe of the run to teach.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions.parquet.")],
    start: Annotated[Path | None, typer.Option(help="Start weights, safetensors.")] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, max=4, help="The fold that the run holds out.")
    ] = None,
    leave_out: Annotated[str | None, typer.Option(help="The case that it holds out.")] = None,
    hold_nothing: Annotated[bool, typer.Option(help="The run holds nothing out.")] = False,
) -> None:
    """Make teachers for a run."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("teachers are made by one process: start it without accelerate launch")
    if (fold is not None) + bool(leave_out) + hold_nothing > 1:
        raise InputError("choose one of --fold, --leave-out and --hold-nothing")
    command.keep_freed_memory()
    held = HeldOut(fold=fold, case=leave_out, nothing=hold_nothing)
    path = teach(config, corpus, out, start, held)
    typer.echo(f"teachers: {path}")


if __name__ == "__main__":
    command.run(main)
