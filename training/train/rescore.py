"""Predict a run's held-out rows again, averaged over an image's turns and reflections.

python -m training.train.rescore RUN --views 8 --arm "eight views" --corpus CORPUS --out OTHER_RUN

The weights stay as they are; what it brings, and costs, is in the prediction alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from bcd_models.errors import InputError
from bcd_models.models.classifier import BCDClassifier
from training import command, run_folder
from training.corpus.selection import open_data
from training.recipes import schema as recipe
from training.run_folder import MODEL
from training.train import checkpoint, engine
from training.train import run as train


def rescore(run: Path, plan: recipe.Recipe, corpus: Path, out: Path) -> Path:
    """Write a run of the same weights and another recipe; returns the model folder.

    Raises:
        InputError: The run was not finished, or is of another corpus.
    """
    model = BCDClassifier.from_pretrained(run / MODEL)
    described = model.config.provenance
    provenance = described.model_copy(update={"recipe": plan.as_trained()})
    data = open_data(corpus, plan, described.held_out)
    with run_folder.hold(out, plan, provenance, engine.find_processes()):
        shutil.copy(run / checkpoint.EPOCHS, out)
        config = model.config.model_copy(update={"provenance": provenance})
        train.save(config, model.network, data.held_out, (), out)
    return out / MODEL


def main(
    run: Annotated[Path, typer.Argument(help="A finished run that held something out.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="Folder of the new run.")],
    arm: Annotated[str, typer.Option(help="What comparisons call it.")],
    views: Annotated[int, typer.Option(help="Turns and reflections averaged: 1 or 8.")] = 8,
) -> None:
    """Predict a run's held-out rows again with other views."""
    if views not in (1, 8):
        raise InputError(f"views can't be {views}: choose 1 or 8")
    document = recipe.read(run / run_folder.RECIPE).model_dump(mode="json", exclude_unset=True)
    plan = recipe.Recipe.model_validate(document | {"arm": arm, "views": views})
    command.keep_freed_memory()
    typer.echo(f"model: {rescore(run, plan, corpus, out)}")


if __name__ == "__main__":
    command.run(main)
