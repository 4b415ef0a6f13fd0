"""What is tuned: a recipe's numbers, the ranges they are drawn from, and the recipe they make."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from bcd_models.errors import InputError
from tests.support.studies import DEFAULT, RECIPE, make_recipe, write
from training.recipes import schema as recipe
from training.tune.space import apply_parameters, read_parameters, trial_recipe


def test_parameters_become_a_recipe_and_the_default_is_one_of_them() -> None:
    plan = make_recipe()
    assert read_parameters(plan) == DEFAULT
    tuned = apply_parameters(
        plan, DEFAULT | {"phases.learning_rate": 0.0005, "augment.jitter": 0.25}
    )
    assert [phase.learning_rate for phase in tuned.phases] == pytest.approx([0.0005, 0.0002])
    assert [phase.size for phase in tuned.phases] == [32, 48]
    assert tuned.augment.brightness == tuned.augment.contrast == tuned.augment.saturation == 0.25
    assert (tuned.weight_decay, tuned.augment.mixup, tuned.seed) == (0.02, 0.2, 0)
    short = trial_recipe(plan, DEFAULT | {"weight_decay": 0.1}, 7)
    assert [(p.size, p.epochs, p.learning_rate) for p in short.phases] == [(32, 1, 0.001)]
    assert (short.weight_decay, short.seed) == (0.1, 7)


def test_mixup_can_be_off_and_other_numbers_can_be_tuned() -> None:
    mixup = make_recipe().tune.space["augment.mixup"]
    assert [mixup.holds(value) for value in (0, 0.1, 0.4, 0.05, 0.5)] == [True] * 3 + [False] * 2
    space = {
        "drop_path": {"low": 0, "high": 0.3},
        "batch_size": {"low": 32, "high": 96, "step": 32},
    }
    plan = make_recipe(tune={"space": space})
    assert read_parameters(plan) == {"drop_path": 0, "batch_size": 64}
    assert apply_parameters(plan, {"drop_path": 0.1, "batch_size": 96.0}).batch_size == 96


def test_degradations_are_tuned_like_any_number() -> None:
    space = {
        "degrade.strength": {"low": 0.6, "high": 1.6, "step": 0.2},
        "degrade.noise": {"low": 0, "high": 20},
        "degrade.jpeg": {"low": 20, "high": 60, "step": 10},
    }
    plan = make_recipe(tune={"space": space}, degrade={"noise": 10, "jpeg": 30})
    assert read_parameters(plan) == {
        "degrade.strength": 1,
        "degrade.noise": 10,
        "degrade.jpeg": 30,
    }
    drawn = {"degrade.strength": 1.4, "degrade.noise": 5.5, "degrade.jpeg": 40.0}
    tuned = apply_parameters(plan, drawn).degrade
    assert (tuned.strength, tuned.noise, tuned.jpeg, tuned.blur) == (1.4, 5.5, 40, 0)
    with pytest.raises(ValidationError, match=r"degrade\.jpeg takes whole numbers"):
        make_recipe(tune={"space": {"degrade.jpeg": {"low": 20, "high": 60}}})


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ({"weight_dcay": {"low": 0, "high": 1}}, "weight_dcay can't be tuned: choose from"),
        ({"seed": {"low": 0, "high": 1}}, "seed can't be tuned"),
        ({"weight_decay": {"low": 0.2, "high": 0.1}}, "low must be below high"),
        ({"weight_decay": {"low": 0, "high": 0.1, "log": True}}, "begins above 0"),
        ({"augment.mixup": {"low": 0, "high": 0.4, "step": 0.3}}, "whole number of steps"),
        ({"augment.mixup": {"low": -1, "high": 1}}, "augment.mixup can't be -1"),
        ({"batch_size": {"low": 32, "high": 64}}, "whole step"),
        ({"dropout": {"low": 0, "high": 0.1, "steps": 3}}, "steps: Extra inputs"),
        (
            {
                "augment.jitter": {"low": 0, "high": 0.1},
                "augment.contrast": {"low": 0, "high": 0.1},
            },
            "already sets augment.contrast",
        ),
        ({}, "at least 1 item"),
    ],
)
def test_spaces_are_read_strictly(tmp_path: Path, space: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        recipe.read(write(tmp_path / "recipe.yaml", tune={"space": space}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight_decay": 0.0}, r"weight_decay, 0, is not in the range .*0\.001 to 0\.2"),
        ({"augment": {"mixup": 0.25}}, r"augment\.mixup, 0\.25, .* by 0\.1"),
        ({"augment": {"brightness": 0.1}}, "set them equal"),
        (
            {"phases": [RECIPE["phases"][0], {"size": 48, "epochs": 1, "learning_rate": 0.9}]},
            r"tuned: phases\.1\.learning_rate",
        ),
    ],
)
def test_the_default_must_lie_in_the_space(change: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_parameters(make_recipe(**change))
