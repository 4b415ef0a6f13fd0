"""Look for better numbers of a recipe with Optuna; the default stays unless clearly beaten.

python -m training.tune --config training/configs/NAME.yaml --corpus CORPUS --out STUDY --trials N

A trial trains once a fold, at low resolution. Its value is the mean over the folds of the AUROC
within the larger source; test is never read. Run the command again to go on, or several times at
once, on one machine or more, to share a study (``--storage``).
"""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer
import yaml
from filelock import FileLock, Timeout
from optuna.trial import TrialState

from bcd_models.errors import InputError
from training import command, confirm, engine, recipe, study_page, train
from training.search_space import Parameters, parameters_of, recipe_of
from training.study_storage import opened, reached, sqlite_url
from training.trials import TRIALS, Bench, Diverged, bench_of, measure, open_study, run_trials

WINNER = "winner.yaml"


def top_trials(study: optuna.Study, plan: recipe.Recipe, top: int) -> list[confirm.Candidate]:
    """The default, then the best complete trials that differ from it and from each other."""
    found = [confirm.Candidate(None, parameters_of(plan))]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    for trial in sorted(complete, key=lambda t: (-(t.value or 0), t.number)):
        if all(trial.params != one.parameters for one in found):
            found.append(confirm.Candidate(trial.number, trial.params))
    return found[: top + 1]


def write_winner(plan: recipe.Recipe, parameters: Parameters | None, note: str, out: Path) -> Path:
    """Write the recipe to train by; ``parameters`` None: the one that was tuned, as it is."""
    winner = plan if parameters is None else recipe_of(plan, parameters)
    document = winner.model_dump(mode="json", exclude_unset=True)
    path = out / WINNER
    path.write_text(f"# {note}\n" + yaml.safe_dump(document, sort_keys=False), "utf-8")
    return path


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
        "git_commit": train._git_commit(),
    }


def _conclude(study: optuna.Study, bench: Bench, seeds: int, top: int) -> None:
    plan = bench.plan
    candidates = top_trials(study, plan, top)
    decision, runs = confirm.confirm(
        candidates,
        # The trials' own seed would favour the one it was chosen by.
        range(plan.seed + 1, plan.seed + 1 + seeds),
        plan.tune.folds,
        partial(_confirmed, bench=bench),
        bench.bound,
        bench.out,
    )
    won = {one.trial: one.parameters for one in candidates if one.trial is not None}
    parameters = None if decision.winner is None else won[decision.winner]
    note = study_page.sentence(decision)
    path = write_winner(plan, parameters, note, bench.out)
    study_page.write(study, plan, bench.bound, decision, runs, bench.out)
    _remove_leftovers(study, bench.out / TRIALS)
    typer.echo(f"{note}\nrecipe: {path}\npage: {bench.out / study_page.PAGE}")


def _remove_leftovers(study: optuna.Study, folder: Path) -> None:
    """Remove the folders of trials that are over: killed workers leave theirs."""
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished():
            shutil.rmtree(folder / str(trial.number), ignore_errors=True)


def tune(
    config: Path,
    corpus_folder: Path,
    out: Path,
    trials: int,
    storage: str | None,
    start_file: Path | None,
    seeds: int,
    top: int,
) -> None:
    """Run a study's missing trials, then, in one of its workers, the confirmation."""
    plan = recipe.read(config)
    parameters_of(plan)
    try:
        (out / TRIALS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"study folder {out} can't be made: {error}") from None
    where = storage or sqlite_url(out)
    with FileLock(out / "begin.lock"):
        kept = opened(where, plan.tune.heartbeat)
    bench = bench_of(plan, corpus_folder, start_file, out)
    with reached(where):
        with FileLock(out / "begin.lock"):
            study = open_study(bench, kept)
        run_trials(study, bench, trials)
        try:
            with FileLock(out / "confirm.lock", timeout=0):
                _conclude(study, bench, seeds, top)
        except Timeout:
            typer.echo("the trials are done; another worker runs the confirmation")


def main(
    config: Annotated[Path, typer.Option(help="Recipe, one of training/configs/.")],
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
    engine.keep_freed_memory()
    tune(config, corpus, out, trials, storage, start, seeds, top)


if __name__ == "__main__":
    command.run(main)
