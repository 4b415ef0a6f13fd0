"""From a recipe to the numbers that are tuned, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bcd_models.errors import InputError
from training.recipes.schema import JITTER, Recipe, parse

LEARNING_RATE = "phases.learning_rate"
JITTERED = "augment.jitter"

Parameters = Mapping[str, float]


def read_parameters(plan: Recipe) -> dict[str, float]:
    """Return a recipe's own value of each number of its space.

    Raises:
        InputError: A value lies outside its range, so that tuning could never come back to it; or
            one end of a range makes no recipe.
    """
    own = {path: _read_own(plan, path) for path in plan.tune.space}
    for path, drawn in plan.tune.space.items():
        if not drawn.holds(own[path]):
            raise InputError(
                f"recipe {plan.name}: its own {path}, {own[path]:g}, is not in the range it is "
                f"tuned in ({drawn.low:g} to {drawn.high:g}"
                f"{f' by {drawn.step:g}' if drawn.step else ''}): widen tune.space, or change it"
            )
    for end in ("low", "high"):
        apply_parameters(
            plan, {path: getattr(drawn, end) for path, drawn in plan.tune.space.items()}
        )
    return own


def apply_parameters(plan: Recipe, parameters: Parameters) -> Recipe:
    """Return a recipe with other numbers; all else, and every default, stays as it is.

    Args:
        plan: The recipe that is tuned.
        parameters: Value by path, as in ``Tune.space``. A learning rate is the first phase's; those
            of the other phases keep their proportion to it.

    Raises:
        InputError: The numbers make no recipe.
    """
    document = plan.model_dump(mode="json", exclude_unset=True)
    for path, value in parameters.items():
        if path == LEARNING_RATE:
            for phase, before in zip(document["phases"], plan.phases, strict=True):
                phase["learning_rate"] = value * (before.learning_rate / _read_own(plan, path))
        elif path == JITTERED:
            document.setdefault("augment", {}).update(dict.fromkeys(JITTER, value))
        else:
            *inside, name = path.split(".")
            where = document.setdefault(inside[0], {}) if inside else document
            where[name] = value
    return parse(document, f"recipe {plan.name}, tuned")


def trial_recipe(plan: Recipe, parameters: Parameters, seed: int) -> Recipe:
    """Return the recipe a trial trains by: one phase, at the study's own size and epochs."""
    tuned = apply_parameters(plan, parameters)
    short = {"size": plan.tune.size, "epochs": plan.tune.epochs}
    phase = tuned.phases[0].model_copy(update=short)
    return tuned.model_copy(update={"phases": (phase,), "seed": seed})


def _read_own(plan: Recipe, path: str) -> float:
    if path == LEARNING_RATE:
        return plan.phases[0].learning_rate
    if path == JITTERED:
        strengths = {getattr(plan.augment, name) for name in JITTER}
        if len(strengths) > 1:
            raise InputError(
                f"recipe {plan.name}: {JITTERED} tunes {', '.join(JITTER)} together, and they "
                "differ: set them equal, or tune them one by one (tune.space)"
            )
        return float(strengths.pop())
    value: Any = plan
    for name in path.split("."):
        value = getattr(value, name)
    return float(value)
