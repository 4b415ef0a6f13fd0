"""Which recipe is refitted: by out-of-fold AUROC within the larger source, never by test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from training.compare.rows import align_frames, get_margins, select_source, subtract_auroc
from training.corpus import predictions, splits
from training.evaluate import metrics
from training.recipes.schema import Recipe
from training.run_folder import PREDICTIONS

MIN_GAIN = 0.002  # of AUROC, for which a change is tried together with others
MIN_GAIN_OF_VIEWS = 0.005  # for which each answer may cost several passes
COMBINED = "combined"

Partial = Mapping[str, Any]


def measure_gain(runs: list[Path], plain: list[Path]) -> float:
    """Return the out-of-fold AUROC of some runs minus that of others, on the rows of both."""
    ours, theirs = _read_predictions(runs), _read_predictions(plain)
    larger = splits.find_larger_source(ours)
    one, other = (
        metrics.auroc(metrics.is_malignant(frame), get_margins(frame))
        for frame in align_frames([select_source(frame, larger) for frame in (ours, theirs)])
    )
    return one - other


def are_worth_their_cost(averaged: list[Path], single: list[Path]) -> bool:
    """Return whether several views gain enough over one, and clearly: by the whole 95% interval.

    A gain of 0.002 for eight times the work is a poor buy: a larger input or network, or two
    networks, cost less.
    """
    ours = _read_predictions(averaged)
    gain, _ = subtract_auroc(ours, _read_predictions(single), splits.find_larger_source(ours))
    return gain.value >= MIN_GAIN_OF_VIEWS and gain.low > 0


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
    base = tuned if tuned_gain >= MIN_GAIN else plain
    helpful = [arm for arm in changes if change_gains[arm] >= MIN_GAIN]
    document: dict[str, Any] = base.model_dump(mode="json", exclude_unset=True)
    before = dict(_flatten(plain.as_trained()))
    of_tuned = {key for key, value in _flatten(tuned.as_trained()) if before[key] != value}
    taken: set[str] = set()
    for arm in sorted(helpful, key=lambda name: -change_gains[name]):
        keys = {key for key, _ in _flatten(changes[arm])}
        rivals = of_tuned if base is tuned and tuned_gain >= change_gains[arm] else set()
        if not keys & (taken | rivals):
            document, taken = merge(document, changes[arm]), taken | keys
    return Recipe.model_validate(document | {"arm": COMBINED}) if taken else base


def choose_better(plain: Recipe, other: Recipe, other_gain: float) -> Recipe:
    """Return the other one if it gains anything over plain on all folds."""
    return other if other_gain > 0 else plain


def merge(document: Partial, change: Partial) -> dict[str, Any]:
    """Return a document with some keys replaced, objects key by key."""
    both = dict(document)
    for key, value in change.items():
        inside = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merge(both[key], value) if inside else value
    return both


def _flatten(change: Partial, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a change of a recipe sets, by dotted path."""
    for key, value in change.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{above}{key}.")
        else:
            yield above + key, value
