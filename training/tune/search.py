"""Look for better numbers of a recipe with Optuna; the default stays unless clearly beaten.

python -m training.tune --config training/recipes/NAME.yaml --corpus CORPUS --out STUDY --trials N

A trial trains once a fold, at low resolution. Its value is the mean over the folds of the AUROC
within the larger source; test is never read. Run the command again to go on, or several times at
once, on one machine or more, to share a study: each names the same ``--storage`` and a study folder
of the same name, on a shared disk so that the best trials are confirmed once.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer
import yaml
from filelock import FileLock, Timeout

from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from training import command, run_folder
from training.recipes import schema as recipe
from training.tune import confirm, page
from training.tune.plots import complete_trials
from training.tune.space import Parameters, parameters_of, recipe_of
from training.tune.storage import close, opened, reached, sqlite_url
from training.tune.trials import TRIALS, Bench, Diverged, bench_of, measure, open_study, run_trials

WINNER, BEST = "winner.yaml", "tuned.yaml"
ARM = "tuned"


def candidates_of(study: optuna.Study, plan: recipe.Recipe, top: int) -> dict[str, Parameters]:
    """The default, then the best complete trials that differ from it and from each other."""
    found: dict[str, Parameters] = {confirm.DEFAULT: parameters_of(plan)}
    for trial in sorted(complete_trials(study), key=lambda t: (-(t.value or 0), t.number)):
        if trial.params not in found.values():
            found[f"trial {trial.number}"] = trial.params
    return dict(list(found.items())[: top + 1])


def write_recipe(chosen: recipe.Recipe, note: str, path: Path) -> Path:
    """Put a recipe to train by in place, whole."""
    document = chosen.model_dump(mode="json", exclude_unset=True)
    write_files({path: f"# {note}\n{yaml.safe_dump(document, sort_keys=False)}".encode()})
    return path


def _conclude(study: optuna.Study, bench: Bench, seeds: int, top: int) -> None:
    """Confirm the best trials; write the winner and the pages."""
    plan = bench.plan
    candidates = candidates_of(study, plan, top)
    decision, runs = confirm.confirm(
        candidates,
        # The trials' own seed would favour the one it was chosen by.
        range(plan.seed + 1, plan.seed + 1 + seeds),
        plan.tune.folds,
        partial(_confirmed, bench=bench),
        bench.bound,
        bench.out,
    )
    name = decision.comparisons[0].name if decision.comparisons else confirm.DEFAULT
    best = recipe_of(plan, candidates[name]).model_copy(update={"arm": ARM})
    stays = decision.winner == confirm.DEFAULT
    note = page.sentence(decision)
    page.write(study, plan, decision, runs, bench.out)
    for trial in study.trials:  # killed workers leave their folders
        if trial.state.is_finished():
            shutil.rmtree(bench.out / TRIALS / str(trial.number), ignore_errors=True)
    write_recipe(best, f"The best on fresh seeds, clearly or not: {name}.", bench.out / BEST)
    # Last: where it is, the study is done.
    path = write_recipe(plan if stays else best, note, bench.out / WINNER)
    typer.echo(f"{note}\nrecipe: {path}\npage: {bench.out / page.PAGE}")


def _confirmed(parameters: Parameters, seed: int, fold: int, bench: Bench) -> dict[str, Any]:
    """One run of the confirmation; a diverged one is worth as much as chance."""
    started, stopped = time.monotonic(), None
    try:
        auroc = measure(bench, parameters, seed, fold, bench.out / TRIALS / "confirm")
    except Diverged as error:
        auroc, stopped = 0.5, str(error)
    typer.echo(f"seed {seed}, fold {fold}, {dict(parameters)}: AUROC {auroc:.4f}")
    return {
        "auroc": auroc,
        "stopped": stopped,
        "seconds": round(time.monotonic() - started, 1),
        "git_commit": run_folder.git_commit(),
    }


def main(
    config: Annotated[Path, typer.Option(help="Recipe, one of training/recipes/.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="Study folder; its name is the study's.")],
    trials: Annotated[int, typer.Option(min=1, help="Finished trials the study shall have.")],
    storage: Annotated[
        str | None,
        typer.Option(help="Database URL or journal file; a database in the folder by default."),
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Start weights, safetensors.")] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Seeds of the confirmation.")] = 3,
    top: Annotated[int, typer.Option(min=1, help="Trials that are confirmed.")] = 3,
) -> None:
    """Look for better numbers of a recipe."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("a worker is one process: start several, not one with accelerate launch")
    plan = recipe.read(config)
    parameters_of(plan)
    command.keep_freed_memory()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what a reader needs, we say
    where = storage or sqlite_url(out)
    with reached(where), ExitStack() as held:
        (out / TRIALS).mkdir(parents=True, exist_ok=True)
        with FileLock(out / "begin.lock"):
            kept = opened(where, plan.tune.heartbeat)
            held.callback(close, kept)
            bench = bench_of(plan, corpus, start, out)
            study = open_study(bench, kept)
        run_trials(study, bench, trials)
        try:
            with FileLock(out / "confirm.lock", timeout=0):
                _conclude(study, bench, seeds, top)
        except Timeout:
            typer.echo("the trials are done; another worker runs the confirmation")
