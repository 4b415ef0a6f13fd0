"""The best trials and the default once more, with seeds of their own; then which of them stays.

A study's best value is the largest of many noisy ones, so it flatters. Fresh seeds on the same
folds don't know which trial won, and pair each candidate with the default run by run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from training.tune.space import Parameters

CONFIRM = "confirm.json"
DEFAULT = "default"
LEVEL = 0.95

# Parameters, seed and fold -> what is written of the run; its AUROC among it.
Measure = Callable[[Parameters, int, int], dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """A candidate beside the default.

    Attributes:
        name: The candidate's.
        auroc: Mean over seeds and folds.
        difference: Its mean paired difference to the default.
        low: Lower end of the difference's interval.
        high: Upper end.
    """

    name: str
    auroc: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Decision:
    """Which numbers the winner has.

    Attributes:
        winner: Name of the winning candidate, or "default".
        default: The default's mean AUROC.
        pairs: Runs of each, one a seed and fold.
        comparisons: The candidates, best first.
    """

    winner: str
    default: float
    pairs: int
    comparisons: tuple[Comparison, ...]


def decide(auroc: Mapping[str, Sequence[float]]) -> Decision:
    """The best candidate if it clearly beats the default; else the default stays.

    Clearly: the Student t interval of its mean paired difference lies above zero. The intervals of
    all candidates hold together at 95% (Bonferroni), as the best one is picked from among them.

    Args:
        auroc: By name, "default" among them, AUROC of each run (two or more), of the same seeds
            and folds in turn.
    """
    others = [name for name in auroc if name != DEFAULT]
    level = 1 - (1 - LEVEL) / max(1, len(others))
    theirs = np.asarray(auroc[DEFAULT])
    compared = [_compared(name, np.asarray(auroc[name]), theirs, level) for name in others]
    compared.sort(key=lambda one: -one.difference)
    beaten = bool(compared) and compared[0].low > 0
    winner = compared[0].name if beaten else DEFAULT
    return Decision(winner, float(theirs.mean()), len(theirs), tuple(compared))


def _compared(name: str, ours: Any, theirs: Any, level: float) -> Comparison:
    differences = ours - theirs
    half = float(stats.t.ppf((1 + level) / 2, len(ours) - 1) * stats.sem(differences))
    mean = float(differences.mean())
    return Comparison(name, float(ours.mean()), mean, mean - half, mean + half)


def confirm(
    candidates: Mapping[str, Parameters],
    seeds: Sequence[int],
    folds: Sequence[int],
    measure: Measure,
    study: Mapping[str, Any],
    folder: Path,
) -> tuple[Decision, list[dict[str, Any]]]:
    """Run what ``confirm.json`` doesn't hold yet, and decide; returns the runs decided by, too.

    Args:
        candidates: Parameters by name, the default's first.
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
    kept = {_key(run["parameters"], run["seed"], run["fold"]): run for run in record["runs"]}
    used = []
    for seed in seeds:
        for fold in folds:
            for name, parameters in candidates.items():
                key = _key(parameters, seed, fold)
                if key not in kept:
                    kept[key] = {"parameters": parameters, "seed": seed, "fold": fold}
                    kept[key] |= measure(parameters, seed, fold)
                    _write(file, record | {"runs": list(kept.values())})
                used.append({"of": name} | kept[key])
    decision = decide({n: [run["auroc"] for run in used if run["of"] == n] for n in candidates})
    _write(file, record | {"runs": list(kept.values()), "decision": asdict(decision)})
    return decision, used


def _key(parameters: Parameters, seed: int, fold: int) -> tuple[Any, ...]:
    return (*sorted(parameters.items()), seed, fold)


def _read(file: Path, study: Mapping[str, Any]) -> dict[str, Any]:
    if not file.exists():
        return {"study": dict(study), "runs": []}
    try:
        record: dict[str, Any] = json.loads(file.read_text("utf-8"))
        same = record["study"] == study
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{file} is damaged ({error!r}): delete it, and its runs are made again"
        ) from None
    if not same:
        raise InputError(f"{file} is of another study: choose another folder, or delete it")
    return record


def _write(file: Path, record: Mapping[str, Any]) -> None:
    write_files({file: f"{json.dumps(record, indent=1)}\n".encode()})
