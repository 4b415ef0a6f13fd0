"""What a study trains, in order: one YAML file, checked strictly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from bcd_models.config import Strict, first_error
from bcd_models.errors import InputError
from training.corpus import splits
from training.recipes import schema as recipe
from training.recipes.schema import Recipe

Fold = Annotated[int, Field(ge=0, lt=splits.FOLDS)]
Seed = Annotated[int, Field(ge=0)]


class Arm(Strict):
    """One recipe, trained with each of some folds held out, by each of some seeds.

    Attributes:
        name: What comparisons call it.
        recipe: File beside the plan.
        trials: Of Optuna's, of which the best is trained by; 0: the recipe as it is. Arms of one
            recipe share them.
        set: What differs from that, as in a recipe file.
        folds: Held out in turn.
        seeds: Of the trainings; all folds with the first, then all with the next.
        refit: Whether it is then trained on all but test, to be published.
        taught_by: Arms before it, as "backbone/arm", whose runs of the same fold teach it.
        lifts: Arms before it, as "backbone/arm": with these as an ensemble it has to have a larger
            AUROC on its first fold than they have, or its other folds and refit are left out.
    """

    name: str = Field(min_length=1)
    recipe: str
    trials: int = Field(0, ge=0)
    set: dict[str, Any] = Field(default_factory=dict)
    folds: tuple[Fold, ...] = Field(tuple(range(splits.FOLDS)), min_length=1)
    seeds: tuple[Seed, ...] = Field((0,), min_length=1)
    refit: bool = False
    taught_by: tuple[str, ...] = ()
    lifts: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name, numbers in (("fold", self.folds), ("seed", self.seeds)):
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"arm {self.name!r}: it names a {name} twice")
        return self


class Plan(Strict):
    """The arms of a study, in the order in which they are trained."""

    arms: tuple[Arm, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _tuned_alike(self) -> Self:
        tuned: dict[str, tuple[str, int]] = {}  # by the name of the tuning's folder
        for arm in self.arms:
            own = arm.recipe, arm.trials
            if arm.trials and tuned.setdefault(Path(arm.recipe).stem, own) != own:
                raise ValueError(f"arm {arm.name!r}: another one has {arm.recipe} tuned otherwise")
        return self


def read_plan(path: Path) -> Plan:
    """Read a plan and check that each arm makes a recipe; InputError names what is wrong."""
    try:
        plan = Plan.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"plan {path} can't be read: {error}") from None
    except ValidationError as error:
        raise InputError(first_error(error, f"plan {path}")) from None
    before: dict[str, Arm] = {}
    folders: set[str] = set()
    for arm in plan.arms:
        trained = apply_arm(recipe.read(path.parent / arm.recipe), arm)
        where = f"plan {path}: arm {arm.name!r}"
        for name in (*arm.taught_by, *arm.lifts):
            if name not in before:
                raise InputError(f"{where}: {name!r} is no arm before it")
            if not _has_runs(before[name], arm, name in arm.taught_by):
                raise InputError(
                    f"{where}: {name!r} may lack runs that it takes, which are of its own folds "
                    "and seeds, and the refit of what teaches its own; none of what lifts others"
                )
        name = f"{trained.backbone}/{arm.name}"
        if make_file_name(name) in folders:
            raise InputError(f"plan {path}: {trained.backbone} has two arms {arm.name!r}")
        folders.add(make_file_name(name))
        before[name] = arm
    return plan


def _has_runs(other: Arm, arm: Arm, teaches: bool) -> bool:
    """Return whether another arm surely has the runs that an arm takes of it."""
    seeds, folds = (arm.seeds, arm.folds) if teaches else (arm.seeds[:1], arm.folds[:1])
    is_refitted = other.refit or not (teaches and arm.refit)
    has_folds = {*seeds} <= {*other.seeds} and {*folds} <= {*other.folds}
    return is_refitted and has_folds and not other.lifts


def make_file_name(words: str) -> str:
    """Return words as the name of a file."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", words)


def apply_arm(plain: Recipe, arm: Arm, seed: int = 0) -> Recipe:
    """Return what an arm trains by, of its recipe or the tuned one."""
    document = _merge(plain.model_dump(mode="json", exclude_unset=True), arm.set)
    named = document | {"arm": arm.name, "seed": seed}
    return recipe.parse(named, f"arm {arm.name!r}")


def _merge(document: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return a document with some keys replaced, objects key by key; None takes one out."""
    both = dict(document)
    for key, value in change.items():
        if value is None:
            both.pop(key, None)
        elif isinstance(value, dict) and isinstance(both.get(key), dict):
            both[key] = _merge(both[key], value)
        else:
            both[key] = value
    return both
