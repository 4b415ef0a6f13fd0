"""The trials of a study: what they share, what one does, and when its workers have enough."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import typer
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from bcd_models.config import HeldOut
from bcd_models.errors import InputError
from training import run_folder
from training.corpus.degrade import degrade_rows
from training.corpus.pixels import Rows, StoredPixels
from training.corpus.selection import Data, open_corpus, select_data
from training.evaluate import scoring
from training.recipes import schema as recipe
from training.train import engine
from training.train import run as train
from training.train.engine import Diverged
from training.tune.space import Parameters, read_parameters, trial_recipe
from training.tune.storage import fail_dead_trials

TRIALS = "trials"
POLL_SECONDS = 1
UNBORN_SECONDS = 60
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Bench:
    """What all trials of a study share.

    Attributes:
        plan: The recipe that is tuned.
        data: Rows by fold held out.
        start: Start weights.
        out: The study folder.
        bound: What may not change while a study goes on.
    """

    plan: recipe.Recipe
    data: Mapping[int, Data]
    start: Path | None
    out: Path
    bound: Mapping[str, Any]


def prepare_bench(plan: recipe.Recipe, corpus: Path, start: Path | None, out: Path) -> Bench:
    """Load what the trials learn from.

    Raises:
        InputError: Corpus or start weights can't be used, or the recipe wants teachers.
    """
    if plan.teachers:
        raise InputError(f"recipe {plan.name}: tuning hears no teachers: set teachers to 0")
    _, _, start_sha256 = train.build_network(plan, start)
    few = plan.model_copy(update={"learnt_share": plan.learnt_share * plan.tune.share})
    opened = open_corpus(corpus, plan.split)
    data = {fold: select_data(opened, few, HeldOut(fold=fold)) for fold in plan.tune.folds}
    first = data[plan.tune.folds[0]]
    bound = {
        "corpus": first.about["fingerprint"],
        "split": first.split.sha256,
        "start": start_sha256 or plan.start,
        "recipe": _decides(plan),
    }
    return Bench(plan, data, start, out, bound)


def _decides(plan: recipe.Recipe) -> dict[str, Any]:
    return plan.decides() | {"tune": plan.tune.model_dump(mode="json")}


def measure(
    bench: Bench,
    parameters: Parameters,
    seed: int,
    fold: int,
    run: Path,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> float:
    """Train at low resolution with a fold held out; returns AUROC within the larger source.

    Where the recipe degrades, it is the mean of two: of what is held out as it is, and degraded.

    Args:
        bench: What all trials share.
        parameters: Numbers in place of the recipe's own.
        seed: Of this training.
        fold: Held out.
        run: Folder of the training, emptied before and removed after.
        on_epoch: Is handed each epoch's line; what it raises ends the training.

    Raises:
        Diverged: The loss is no number any more.
        TrainingStopped: The disk is full.
    """
    plan, data = trial_recipe(bench.plan, parameters, seed), bench.data[fold]
    held_out = data.held_out
    assert held_out is not None  # a fold is
    shutil.rmtree(run, ignore_errors=True)  # of a killed worker: its checkpoint isn't ours
    run.mkdir(parents=True)
    try:
        network, preprocess, _ = train.build_network(plan, bench.start)
        network = engine.fit(network, plan, preprocess, data.training, held_out, run, on_epoch)
        margins = [scoring.score(network, held_out, preprocess, plan.input_size)]
        if bench.plan.degrade.is_on:
            batches = _degrade(held_out, bench.plan)
            margins.append(scoring.score_batches(network, batches, preprocess, plan.input_size))
    finally:
        shutil.rmtree(run, ignore_errors=True)
    aurocs = [scoring.auroc_within(held_out, way) for way in margins]
    # select_data has seen to it that there are both labels.
    return float(np.mean([auroc for auroc in aurocs if auroc is not None]))


def _degrade(rows: Rows, plan: recipe.Recipe) -> Iterator[StoredPixels]:
    """Degrade rows as a recipe says before it is tuned, none spared, so that trials compare."""
    strengths = plan.degrade.model_copy(update={"spared": 0.0})
    for batch in torch.split(torch.arange(len(rows.pixels)), scoring.BATCH):
        seeds = [(plan.seed, place) for place in batch.tolist()]
        yield degrade_rows(rows.pixels.rows(batch), strengths, seeds)


class SeededTPE(TPESampler):
    """TPE whose draw depends on seed, trial number and finished trials alone.

    So a study that goes on never draws its first points again, and two workers that start together
    don't draw the same ones.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        self._study_seed, self._startup = seed, startup_trials
        super().__init__(n_startup_trials=startup_trials, seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seed anew for this trial."""
        seed = (self._study_seed * 100_003 + trial.number) % 2**32
        TPESampler.__init__(self, n_startup_trials=self._startup, seed=seed)
        super().before_trial(study, trial)


def open_study(bench: Bench, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """Begin a study, or go on with the one of this name if it was begun with the same.

    Raises:
        InputError: The study was begun with something else; the message names it.
    """
    tune = bench.plan.tune
    study = optuna.create_study(
        storage=storage,
        study_name=bench.out.resolve().name,
        direction="maximize",
        load_if_exists=True,
        sampler=SeededTPE(bench.plan.seed, tune.startup_trials),
        # A high learning rate pays off as its cosine falls, so no trial is judged before the end
        # of its first fold.
        pruner=optuna.pruners.MedianPruner(tune.startup_trials, n_warmup_steps=tune.epochs - 1),
    )
    begun = study.user_attrs
    if "recipe" in begun:  # what a recipe could not yet say then is what it says by default
        begun |= {"recipe": _decides(recipe.parse(begun["recipe"], study.study_name))}
    for name, value in bench.bound.items():
        if name not in begun:
            study.set_user_attr(name, value)
        elif begun[name] != value:
            other = _describe_change(name, begun, value)
            raise InputError(
                f"study {study.study_name} was begun with another {other}: go on with the same, or "
                "choose another folder"
            )
    if not any(t.user_attrs.get("default") and t.state != TrialState.FAIL for t in study.trials):
        study.enqueue_trial(read_parameters(bench.plan), user_attrs={"default": True})
    return study


def _describe_change(name: str, begun: Mapping[str, Any], value: Any) -> str:
    if name != "recipe":
        return f"{name} ({begun[name]}, now {value})"
    before = begun[name]
    key = next(key for key in {**before, **value} if before.get(key) != value.get(key))
    return f"recipe ({key}: {before.get(key)}, now {value.get(key)})"


def run_trials(study: optuna.Study, bench: Bench, trials: int) -> None:
    """Run trials until the study has so many finished ones, its other workers' among them."""
    objective = partial(_objective, bench=bench, trials=trials)
    unborn: dict[int, float] = {}
    while True:
        fail_dead_trials(study)
        _fail_unborn_trials(study, unborn)
        states = Counter(trial.state for trial in study.trials)
        finished = sum(states[state] for state in _FINISHED)
        if finished >= trials:
            return
        if finished + states[TrialState.RUNNING] >= trials:
            time.sleep(POLL_SECONDS)  # others run the last ones; should one die, it is ours
            continue
        try:
            study.optimize(objective, n_trials=1)
        except ValueError as error:
            if "Cannot tell a FAIL trial" not in str(error):
                raise
            # This worker slept for so long that another has taken the trial over.


def _objective(trial: optuna.Trial, bench: Bench, trials: int) -> float:
    tune = bench.plan.tune
    parameters = {
        path: trial.suggest_float(path, drawn.low, drawn.high, log=drawn.log, step=drawn.step)
        for path, drawn in tune.space.items()
    }
    taken = trial.study.get_trials(deepcopy=False, states=(*_FINISHED, TrialState.RUNNING))
    if sum(one.number < trial.number for one in taken) >= trials:
        typer.echo(f"trial {trial.number} is one too many, another worker was first: left out")
        return float("nan")  # Optuna fails it
    trial.set_user_attr("git_commit", run_folder.read_git_commit())
    auroc: list[float] = []
    try:
        for fold in tune.folds:
            judge = partial(_judge, trial, auroc, tune)
            run = bench.out / TRIALS / str(trial.number)
            auroc.append(measure(bench, parameters, bench.plan.seed, fold, run, judge))
    except Diverged as error:
        trial.set_user_attr("stopped", str(error))
        raise optuna.TrialPruned(str(error)) from None
    typer.echo(f"trial {trial.number}, {parameters}: AUROC {np.mean(auroc):.4f}")
    return float(np.mean(auroc))


def _judge(
    trial: optuna.Trial, finished: list[float], tune: recipe.Tune, line: dict[str, Any]
) -> None:
    """Report the mean of the folds so far; steps are epochs, counted on from fold to fold."""
    step = len(finished) * tune.epochs + line["epoch"] - 1
    trial.report(float(np.mean([*finished, line["validation_auroc"]])), step)
    if step < len(tune.folds) * tune.epochs - 1 and trial.should_prune():
        typer.echo(f"trial {trial.number}: pruned after {step + 1} epochs")
        raise optuna.TrialPruned


def _fail_unborn_trials(study: optuna.Study, since: dict[int, float]) -> None:
    """Fail trials whose worker was killed before its first sign of life: nobody else would.

    Args:
        study: With its trials.
        since: When each was first seen here with no number drawn; kept from call to call, as
            clocks of machines need not agree.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        now = time.monotonic()
        if not trial.params and now - since.setdefault(trial.number, now) > UNBORN_SECONDS:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
