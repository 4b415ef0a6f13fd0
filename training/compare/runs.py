"""Run folders read back: what each run is, and which of them belong together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bcd_models.config import HeldOut, Provenance
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.models.backbones import get_backbone
from training import run_folder
from training.corpus import predictions
from training.evaluate import schema as measured
from training.recipes import schema as recipe
from training.train import checkpoint

METRICS = "metrics-test.json"
TESTED = "predictions-test.parquet"


class Missing(Exception):
    """A section can't be made; the message says what it lacks."""


@dataclass(frozen=True)
class Test:
    """What was measured of a run on the test part.

    Attributes:
        metrics: All of it.
        within: Within the larger source.
        frame: The predictions, one line a row.
    """

    metrics: measured.Metrics
    within: measured.Within
    frame: pd.DataFrame


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: Its folder, below the one that all runs share.
        folder: Its folder.
        plan: Its recipe.
        provenance: What ``run.json`` says.
        threshold: Of its model.
        seconds: Of all its epochs.
        held_out: Predictions for the rows held out; None where nothing was.
        test: Its test figures; None where it was not evaluated.
    """

    name: str
    folder: Path
    plan: recipe.Recipe
    provenance: Provenance
    threshold: float
    seconds: float
    held_out: pd.DataFrame | None
    test: Test | None

    @property
    def kind(self) -> str:
        """The kind of the manifest it was trained on."""
        return self.provenance.split

    @property
    def held(self) -> HeldOut:
        """What it held out."""
        return self.provenance.held_out

    @property
    def backbone(self) -> str:
        """What people call its backbone."""
        return get_backbone(self.plan.backbone).title

    @property
    def learnt(self) -> str:
        """What of the split it has learnt from."""
        if self.held.nothing:
            return "train and validation"
        held = self.held.case or self.held.words
        return f"all but {held}" if held else "train"

    @property
    def names(self) -> dict[str, Any]:
        """What a report's line calls it."""
        return {
            "run": self.name,
            "backbone": self.backbone,
            "arm": self.plan.arm,
            "seed": self.plan.seed,
            "learnt": self.learnt,
        }

    @property
    def decided(self) -> dict[str, Any]:
        """What decided its weights, but for the seed."""
        left_out = {"name", "version", "seed"}
        return {key: value for key, value in self.plan.decides().items() if key not in left_out}


@dataclass(frozen=True)
class Pool:
    """The fold runs of one arm and seed.

    Attributes:
        runs: By fold, in order.
        frame: Their held-out rows, one below the other.
    """

    runs: dict[int, Run]
    frame: pd.DataFrame

    @property
    def first(self) -> Run:
        """Of all its runs, for what they share."""
        return next(iter(self.runs.values()))


def read_all(folders: list[Path]) -> list[Run]:
    """Read finished runs of one corpus.

    Raises:
        InputError: A folder holds no finished run, figures of other weights, or a run of another
            corpus; or runs of one arm differ in their recipes.
    """
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise InputError("a run is named twice")
    above = os.path.commonpath([folder.parent for folder in resolved])
    runs = [_read(folder, os.path.relpath(folder, above)) for folder in resolved]
    _check_together(runs)
    return runs


def _read(folder: Path, name: str) -> Run:
    plan = recipe.read(folder / run_folder.RECIPE)
    provenance = run_folder.read_provenance(folder)
    seconds = checkpoint.sum_up_epochs(folder).seconds
    config = model_folder.read_config(folder / run_folder.MODEL)
    predicted = folder / run_folder.PREDICTIONS
    held_out = None if provenance.held_out.nothing else predictions.read(predicted)
    threshold = config.decision.threshold
    return Run(name, folder, plan, provenance, threshold, seconds, held_out, _read_test(folder))


def _read_test(folder: Path) -> Test | None:
    if not (folder / METRICS).is_file():
        return None
    metrics = measured.read(folder / METRICS)
    again = f"run training.evaluate --out {folder / METRICS} again"
    if metrics.model.weights_sha256 != model_folder.read_weights(folder / run_folder.MODEL)[1]:
        raise InputError(f"{folder / METRICS} measures other weights: {again}")
    if metrics.data.part != "test" or metrics.within is None:
        raise InputError(
            f"{folder / METRICS} lacks the test part within the larger source: {again}"
        )
    return Test(metrics, metrics.within, predictions.read(folder / TESTED))


def _check_together(runs: list[Run]) -> None:
    """Raise InputError where two runs are of two corpora or splits, or of one arm and differ."""
    of_split: dict[str, Run] = {}
    of_arm: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        if run.provenance.corpus_fingerprint != runs[0].provenance.corpus_fingerprint:
            raise InputError(f"{run.name} and {runs[0].name} are runs of two corpora")
        other = of_split.setdefault(run.kind, run)
        if run.provenance.split_sha256 != other.provenance.split_sha256:
            raise InputError(f"{run.name} and {other.name} are of two {run.kind} splits")
        key = (run.plan.backbone, run.plan.arm, run.kind, run.plan.learnt_share)
        other = of_arm.setdefault(key, run)
        ours, theirs = run.decided, other.decided
        changed = [name for name in ours if ours[name] != theirs[name]]
        if changed:
            raise InputError(
                f"{run.name} and {other.name} are both arm {run.plan.arm!r} of {run.backbone} but "
                f"differ in {changed[0]}: give them two names"
            )


def pool_arms(runs: list[Run]) -> list[Pool]:
    """Return the grouped split's fold runs by backbone, arm, seed and share of the cases."""
    groups: dict[tuple[Any, ...], dict[int, Run]] = {}
    for run in runs:
        if run.kind != "grouped" or run.held.fold is None:
            continue
        key = (run.plan.backbone, run.plan.arm, run.plan.seed, run.plan.learnt_share)
        other = groups.setdefault(key, {}).setdefault(run.held.fold, run)
        if other is not run:
            raise InputError(
                f"{other.name} and {run.name} are the same arm, seed and fold: name one of them"
            )
    pools = []
    for group in groups.values():
        of_fold = {fold: group[fold] for fold in sorted(group)}
        frames = [run.held_out for run in of_fold.values()]
        pools.append(Pool(of_fold, pd.concat(frames, ignore_index=True)))
    return pools
