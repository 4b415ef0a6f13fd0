"""Which recipe is refitted: by out-of-fold AUROC within the larger source, never by test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from training.compare.rows import align_frames, auroc_minus, margins_of, truth_of, within
from training.corpus import predictions, splits
from training.evaluate import metrics
from training.recipes.schema import Recipe
from training.run_folder import PREDICTIONS

HELPS = 0.002  # least gain of AUROC for which a change is tried together with others
PAYS = 0.005  # least gain for which each answer may cost several passes
COMBINED = "combined"

Partial = Mapping[str, Any]


def measure_gain(runs: list[Path], plain: list[Path]) -> float:
    """Out-of-fold AUROC of some runs together minus that of others, on the rows of both."""
    ours, theirs = _read_predictions(runs), _read_predictions(plain)
    larger = splits.larger_source(ours)
    one, other = (
        metrics.auroc(truth_of(frame), margins_of(frame))
        for frame in align_frames([within(frame, larger) for frame in (ours, theirs)])
    )
    return one - other


def are_worth_their_cost(averaged: list[Path], single: list[Path]) -> bool:
    """Whether several views gain enough over one, and clearly: the whole 95% interval, over cases.

    A gain of 0.002 for eight times the work is a poor buy: a larger input or network, or two
    networks, cost less.
    """
    ours = _read_predictions(averaged)
    found, _ = auroc_minus(ours, _read_predictions(single), splits.larger_source(ours))
    return found.value >= PAYS and found.low > 0


def _read_predictions(runs: list[Path]) -> pd.DataFrame:
    return pd.concat([predictions.read(run / PREDICTIONS) for run in runs])


def combine(
    plain: Recipe,
    tuned: Recipe,
    tuned_gain: float,
    changes: Mapping[str, Partial],
    change_gains: Mapping[str, float],
) -> Recipe:
    """Return the better of plain and tuned, with all changes that help.

    Of changes that set the same key, the tuned recipe's among them, the one that gains most is
    taken.

    Args:
        plain: The plain recipe of a backbone.
        tuned: The same, tuned.
        tuned_gain: Of tuned over plain.
        changes: What each arm sets, of those tried for this backbone.
        change_gains: Of each arm over the plain one of the backbone that it was tried on.

    Returns:
        The plain or the tuned recipe itself where no change helps.
    """
    base = tuned if tuned_gain >= HELPS else plain
    helpful = [arm for arm in changes if change_gains[arm] >= HELPS]
    document: dict[str, Any] = base.model_dump(mode="json", exclude_unset=True)
    of_tuned = {key for key, value in _set(tuned) if (key, value) not in _set(plain)}
    taken: set[str] = set()
    for arm in sorted(helpful, key=lambda name: -change_gains[name]):
        keys = set(_keys(changes[arm]))
        rivals = of_tuned if base is tuned and tuned_gain >= change_gains[arm] else set()
        if not keys & (taken | rivals):
            document, taken = merge(document, changes[arm]), taken | keys
    return Recipe.model_validate(document | {"arm": COMBINED}) if taken else base


def choose_better(plain: Recipe, other: Recipe, other_gain: float) -> Recipe:
    """Return the other one if it gains anything over plain on all folds."""
    return other if other_gain > 0 else plain


def merge(document: Partial, change: Partial) -> dict[str, Any]:
    """Return a document with a part of it replaced, objects key by key."""
    both = dict(document)
    for key, value in change.items():
        inside = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merge(both[key], value) if inside else value
    return both


def _set(plan: Recipe) -> list[tuple[str, Any]]:
    """Return what a recipe sets, resolved, by dotted path."""
    return list(_values(plan.as_trained()))


def _keys(change: Partial) -> Iterator[str]:
    return (key for key, _ in _values(change))


def _values(change: Partial, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in change.items():
        if isinstance(value, dict):
            yield from _values(value, f"{above}{key}.")
        else:
            yield above + key, value
