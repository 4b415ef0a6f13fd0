"""Which recipe is refitted: by out-of-fold AUROC within the larger source, never by test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.comparison.schema import Report
from training.recipe import Recipe

HELPS = 0.002  # least gain of AUROC for which a change is tried together with others
COMBINED = "combined"

Partial = Mapping[str, Any]


def gains(report: Report, title: str) -> dict[str, float]:
    """Out-of-fold AUROC of each arm of a backbone minus that of its plain arm, same images."""
    lines = [line for line in report.out_of_fold if line.backbone == title]
    return {line.arm: line.minus_plain.value for line in lines if line.minus_plain}


def combined(
    plain: Recipe,
    tuned: Recipe,
    tuned_gain: float,
    changes: Mapping[str, Partial],
    change_gains: Mapping[str, float],
) -> Recipe:
    """The better of plain and tuned, with all changes that help.

    Of changes that set the same key, the one that gains most is taken.

    Returns:
        The plain or the tuned recipe itself where no change helps.
    """
    base = tuned if tuned_gain >= HELPS else plain
    helpful = [arm for arm in changes if change_gains.get(arm, 0.0) >= HELPS]
    document: dict[str, Any] = base.model_dump(mode="json", exclude_unset=True)
    taken: set[str] = set()
    for arm in sorted(helpful, key=lambda name: -change_gains[name]):
        keys = set(_keys(changes[arm]))
        if not keys & taken:
            document, taken = merged(document, changes[arm]), taken | keys
    return Recipe.model_validate(document | {"arm": COMBINED}) if taken else base


def best(candidates: list[Recipe], found: Mapping[str, float]) -> Recipe:
    """The candidate of largest gain over plain; the first named where they are level."""
    return max(candidates, key=lambda one: found.get(one.arm, 0.0))


def merged(document: Partial, change: Partial) -> dict[str, Any]:
    """A document with a part of it replaced, objects key by key."""
    both = dict(document)
    for key, value in change.items():
        inside = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if inside else value
    return both


def _keys(change: Partial, above: str = "") -> Iterator[str]:
    for key, value in change.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{above}{key}.")
        else:
            yield above + key
