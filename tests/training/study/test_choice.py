"""What is kept of the changes that were tried."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.support.predicted import predicted
from training.recipes.schema import Recipe
from training.study import choice

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
    gains = dict.fromkeys(CHANGES, 0.0019)
    assert choice.combine(PLAIN, TUNED, 0.0019, CHANGES, gains) is PLAIN
    assert choice.combine(PLAIN, TUNED, 0.002, CHANGES, gains) is TUNED


def test_what_helps_is_put_together_and_rivals_are_not() -> None:
    gains = {"little jitter": 0.003, "much jitter": 0.004, "average": 0.002, "no balance": -0.01}
    found = choice.combine(PLAIN, TUNED, 0.01, CHANGES, gains)
    assert found.arm == choice.COMBINED
    assert found.augment.brightness == 0.3
    assert found.augment.mixup == 0.1
    assert found.weight_decay == 0.1
    assert found.ema == 0.9
    assert found.balance == PLAIN.balance


def test_a_change_yields_to_what_tuning_chose_and_gains_more_with() -> None:
    tuned = TUNED.model_copy(update={"augment": PLAIN.augment.model_copy(update={"mixup": 0.3})})
    changes = {"MixUp": {"augment": {"mixup": 0.2}}, "average": {"ema": 0.9}}
    found = choice.combine(PLAIN, tuned, 0.005, changes, {"MixUp": 0.004, "average": 0.003})
    assert (found.augment.mixup, found.ema, found.weight_decay) == (0.3, 0.9, 0.1)
    found = choice.combine(PLAIN, tuned, 0.005, changes, {"MixUp": 0.006, "average": 0.0})
    assert (found.augment.mixup, found.ema, found.weight_decay) == (0.2, 0.0, 0.1)


def test_the_better_on_all_folds_is_chosen_and_plain_where_level() -> None:
    assert choice.choose_better(PLAIN, TUNED, 0.001) is TUNED
    assert choice.choose_better(PLAIN, TUNED, 0.0) is PLAIN
    assert choice.choose_better(PLAIN, TUNED, -0.001) is PLAIN


def test_several_views_must_gain_enough_in_nearly_all_draws_of_the_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [predicted(tmp_path / "ours" / f"case-{i}", "mb", [1.0, 0.0]) for i in range(8)]
    for number, case in enumerate(cases):
        table = pd.read_parquet(case / "predictions.parquet")
        table.assign(case_id=f"idc/{number}").to_parquet(case / "predictions.parquet")
    theirs = [shutil.copytree(case, tmp_path / "theirs" / case.name) for case in cases]
    for wrong in theirs[:1]:
        table = pd.read_parquet(wrong / "predictions.parquet")
        table.assign(margin=-table["margin"]).to_parquet(wrong / "predictions.parquet")
    assert choice.measure_gain(cases, theirs) > 0
    assert not choice.are_worth_their_cost(cases, theirs)  # one case in eight: a draw may lack it
    for wrong in theirs[1:7]:
        table = pd.read_parquet(wrong / "predictions.parquet")
        table.assign(margin=-table["margin"]).to_parquet(wrong / "predictions.parquet")
    assert choice.are_worth_their_cost(cases, theirs)
    assert not choice.are_worth_their_cost(theirs, cases)
    monkeypatch.setattr(choice, "MIN_GAIN_OF_VIEWS", 0.99)
    assert not choice.are_worth_their_cost(cases, theirs)


def test_a_gain_is_pooled_over_folds_on_the_rows_of_both(tmp_path: Path) -> None:
    ours = [predicted(tmp_path / "ours" / "fold-0", "mmb", [2.0, 0.0, 1.0])]
    theirs = [predicted(tmp_path / "plain" / "fold-0", "mmb", [0.0, 0.0, 1.0])]
    assert choice.measure_gain(ours, theirs) == pytest.approx(1 / 2 - 0)
    # Of six pairs of a malignant and a benign image, whichever fold each is of:
    ours.append(predicted(tmp_path / "ours" / "fold-1", "mb", [3.0, -1.0]))
    theirs.append(predicted(tmp_path / "plain" / "fold-1", "mb", [3.0, -1.0]))
    assert choice.measure_gain(ours, theirs) == pytest.approx(5 / 6 - 4 / 6)
    theirs.append(predicted(tmp_path / "plain" / "fold-2", "mb", [0.0, 9.0]))
    assert choice.measure_gain(ours, theirs) == pytest.approx(5 / 6 - 4 / 6)
    other = predicted(tmp_path / "ours" / "fold-3", "mb", [0.0, 9.0], "breakhis")
    same = predicted(tmp_path / "plain" / "fold-3", "mb", [9.0, 0.0], "breakhis")
    assert choice.measure_gain([*ours, other], [*theirs, same]) == pytest.approx(5 / 6 - 4 / 6)
