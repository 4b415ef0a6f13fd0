"""What is kept of the changes that were tried."""

from __future__ import annotations

from training import choice
from training.recipe import Recipe

PLAIN = Recipe.model_validate(
    {
        "name": "bcd-small",
        "version": "0.0.1",
        "backbone": "mobilenetv2",
        "phases": [{"size": 32, "epochs": 1}],
        "augment": {"mixup": 0.1},
    }
)
TUNED = PLAIN.model_copy(update={"arm": "tuned", "weight_decay": 0.1})
CHANGES = {
    "little jitter": {"augment": {"brightness": 0.1}},
    "much jitter": {"augment": {"brightness": 0.3}},
    "average": {"ema": 0.9},
    "no balance": {"balance": "none"},
}


def test_nothing_that_helps_leaves_the_recipe_as_it_was() -> None:
    assert choice.combined(PLAIN, TUNED, 0.0019, CHANGES, {"average": 0.0019}) is PLAIN
    assert choice.combined(PLAIN, TUNED, 0.002, CHANGES, {}) is TUNED


def test_what_helps_is_put_together_and_rivals_are_not() -> None:
    gains = {"little jitter": 0.003, "much jitter": 0.004, "average": 0.002, "no balance": -0.01}
    found = choice.combined(PLAIN, TUNED, 0.01, CHANGES, gains)
    assert found.arm == choice.COMBINED
    assert found.augment.brightness == 0.3
    assert found.augment.mixup == 0.1
    assert found.weight_decay == 0.1
    assert found.ema == 0.9
    assert found.balance == PLAIN.balance


def test_the_best_on_all_folds_is_chosen_and_plain_where_level() -> None:
    both = PLAIN.model_copy(update={"arm": choice.COMBINED})
    assert choice.best([PLAIN, TUNED, both], {"tuned": 0.001, "combined": -0.002}) is TUNED
    assert choice.best([PLAIN, TUNED, both], {"tuned": 0.0, "combined": -0.002}) is PLAIN
