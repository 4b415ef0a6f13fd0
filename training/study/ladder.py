"""The robustness ladder of a refit, from what its recipe's fold runs have answered.

python -m training.study.ladder --model RUN/model --corpus CORPUS --run FOLD-RUN --run ...

Each patch was scored by the run that held its case out; calibration and threshold are the model's
own, which clean out-of-fold images have fixed. ``robustness.json`` comes beside the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_models.decision import log_odds
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.models.classifier import BCDClassifier
from training import command
from training.corpus.selection import open_corpus
from training.evaluate import answers, robustness


def climb(model: BCDClassifier, runs: list[Path], corpus: Path) -> robustness.Robustness:
    """Measure recorded answers on each rung, by a model's decision rule.

    Args:
        model: The refit.
        runs: Fold runs of its recipe, with their answers.
        corpus: Their corpus.

    Raises:
        InputError: A run is of another corpus or has no answers, or they hold one label only.
    """
    opened = open_corpus(corpus, model.config.provenance.split)
    pooled = answers.read_folds(runs, opened)
    drawn = pooled[robustness.find_climbed(pooled)]
    if drawn["label"].nunique() < 2:
        raise InputError("the answers on the robustness ladder are of one label: add folds")
    config, decision = model.config, model.config.decision
    climbed = robustness.climb_recorded(
        drawn,
        f"views_{decision.views}",
        decision.slope,
        decision.intercept,
        float(log_odds(decision.threshold)),
    )
    arm = f"{config.backbone}/{config.provenance.recipe.get('arm', 'plain')}"
    return robustness.describe_climb([model], opened, drawn, climbed, arm)


def main(
    model: Annotated[Path, typer.Option(help="Model folder, which gets robustness.json.")],
    corpus: Annotated[Path, typer.Option(help="The runs' corpus.")],
    run: Annotated[list[Path], typer.Option(help="A fold's run, with its recorded answers.")],
) -> None:
    """Measure a refit on the robustness ladder, from its folds' recorded answers."""
    document = climb(BCDClassifier.from_pretrained(model), run, corpus)
    path = model / robustness.FILE
    write_files({path: f"{document.model_dump_json(indent=1)}\n".encode()})
    typer.echo(robustness.tabulate(document), nl=False)


if __name__ == "__main__":
    command.run(main)
