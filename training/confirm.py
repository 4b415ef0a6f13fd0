"""The best trials and the default once more, with seeds of their own; then which of them stays.

A study's best value is the largest of many noisy ones, so it flatters. Fresh seeds on the same
folds don't know which trial won, and pair each candidate with the default run by run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bcd_models.errors import InputError

CONFIRM = "confirm.json"
LEVEL = 0.95

# Parameters, seed and fold -> what is written of the run; its AUROC among it.
Measure = Callable[[Mapping[str, float], int, int], dict[str, Any]]


@dataclass(frozen=True)
class Candidate:
    """What is run again.

    Attributes:
        trial: Its number in the study; None: the default.
        parameters: Value by path.
    """

    trial: int | None
    parameters: dict[str, float]

    @property
    def name(self) -> str:
        """How the page calls it."""
        return "default" if self.trial is None else f"trial {self.trial}"


@dataclass(frozen=True)
class Comparison:
    """A candidate beside the default.

    Attributes:
        trial: The candidate's number.
        auroc: Mean over seeds and folds.
        difference: Its mean paired difference to the default.
        low: Lower end of the difference's interval.
        high: Upper end.
    """

    trial: int
    auroc: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Decision:
    """Which numbers the winner has.

    Attributes:
        winner: Number of the winning trial; None: the default stays.
        default: The default's mean AUROC.
        pairs: Runs of each, one a seed and fold.
        comparisons: The candidates, best first.
    """

    winner: int | None
    default: float
    pairs: int
    comparisons: tuple[Comparison, ...]


def decide(default: Sequence[float], candidates: Mapping[int, Sequence[float]]) -> Decision:
    """The best candidate if it clearly beats the default; else the default stays.

    Clearly: the Student t interval of its mean paired difference lies above zero. The intervals of
    all candidates hold together at 95% (Bonferroni), as the best one is picked from among them.

    Args:
        default: AUROC of each run, two or more.
        candidates: By trial number, AUROC of each run, of the same seeds and folds in turn.
    """
    theirs = np.asarray(default, float)
    level = 1 - (1 - LEVEL) / max(1, len(candidates))
    compared = [_compared(n, np.asarray(a, float), theirs, level) for n, a in candidates.items()]
    compared.sort(key=lambda one: (-one.difference, one.trial))
    beaten = bool(compared) and compared[0].low > 0
    return Decision(
        compared[0].trial if beaten else None, float(theirs.mean()), len(theirs), tuple(compared)
    )


def _compared(trial: int, ours: Any, theirs: Any, level: float) -> Comparison:
    differences = ours - theirs
    half = stats.t.ppf((1 + level) / 2, len(ours) - 1) * stats.sem(differences)
    mean = float(differences.mean())
    return Comparison(trial, float(ours.mean()), mean, mean - float(half), mean + float(half))


def confirm(
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    folds: Sequence[int],
    measure: Measure,
    study: Mapping[str, Any],
    folder: Path,
) -> tuple[Decision, list[dict[str, Any]]]:
    """Run what ``confirm.json`` doesn't hold yet, and decide; returns the runs decided by, too.

    Args:
        candidates: The default first.
        seeds: Seeds that no trial had.
        folds: The study's folds.
        measure: Trains and scores once.
        study: What the study is bound to.
        folder: The study's; ``confirm.json`` is written whole after each run.

    Raises:
        InputError: ``confirm.json`` is damaged or of another study.
    """
    file = folder / CONFIRM
    record = _read(file, study)
    auroc: dict[int | None, list[float]] = {candidate.trial: [] for candidate in candidates}
    used = []
    for seed in seeds:
        for fold in folds:
            for candidate in candidates:
                run = _found(record["runs"], candidate, seed, fold)
                if run is None:
                    run = {"of": candidate.name, "parameters": candidate.parameters}
                    run |= {"seed": seed, "fold": fold}
                    run |= measure(candidate.parameters, seed, fold)
                    record["runs"].append(run)
                    _write(file, record)
                auroc[candidate.trial].append(run["auroc"])
                used.append(run | {"of": candidate.name})
    default = auroc.pop(None)
    decision = decide(default, {n: values for n, values in auroc.items() if n is not None})
    _write(file, record | {"decision": asdict(decision)})
    return decision, used


def _found(
    runs: list[dict[str, Any]], candidate: Candidate, seed: int, fold: int
) -> dict[str, Any] | None:
    wanted = (candidate.parameters, seed, fold)
    return next((r for r in runs if (r["parameters"], r["seed"], r["fold"]) == wanted), None)


def _read(file: Path, study: Mapping[str, Any]) -> dict[str, Any]:
    if not file.exists():
        return {"study": dict(study), "runs": []}
    try:
        record: dict[str, Any] = json.loads(file.read_text("utf-8"))
        same = record["study"] == study
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} is damaged ({error!r}): delete it, and its runs are made again"
        ) from None
    if not same:
        raise InputError(f"{file} is of another study: choose another folder, or delete it")
    return record


def _write(file: Path, record: Mapping[str, Any]) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    os.replace(beside, file)
