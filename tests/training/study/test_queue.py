"""What a study does at one time, and what it makes of what it found: no training, runs by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bcd_models.errors import InputError
from tests.conftest import ROOT
from tests.support.predicted import predicted
from training.recipes import schema as recipe
from training.study import stages as pipeline
from training.study.plan import Plan
from training.study.steps import Step

LABELS = "mmbb"
PERFECT, GOOD, PLAIN, BAD = [4.0, 3, 2, 1], [4.0, 2, 3, 1], [4.0, 1, 3, 2], [1.0, 2, 3, 4]
BETTER, LEVEL, WORSE = "jitter", "layer decay", "no balance"
SETS: dict[str, Any] = {
    BETTER: {"augment": {"brightness": 0.1}},
    LEVEL: {"layer_decay": 0.8},
    WORSE: {"balance": "none"},
}
OWN = "efficientnet_b2"


def change(arm: str, sets: dict[str, Any], backbone: str | None = None) -> dict[str, Any]:
    return {"arm": arm, "set": sets, "backbone": backbone}


def planned(out: Path, *changes: dict[str, Any], **others: Any) -> pipeline.Study:
    """A study of the two backbones' small recipes, whose tunings are there."""
    folder = ROOT / "tests" / "support" / "smoke"
    names = ("mobilenetv2.yaml", "efficientnet_b2.yaml")
    document = {"recipes": names, "folds": (0, 1, 2), "trials": 2}
    plan = Plan.model_validate(document | {"changes": changes} | others)
    recipes = {one.backbone: one for one in (recipe.read(folder / name) for name in names)}
    for backbone, plain in recipes.items():
        tuned = plain.model_copy(update={"arm": "tuned", "weight_decay": 0.1})
        path = out / "tune" / backbone / pipeline.BEST
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump(tuned.model_dump(mode="json", exclude_unset=True)))
    return pipeline.Study(plan, recipes, Path("corpus"), out, None, None, None)


def finish(stage: list[Step], said: dict[str, list[float]]) -> None:
    """Leave what the steps of a stage would: predictions by arm or whole name, else plain ones."""
    for step in stage:
        if step.module in ("train", "train.rescore") and step.result and not step.is_done:
            arm = step.name.split(", ")[1]
            predicted(step.result.parent, LABELS, said.get(step.name, said.get(arm, PLAIN)))
            step.result.mkdir()


def names(stage: list[Step]) -> list[str]:
    return [step.name for step in stage]


def walked(study: pipeline.Study, said: dict[str, list[float]]) -> Iterator[list[Step]]:
    for stage in pipeline.plan_stages(study):
        yield stage
        finish(stage, said)


def recipes_of(stage: list[Step], arm: str) -> dict[str, recipe.Recipe]:
    """The recipes that an arm is trained by, by backbone."""
    found = [recipe.read(Path(s.arguments[1])) for s in stage if f", {arm}, " in s.name]
    return {one.backbone: one for one in found}


def test_what_waits_for_nothing_is_done_first_and_the_longest_before(tmp_path: Path) -> None:
    changes = [change(BETTER, SETS[BETTER]), change("views", {"views": 8})]
    study = planned(tmp_path, *changes, change("short", {"layer_decay": 0.9}, OWN))
    first, second = (stage for stage, _ in zip(walked(study, {}), range(2), strict=False))
    plain = [f"{backbone}, plain, fold-{k}" for backbone in study.recipes for k in range(3)]
    alone = ["mobilenetv2, jitter, fold-0", f"{OWN}, short, fold-0"]
    tunings = ["mobilenetv2: study", f"{OWN}: study"]
    assert names(first) == [*tunings, "colour statistics alone", *plain, *alone]
    tuned = [f"{backbone}, tuned, fold-{k}" for backbone in study.recipes for k in range(2)]
    views = ["mobilenetv2, views, fold-0", "mobilenetv2, views, fold-1"]
    alone = [name.replace("fold-0", "fold-1") for name in alone]
    assert names(second) == [*tuned, *views, *alone]
    rescored = [step for step in second if step.module == "train.rescore"]
    assert names(rescored) == views
    assert rescored[1].arguments[0] == str(tmp_path / "runs/mobilenetv2/plain/fold-1")


def test_the_command_of_a_tuning_stays_as_studies_are_bound_to_it(tmp_path: Path) -> None:
    first, *_ = next(pipeline.plan_stages(planned(tmp_path)))
    config = tmp_path / "recipes" / "mobilenetv2-plain-grouped.yaml"
    out = tmp_path / "tune" / "mobilenetv2"
    asked = ["--config", str(config), "--corpus", "corpus", "--out", str(out)]
    assert first.module == "tune"
    assert first.arguments == [*asked, "--trials", "2"]
    assert first.result == out / "tuned.yaml"


def test_a_change_that_is_behind_plain_is_not_trained_again(tmp_path: Path) -> None:
    study = planned(tmp_path, *(change(arm, sets) for arm, sets in SETS.items()))
    stages = walked(study, {BETTER: GOOD, LEVEL: PLAIN, WORSE: BAD})
    first, second, third = (next(stages) for _ in range(3))
    raced = {name for name in names(first) if "plain" not in name and "fold-0" in name}
    assert raced == {f"mobilenetv2, {arm}, fold-0" for arm in SETS}
    again = {name for name in names(second) if "tuned" not in name}
    assert again == {f"mobilenetv2, {arm}, fold-1" for arm in (BETTER, LEVEL)}
    assert third[0].module == "compare"


def test_each_next_fold_is_for_those_ahead_on_all_so_far(tmp_path: Path) -> None:
    changes = [change(arm, SETS[arm]) for arm in (BETTER, LEVEL)]
    study = planned(tmp_path, *changes, change_folds=(2, 0, 1))
    behind = {f"mobilenetv2, {BETTER}, fold-0": [2.5, 1, 3, 2]}  # and ahead on both folds together
    behind |= {f"mobilenetv2, {LEVEL}, fold-0": BAD}
    stages = walked(study, {BETTER: PERFECT, LEVEL: GOOD} | behind)
    for arms, fold in (([BETTER, LEVEL], 2), ([BETTER, LEVEL], 0), ([BETTER], 1)):
        raced = [name for name in names(next(stages)) if BETTER in name or LEVEL in name]
        assert raced == [f"mobilenetv2, {arm}, fold-{fold}" for arm in arms]


def test_a_backbones_own_change_runs_against_its_own_plain(tmp_path: Path) -> None:
    study = planned(tmp_path, change("short", SETS[BETTER], OWN))
    behind = {"short": GOOD} | {f"{OWN}, plain, fold-{k}": PERFECT for k in range(3)}
    _, second = (stage for stage, _ in zip(walked(study, behind), range(2), strict=False))
    assert not [name for name in names(second) if "short" in name]


def test_each_backbone_gets_what_helped_it_or_the_first(tmp_path: Path) -> None:
    own = {"augment": {"brightness": 0.3}, "ema": 0.9}
    changes = [change(arm, SETS[arm]) for arm in (BETTER, WORSE)]
    study = planned(tmp_path, *changes, change("its own", own, OWN), change_folds=(0,))
    stages = walked(study, {BETTER: GOOD, WORSE: BAD, "its own": PERFECT})
    combined = recipes_of([next(stages) for _ in range(3)][-1], "combined")
    assert combined["mobilenetv2"].augment.brightness == 0.1
    assert combined["mobilenetv2"].ema == 0
    assert combined[OWN].augment.brightness == 0.3
    assert combined[OWN].ema == 0.9
    assert {one.balance for one in combined.values()} == {"sampler"}


def test_a_lesser_gain_of_its_own_leaves_the_first_ones(tmp_path: Path) -> None:
    own = change("its own", {"augment": {"brightness": 0.3}}, OWN)
    study = planned(tmp_path, change(BETTER, SETS[BETTER]), own, change_folds=(0,))
    stages = walked(study, {BETTER: PERFECT, "its own": GOOD})
    combined = recipes_of([next(stages) for _ in range(3)][-1], "combined")
    assert combined[OWN].augment.brightness == 0.1


def chosen(stages: Iterator[list[Step]]) -> list[str]:
    """The names of the refits."""
    refits = next(stage for stage in stages if stage[0].name == "the changes together")
    return [name for name in names(refits) if name.endswith(", all")]


def test_the_tuned_recipe_is_trained_on_all_folds_once_it_helps(tmp_path: Path) -> None:
    stages = walked(planned(tmp_path), {"mobilenetv2, tuned, fold-0": PERFECT})
    third = [next(stages) for _ in range(3)][-1]
    undone = [step.name for step in third[1:] if not step.is_done]
    assert undone == ["mobilenetv2, tuned, fold-2"]
    assert chosen(stages) == ["mobilenetv2, tuned, all", f"{OWN}, plain, all"]


def test_what_loses_on_all_folds_is_not_refitted(tmp_path: Path) -> None:
    said = {"tuned": GOOD, "mobilenetv2, tuned, fold-2": BAD}
    said |= {"mobilenetv2, plain, fold-2": PERFECT}
    stages = walked(planned(tmp_path), said)
    assert chosen(stages) == ["mobilenetv2, plain, all", f"{OWN}, tuned, all"]


@pytest.mark.parametrize(("averaged", "kept"), [(PERFECT, 8), (GOOD, 1), (PLAIN, 1)])
def test_views_stay_where_they_are_worth_their_cost(
    tmp_path: Path, averaged: list[float], kept: int
) -> None:
    changes = [change("views", {"views": 8}), change(BETTER, SETS[BETTER])]
    study = planned(tmp_path, *changes, change_folds=(0,))
    eight = {f"mobilenetv2, combined, 8 views, fold-{fold}": averaged for fold in range(3)}
    stages = walked(study, {"views": GOOD, BETTER: GOOD, "combined": GOOD} | eight)
    *_, together, several, refits = (next(stages) for _ in range(5))
    assert {step.module for step in together[1:]} == {"train"}
    assert {one.views for one in recipes_of(together, "combined").values()} == {1}
    assert {step.module for step in several} == {"train.rescore"}
    first = several[0]
    assert first.arguments[0] == str(tmp_path / "runs/mobilenetv2/combined/fold-0")
    assert first.arguments[-4:] == ["--arm", "combined, 8 views", "--views", "8"]
    refitted = next(step for step in refits if step.name.endswith(", all"))
    assert recipe.read(Path(refitted.arguments[1])).views == kept


def test_where_views_alone_help_nothing_is_trained_again(tmp_path: Path) -> None:
    study = planned(tmp_path, change("views", {"views": 8}), change_folds=(0,))
    stages = walked(study, {"views": GOOD, "mobilenetv2, tuned, fold-0": PERFECT})
    *_, together = (next(stages) for _ in range(3))
    trained = [step.name for step in together if step.module == "train" and not step.is_done]
    assert trained == ["mobilenetv2, tuned, fold-1", "mobilenetv2, tuned, fold-2"]
    arms = {step.name.rpartition(", ")[0] for step in next(stages)}
    assert arms == {"mobilenetv2, tuned, 8 views", f"{OWN}, plain, 8 views"}


def test_refits_then_their_tests_then_the_report(tmp_path: Path) -> None:
    study = planned(tmp_path, shares=(0.5,))
    *_, refits, tests, report = walked(study, {})
    both = [f"{backbone}, plain, all" for backbone in study.recipes]
    first = [f"mobilenetv2, plain, {split}" for split in ("grouped", "random")]
    assert names(refits) == [
        "the changes together",
        *both,
        *first,
        *(f"mobilenetv2, plain, neighbours-fold-{fold}" for fold in (0, 1)),
        *(f"mobilenetv2, 0.5 of the cases, fold-{fold}" for fold in (0, 1)),
    ]
    assert names(tests) == [f"{name}: test part" for name in (*both, *first)]
    assert {step.module for step in tests} == {"evaluate"}
    assert names(report) == ["the comparison"]


def test_a_taught_run_has_teachers_that_see_no_more_than_it(tmp_path: Path) -> None:
    study = planned(tmp_path, change("taught", {"teachers": 0.5}), change_folds=(0,))
    stages = walked(study, {"taught": PERFECT, "combined": PERFECT})
    first = next(stages)
    (taught,) = [step for step in first if step.before]
    assert taught.name == "mobilenetv2, taught, fold-0"
    folder = tmp_path / "teachers" / "mobilenetv2" / "taught" / "fold-0"
    assert taught.arguments[-2:] == ["--teacher", str(folder)]
    assert taught.before
    assert taught.before.module == "train.teach"
    assert taught.before.result == folder / "predictions.parquet"
    assert taught.before.arguments[-2:] == ["--fold", "0"]
    refits = [step for stage in stages for step in stage if step.name.endswith(", all")]
    for refit in refits:
        assert "--decision-from" in refit.arguments
        assert refit.before
        assert refit.before.arguments[-1] == "--hold-nothing"
        assert "--decision-from" not in refit.before.arguments


def test_a_launcher_and_several_workers_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--launch and --workers 2"):
        pipeline.carry_out(planned(tmp_path), ["accelerate", "launch", "-m"], 2)
