"""Look for better numbers of a recipe with Optuna.

python -m training.tune --config training/recipes/NAME.yaml --corpus CORPUS --out STUDY --trials N

A trial trains once a fold, at low resolution. Its value is the mean over the folds of the AUROC
within the larger source, on what is held out as it is and, where the recipe degrades, on the same
degraded as the untuned recipe says; test is never read. Run the command again to go on, or several
times at once, on one machine or more, to share a study: each names the same ``--storage``, a
database's URL, and a study folder of the same name.

The best trial's numbers are written as a recipe. The best of many noisy values flatters: whether
the recipe is any better is for ``training.study`` to find, at full length and on all folds.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import optuna
import typer
import yaml
from filelock import FileLock

from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from training import command
from training.recipes import schema as recipe
from training.tune import page
from training.tune.plots import complete_trials
from training.tune.space import apply_parameters, read_parameters
from training.tune.storage import explain_failures, open_storage, sqlite_url
from training.tune.trials import TRIALS, Bench, open_study, prepare_bench, run_trials

BEST = "tuned.yaml"
ARM = "tuned"


def write_recipe(chosen: recipe.Recipe, note: str, path: Path) -> Path:
    """Put a recipe to train by in place, whole."""
    document = chosen.model_dump(mode="json", exclude_unset=True)
    write_files({path: f"# {note}\n{yaml.safe_dump(document, sort_keys=False)}".encode()})
    return path


def _conclude(study: optuna.Study, bench: Bench) -> None:
    """Write the pages and the best trial's recipe."""
    plan = bench.plan
    complete = sorted(complete_trials(study), key=lambda t: (-(t.value or 0), t.number))
    best = complete[0] if complete else None
    decision = page.state_decision(best, study)
    page.write(study, plan, decision, bench.out)
    for trial in study.trials:  # killed workers leave their folders
        if trial.state.is_finished():
            shutil.rmtree(bench.out / TRIALS / str(trial.number), ignore_errors=True)
    tuned = apply_parameters(plan, best.params if best else {}).model_copy(update={"arm": ARM})
    path = write_recipe(tuned, decision, bench.out / BEST)  # last: where it is, the study is done
    typer.echo(f"{decision}\nrecipe: {path}\npage: {bench.out / page.PAGE}")


def main(
    config: Annotated[Path, typer.Option(help="Recipe, one of training/recipes/.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="Study folder; its name is the study's.")],
    trials: Annotated[int, typer.Option(min=1, help="Finished trials the study shall have.")],
    storage: Annotated[
        str | None,
        typer.Option(help="Database URL, to share the study; a file in the folder by default."),
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Start weights, safetensors.")] = None,
) -> None:
    """Look for better numbers of a recipe."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("a worker is one process: start several, not one with accelerate launch")
    plan = recipe.read(config)
    read_parameters(plan)
    command.keep_freed_memory()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what a reader needs, we say
    url = storage or sqlite_url(out)
    with explain_failures(url), ExitStack() as held:
        (out / TRIALS).mkdir(parents=True, exist_ok=True)
        with FileLock(out / "begin.lock"):
            opened = held.enter_context(open_storage(url, plan.tune.heartbeat))
            bench = prepare_bench(plan, corpus, start, out)
            study = open_study(bench, opened)
        run_trials(study, bench, trials)
        _conclude(study, bench)
