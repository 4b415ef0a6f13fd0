"""What a study trains and compares: one YAML file, checked strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from bcd_models.config import Strict, first_error
from bcd_models.errors import InputError
from training.recipes import schema as recipe


class Change(Strict):
    """One thing done otherwise than in the plain recipe, measured alone.

    Attributes:
        arm: What the comparison calls it.
        set: What differs from the recipe, as in a recipe file.
        backbone: Tried on and kept for this one alone; None: tried on the first recipe, kept for
            all.
    """

    arm: str = Field(min_length=1)
    set: dict[str, Any]
    backbone: str | None = None


class Plan(Strict):
    """What is trained and compared.

    Attributes:
        recipes: The plain recipe of each backbone, beside the plan.
        folds: Folds held out in turn.
        trials: Of the study of each backbone.
        changes: Tried one by one; what clearly helps is tried together.
        change_folds: Some of the folds, for all that is only set beside the plain recipe; of the
            changes, those that do worse than plain on the first ones are not trained on the next.
        shares: Shares of the cases learnt from, for the first recipe's learning curve.
    """

    recipes: tuple[str, ...] = Field(min_length=1)
    folds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=2)
    trials: int = Field(20, ge=1)
    changes: tuple[Change, ...] = ()
    change_folds: tuple[int, ...] = Field((0, 1), min_length=1, validate_default=True)
    shares: tuple[float, ...] = ()

    @field_validator("change_folds")
    @classmethod
    def _held_out_by_plain_too(cls, some: tuple[int, ...], plan: ValidationInfo) -> tuple[int, ...]:
        if not set(some) <= set(plan.data.get("folds", some)):
            raise ValueError("name some of folds")
        return some


def read_plan(path: Path) -> tuple[Plan, dict[str, recipe.Recipe]]:
    """Read a plan and its recipes; InputError names the key and what is wrong with it."""
    try:
        plan = Plan.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"plan {path} can't be read: {error}") from None
    except ValidationError as error:
        raise InputError(first_error(error, f"plan {path}")) from None
    recipes = {one.backbone: one for one in (recipe.read(path.parent / n) for n in plan.recipes)}
    for number, change in enumerate(plan.changes):
        if change.backbone not in {None, *recipes}:
            raise InputError(
                f"plan {path}: changes.{number}.backbone: no recipe is of {change.backbone!r}: "
                f"choose from {', '.join(recipes)}"
            )
    return plan, recipes
