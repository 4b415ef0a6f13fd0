"""The trainings of a plan, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bcd_models.decision import log_odds
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.local import metrics
from bcd_models.models.backbones import get_backbone
from training.compare.rows import align_frames, select_source
from training.corpus import predictions, splits
from training.evaluate.answers import ANSWERS
from training.recipes import schema as recipe
from training.recipes.schema import Recipe
from training.run_folder import MODEL, PREDICTIONS
from training.study.plan import Arm, Plan, apply_arm, make_file_name
from training.study.steps import Step
from training.tune.search import BEST

REFIT = "all"
START_ENDINGS = ("imagenet", "init")


@dataclass(frozen=True)
class Study:
    """Where everything is.

    Attributes:
        plan: What is trained.
        recipes: Folder that the plan names recipes from.
        corpus: As written by ``training.corpus``.
        out: The study's folder.
        starts: Folder of start weights, ``ARCHITECTURE_imagenet.safetensors`` or ``_init``; None:
            as recipes say.
    """

    plan: Plan
    recipes: Path
    corpus: Path
    out: Path
    starts: Path | None

    def read_recipe(self, arm: Arm, seed: int = 0) -> Recipe:
        """Read what an arm trains by; its tuning has to be there."""
        tuned = self.find_tuning(arm) / BEST
        return apply_arm(recipe.read(tuned if arm.trials else self.recipes / arm.recipe), arm, seed)

    def find_tuning(self, arm: Arm) -> Path:
        """Return the folder in which an arm's recipe is tuned."""
        return self.out / "tune" / Path(arm.recipe).stem

    def run_folder(self, trained: Recipe, held: str) -> Path:
        """Return the folder of one run."""
        return self.find_run(f"{trained.backbone}/{trained.arm}", held)

    def find_run(self, name: str, held: str) -> Path:
        """Return the folder of one run of an arm, as "backbone/arm"."""
        backbone, _, arm = name.partition("/")
        return self.out / "runs" / backbone / make_file_name(arm) / held

    def write_config(self, trained: Recipe) -> Path:
        """Write a recipe's file into the study; returns the file."""
        name = f"{trained.backbone}-{make_file_name(trained.arm)}-{trained.seed}.yaml"
        path = self.out / "recipes" / name
        document = trained.model_dump(mode="json", exclude_unset=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: yaml.safe_dump(document, sort_keys=False).encode()})
        return path

    def find_start(self, trained: Recipe) -> Path | None:
        """Return a recipe's file of start weights; None: as the recipe says."""
        if self.starts is None or trained.start == "none":
            return None
        name = get_backbone(trained.backbone).timm_name
        files = [self.starts / f"{name}_{ending}.safetensors" for ending in START_ENDINGS]
        found = next((file for file in files if file.is_file()), None)
        if not found:
            raise InputError(f"start weights {files[0]} are missing: look at --starts")
        return found


def plan_trainings(study: Study) -> Iterator[list[Step]]:
    """Plan the trainings, by steps that wait for none of each other, once those before are done."""
    for arm in study.plan.arms:
        if arm.trials:
            yield [_tune(study, arm)]
        folds = [
            _train_fold(study, arm, study.read_recipe(arm, seed), fold)
            for seed in arm.seeds
            for fold in arm.folds
        ]
        if arm.lifts:
            yield folds[:1]
        if not goes_on(study, arm):
            continue
        yield folds
        if arm.refit:
            yield [_record(study, study.find_run(name, REFIT)) for name in arm.taught_by]
            yield [_refit(study, arm)]


def goes_on(study: Study, arm: Arm) -> bool:
    """Return whether an arm is trained on all its folds: it lifts what it has to on the first."""
    if not arm.lifts:
        return True
    held = f"seed-{arm.seeds[0]}-fold-{arm.folds[0]}"
    own = study.run_folder(study.read_recipe(arm, arm.seeds[0]), held)
    others = [study.find_run(name, held) for name in arm.lifts]
    frames = align_frames([predictions.read(run / PREDICTIONS) for run in (*others, own)])
    larger = splits.find_larger_source(frames[0])
    within = [select_source(frame, larger) for frame in frames]
    said = [log_odds(frame["probability"].clip(1e-6, 1 - 1e-6)) for frame in within]
    truth = metrics.is_malignant(within[0])
    without, together = (np.mean(some, axis=0) for some in (said[:-1], said))
    return metrics.auroc(truth, together) > metrics.auroc(truth, without)


def write_options(**given: Any) -> list[str]:
    """Return a command's options by name, but for those of None."""
    named = {name: str(value) for name, value in given.items() if value is not None}
    return [
        word for name, value in named.items() for word in (f"--{name.replace('_', '-')}", value)
    ]


def _tune(study: Study, arm: Arm) -> Step:
    plain, out = study.recipes / arm.recipe, study.find_tuning(arm)
    options = write_options(
        config=plain,
        corpus=study.corpus,
        out=out,
        trials=arm.trials,
        start=study.find_start(recipe.read(plain)),
    )
    return Step(f"{out.name}: tuning", "tune", options, out / BEST)


def _train_fold(study: Study, arm: Arm, trained: Recipe, fold: int) -> Step:
    """Train with a fold held out, then record what the run says."""
    held = f"seed-{trained.seed}-fold-{fold}"
    run = study.run_folder(trained, held)
    name = f"{trained.backbone}, {trained.arm}, seed {trained.seed}, fold {fold}"
    options = ["--fold", str(fold), *_teach(study, arm, held)]
    return _record(study, run, _train(study, trained, name, run, options))


def _record(study: Study, run: Path, training: Step | None = None) -> Step:
    """Record what a run says; ``training`` makes it."""
    name = "/".join(run.parts[-3:])
    options = [str(run), *write_options(corpus=study.corpus)]
    return Step(f"{name}: answers", "evaluate.answers", options, run / ANSWERS, training)


def _teach(study: Study, arm: Arm, held: str) -> list[str]:
    runs = (str(study.find_run(name, held)) for name in arm.taught_by)
    return [word for run in runs for word in ("--teacher", run)]


def _refit(study: Study, arm: Arm) -> Step:
    """Train on all but test; the folds of its seed decide its decision rule."""
    trained, folds, model = find_folds(study, arm)
    options = [word for fold in folds for word in ("--decision-from", str(fold))]
    options += _teach(study, arm, REFIT)
    return _train(study, trained, name_refit(trained), model.parent, options)


def _train(study: Study, trained: Recipe, name: str, run: Path, holding: list[str]) -> Step:
    options = write_options(
        config=study.write_config(trained),
        corpus=study.corpus,
        out=run,
        start=study.find_start(trained),
    )
    return Step(name, "train", [*options, *holding, "--resume"], run / MODEL)


def find_folds(study: Study, arm: Arm) -> tuple[Recipe, list[Path], Path]:
    """Return what an arm's refit is trained by, the fold runs of its seed, and its model."""
    trained = study.read_recipe(arm, arm.seeds[0])
    held = [f"seed-{trained.seed}-fold-{fold}" for fold in arm.folds]
    model = study.run_folder(trained, REFIT) / MODEL
    return trained, [study.run_folder(trained, one) for one in held], model


def name_refit(trained: Recipe) -> str:
    """Return what a refit's steps are called by."""
    return f"{trained.backbone}, {trained.arm}, {REFIT}"
