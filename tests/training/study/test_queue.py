"""What a study does next: no training, what steps leave is made by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from bcd_models.errors import BCDError, InputError
from tests.conftest import ROOT
from tests.support.predictions import write_predictions
from tests.support.processes import running
from tests.support.reports import make_report
from training.compare import page
from training.compare.schema import Asked, Context, Report
from training.recipes import schema as recipe
from training.study import queue, release_plan, steps
from training.study.plan import apply_arm, make_file_name, read_plan
from training.study.queue import do_next
from training.study.release_plan import Pages, plan_release
from training.study.steps import Step
from training.study.trainings import Study, plan_trainings
from training.tune.search import BEST
from training.tune.space import read_parameters

SMOKE = ROOT / "tests" / "support" / "smoke"
DEGRADED = {
    "name": "degraded, twice",
    "recipe": "mobilenetv2.yaml",
    "trials": 2,
    "set": {"degrade": {"blur": 1.0}},
    "folds": [1, 0],
    "seeds": [3, 0],
    "refit": True,
}
CLEAN = {
    "name": "clean",
    "recipe": "mobilenetv2.yaml",
    "trials": 2,
    "set": {"augment": None, "dropout": 0.1},
    "folds": [0],
}
HEAVY = {"name": "clean", "recipe": "efficientnet_b2.yaml", "folds": [2]}
TRAININGS = [
    "mobilenetv2: tuning",
    "mobilenetv2/degraded-twice/seed-3-fold-1: answers",
    "mobilenetv2/degraded-twice/seed-3-fold-0: answers",
    "mobilenetv2/degraded-twice/seed-0-fold-1: answers",
    "mobilenetv2/degraded-twice/seed-0-fold-0: answers",
    "mobilenetv2, degraded, twice, all",
    "mobilenetv2/clean/seed-0-fold-0: answers",
    "efficientnet_b2/clean/seed-0-fold-2: answers",
]

HOLD = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print(1, flush=True)
    sys.stdin.read()
"""


def write_plan(path: Path, *arms: dict[str, Any]) -> Path:
    """A plan beside the miniature recipes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in ("mobilenetv2.yaml", "efficientnet_b2.yaml"):
        (path.parent / name).write_bytes((SMOKE / name).read_bytes())
    path.write_text(yaml.safe_dump({"arms": list(arms)}))
    return path


def begin(folder: Path, *arms: dict[str, Any], starts: Path | None = None) -> Study:
    """A study of these arms of which nothing is done."""
    path = write_plan(folder / "plan" / "study.yaml", *(arms or (DEGRADED, CLEAN, HEAVY)))
    return Study(read_plan(path), path.parent, Path("corpus"), folder / "study", starts)


def tune(study: Study) -> None:
    """Leave a tuning's best recipe."""
    tuned = recipe.read(study.recipes / "mobilenetv2.yaml")
    tuned = tuned.model_copy(update={"arm": "tuned", "weight_decay": 0.1})
    path = study.out / "tune" / "mobilenetv2" / BEST
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tuned.model_dump(mode="json", exclude_unset=True)))


def flatten(stages: Iterator[list[Step]]) -> list[Step]:
    return [step for stage in stages for step in stage]


def find(study: Study, name: str) -> Step:
    return next(step for step in flatten(plan_trainings(study)) if step.name == name)


def get_option(step: Step, name: str) -> str:
    return step.arguments[step.arguments.index(f"--{name}") + 1]


def write_report(study: Study, **sections: Any) -> None:
    """Leave what a comparison writes."""
    folder = study.out / release_plan.REPORT
    folder.mkdir(parents=True, exist_ok=True)
    (folder / page.REPORT).write_text(make_report(**sections).model_dump_json())


# What is trained, in order, and by what.


def test_arms_are_trained_in_turn_seed_by_seed(tmp_path: Path) -> None:
    study = begin(tmp_path)
    tune(study)
    stages = [[step.name for step in stage] for stage in plan_trainings(study) if stage]
    again = ["mobilenetv2: tuning"]  # already done by then
    assert stages == [
        TRAININGS[:1],
        TRAININGS[1:5],
        TRAININGS[5:6],
        again,
        TRAININGS[6:7],
        TRAININGS[7:],
    ]


def test_a_fold_is_trained_and_then_asked(tmp_path: Path) -> None:
    study = begin(tmp_path)
    tune(study)
    step = find(study, TRAININGS[1])
    run = study.out / "runs" / "mobilenetv2" / "degraded-twice" / "seed-3-fold-1"
    assert step.module == "evaluate.answers"
    assert step.arguments == [str(run), "--corpus", "corpus"]
    assert step.result == run / "answers.parquet"
    training = step.before
    assert training is not None
    assert (training.module, training.result) == ("train", run / "model")
    config = study.out / "recipes" / "mobilenetv2-degraded-twice-3.yaml"
    asked = ["--config", str(config), "--corpus", "corpus", "--out", str(run)]
    assert training.arguments == [*asked, "--fold", "1", "--resume"]


def test_an_arm_is_trained_by_the_tuned_recipe_and_what_it_sets(tmp_path: Path) -> None:
    study = begin(tmp_path)
    tune(study)
    by_seed = {}
    for name in TRAININGS[1:5]:
        training = find(study, name).before
        assert training is not None
        trained = recipe.read(Path(get_option(training, "config")))
        by_seed[trained.seed] = trained
    assert by_seed.keys() == {0, 3}
    for trained in by_seed.values():
        assert (trained.arm, trained.weight_decay) == ("degraded, twice", 0.1)
        assert trained.degrade.list_strengths() == {"blur": 1}
        assert trained.augment.flips
    clean = study.read_recipe(study.plan.arms[1])
    assert (clean.weight_decay, clean.dropout) == (0.1, 0.1)
    assert not clean.degrade.is_on
    assert clean.augment == recipe.Augment()  # none in the recipe any more
    plain = recipe.read(study.recipes / "efficientnet_b2.yaml")
    assert study.read_recipe(study.plan.arms[2]) == plain.model_copy(update={"arm": "clean"})


def test_the_recipe_itself_is_tuned(tmp_path: Path) -> None:
    study = begin(tmp_path)
    (tuning,) = next(plan_trainings(study))
    out = study.out / "tune" / "mobilenetv2"
    config = str(study.recipes / "mobilenetv2.yaml")
    asked = ["--config", config, "--corpus", "corpus", "--out", str(out), "--trials", "2"]
    assert (tuning.module, tuning.arguments) == ("tune", asked)
    assert tuning.result == out / "tuned.yaml"


def test_a_refit_takes_its_decision_from_its_own_seeds_folds(tmp_path: Path) -> None:
    study = begin(tmp_path)
    tune(study)
    refit = find(study, TRAININGS[5])
    arm = study.out / "runs" / "mobilenetv2" / "degraded-twice"
    assert (refit.module, refit.result) == ("train", arm / "all" / "model")
    given = refit.arguments[refit.arguments.index("--decision-from") :]
    folds = [arm / f"seed-3-fold-{fold}" for fold in (1, 0)]
    assert given == [
        *("--decision-from", str(folds[0])),
        *("--decision-from", str(folds[1])),
        "--resume",
    ]
    assert "--fold" not in refit.arguments
    assert recipe.read(Path(get_option(refit, "config"))).seed == 3


def test_imagenets_weights_come_before_those_that_are_none(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    starts.mkdir()
    begun = HEAVY | {"set": {"start": "imagenet"}}
    study = begin(tmp_path, begun, starts=starts)
    with pytest.raises(InputError, match=r"efficientnet_b2_imagenet\.safetensors are missing"):
        list(plan_trainings(study))
    for ending in ("init", "imagenet"):
        file = starts / f"efficientnet_b2_{ending}.safetensors"
        file.touch()
        (step,) = flatten(plan_trainings(study))
        assert step.before is not None
        assert get_option(step.before, "start") == str(file)
    (step,) = flatten(plan_trainings(begin(tmp_path, HEAVY, starts=starts)))
    assert step.before is not None
    assert "--start" not in step.before.arguments  # the recipe begins with none


def test_a_release_is_made_of_what_the_folds_answered(tmp_path: Path) -> None:
    study = begin(tmp_path)
    tune(study)
    run = study.out / "runs" / "mobilenetv2" / "degraded-twice"
    for name in ("all", "seed-3-fold-0"):
        (run / name / "model").mkdir(parents=True)
    stages = plan_release(study, Pages())
    first = [[step.module for step in next(stages)] for _ in range(2)]
    assert first == [["evaluate.floors", "evaluate.suitability"], ["compare"]]
    write_report(study)
    ((points,), (ladder,), (slides,), (test,), (comparison,)) = stages
    folds = [*("--run", str(run / "seed-3-fold-1")), *("--run", str(run / "seed-3-fold-0"))]
    modules = ["evaluate.decide", "study.ladder", "study.slides"]
    assert [step.module for step in (points, ladder, slides)] == modules
    for step in (points, ladder, slides):
        assert step.arguments[-4:] == folds
        assert get_option(step, "model") == str(run / "all" / "model")
    assert (test.name, test.module) == ("mobilenetv2, degraded, twice, all: test part", "evaluate")
    assert get_option(test, "model") == str(run / "all" / "model")
    assert test.result == run / "all" / "metrics-test.json"
    assert comparison.arguments[:2] == [str(run / "all"), str(run / "seed-3-fold-0")]
    pages = Pages(Path("cards"), Path("README.md"), Path("slides.md"))
    *_, (folders,) = plan_release(study, pages)
    assert folders.module == "study.release"
    assert folders.arguments[0] == str(run / "all")
    for name, page_ in (("cards", "cards"), ("readme", "README.md"), ("slides-page", "slides.md")):
        assert get_option(folders, name) == page_


# Arms that others before them decide about.

TEACHERS = (
    CLEAN | {"name": "clean, slow", "trials": 0, "folds": [0, 1], "refit": True},
    HEAVY | {"folds": [1, 2], "refit": True},
)
TAUGHT = {
    "name": "distilled",
    "recipe": "mobilenetv2.yaml",
    "set": {"teachers": 0.5},
    "folds": [1],
    "refit": True,
    "taught_by": ["mobilenetv2/clean, slow", "efficientnet_b2/clean"],
}
LIFTING = {
    "name": "dark horse",
    "recipe": "mobilenetv2.yaml",
    "folds": [2, 0],
    "refit": True,
    "lifts": ["efficientnet_b2/clean", "mobilenetv2/clean, slow"],
}


def test_a_student_hears_runs_that_held_out_what_it_does(tmp_path: Path) -> None:
    study = begin(tmp_path, *TEACHERS, TAUGHT)
    names = ("mobilenetv2/clean-slow", "efficientnet_b2/clean")  # of folders
    teachers = [study.out / "runs" / name for name in names]
    training = find(study, "mobilenetv2/distilled/seed-0-fold-1: answers").before
    assert training is not None
    refit = find(study, "mobilenetv2, distilled, all")
    for step, held in ((training, "seed-0-fold-1"), (refit, "all")):
        heard = [str(teacher / held) for teacher in teachers]
        assert step.arguments[-5:-1] == ["--teacher", heard[0], "--teacher", heard[1]]
    *_, asked, refits = plan_trainings(study)
    assert refits == [refit]  # whose teachers are asked before it
    assert [step.result for step in asked] == [one / "all" / "answers.parquet" for one in teachers]


LABELS = "mmbb"
FIRST_WRONG = [-1.0, 2.0, 0.5, -3.0]
LIFTS = {"worse": [-9.0, -9.0, 9.0, 9.0], "level": [0.0] * 4, "better": [2.0, 2.0, -2.0, -2.0]}


@pytest.mark.parametrize("said", LIFTS)
def test_an_arm_goes_on_where_its_first_fold_lifts_the_ensemble(tmp_path: Path, said: str) -> None:
    study = begin(tmp_path, HEAVY, TEACHERS[0] | {"folds": [2], "refit": False}, LIFTING)
    margins = {
        "efficientnet_b2/clean": FIRST_WRONG,
        "mobilenetv2/clean-slow": [2 * margin for margin in FIRST_WRONG],
        "mobilenetv2/dark-horse": LIFTS[said],
    }
    for name, told in margins.items():
        write_predictions(study.out / "runs" / name / "seed-0-fold-2", LABELS, told)
    stages = [[step.name for step in stage] for stage in plan_trainings(study)][2:]
    first, second = (f"mobilenetv2/dark-horse/seed-0-fold-{fold}: answers" for fold in (2, 0))
    assert stages[0] == [first]
    rest = [[first, second], [], ["mobilenetv2, dark horse, all"]]
    assert stages[1:] == (rest if said == "better" else [])
    write_report(study)
    _, _, decided, _, _, tested, *_ = plan_release(study, Pages())
    assert len(decided) == (said == "better")
    of_refits = ["mobilenetv2, dark horse, all: test part"] if said == "better" else []
    assert [step.name for step in tested] == of_refits


# The next one.


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What steps were done; each leaves an empty result, a tuning its recipe."""
    names: list[str] = []

    def leave(step: Step, launch: list[str], workers: int) -> int:
        assert workers == 1
        names.append(step.name)
        assert step.result is not None
        step.result.parent.mkdir(parents=True, exist_ok=True)
        if step.module == "tune":
            step.result.write_bytes(Path(get_option(step, "config")).read_bytes())
        else:
            step.result.touch()
        return 0

    monkeypatch.setattr(steps, "_do_step", leave)
    return names


def test_the_next_is_what_is_missing_first(done: list[str], tmp_path: Path) -> None:
    study = begin(tmp_path)
    asked = [do_next(study) for _ in range(len(TRAININGS) + 1)]
    assert asked == [*TRAININGS, None]
    folds = [name for name in TRAININGS if name.endswith(": answers")]
    assert [name for name in done if name in folds] == folds
    trained = [name for name in done if ", fold" in name]
    assert [done.index(name) + 1 for name in trained] == [done.index(name) for name in folds]


def test_what_was_trained_and_not_asked_is_only_asked(done: list[str], tmp_path: Path) -> None:
    study = begin(tmp_path, HEAVY)
    (study.out / "runs" / "efficientnet_b2" / "clean" / "seed-0-fold-2" / "model").mkdir(
        parents=True
    )
    assert do_next(study) == TRAININGS[7]
    assert done == [TRAININGS[7]]


@contextmanager
def claimed(study: Study, name: str) -> Iterator[None]:
    """Another process has a step in hand."""
    lock = study.out / "claims" / make_file_name(name)
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = [sys.executable, "-c", HOLD, lock]
    with running(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        yield


def test_what_another_process_has_in_hand_is_left_to_it(done: list[str], tmp_path: Path) -> None:
    study = begin(tmp_path)
    with claimed(study, TRAININGS[0]):
        with pytest.raises(InputError, match="mobilenetv2: tuning is another process' at this"):
            do_next(study)
    assert do_next(study) == TRAININGS[0]
    with claimed(study, TRAININGS[1]):
        assert [do_next(study) for _ in range(3)] == TRAININGS[2:5]
        with pytest.raises(InputError, match="seed-3-fold-1: answers is another process'"):
            do_next(study)  # the refit needs it
    assert [do_next(study) for _ in range(2)] == [TRAININGS[1], TRAININGS[5]]


def test_the_next_is_started_by_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = write_plan(tmp_path / "study.yaml", HEAVY)
    asked = []
    monkeypatch.setattr(steps, "_do_step", lambda _, launch, __: asked.append(launch) or 2)
    with pytest.raises(BCDError, match="failed"):
        queue.main(tmp_path, tmp_path, plan, launch="accelerate launch -m", take_next=True)
    assert asked == [["accelerate", "launch", "-m"]]


def test_what_failed_is_free_again(
    done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(tmp_path, HEAVY)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "_do_step", lambda *_: 2)
        with pytest.raises(BCDError, match="step 'efficientnet_b2, clean, seed 0, fold 2' failed"):
            do_next(study)
    assert do_next(study) == TRAININGS[7]


def test_a_launcher_and_several_workers_exclude_each_other(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "study.yaml", HEAVY)
    with pytest.raises(InputError, match="--launch and --workers 2"):
        queue.main(tmp_path, tmp_path, plan, launch="accelerate launch -m", workers=2)


# Plans.


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trails": 3}, "trails"),
        ({"trials": -1}, "trials"),
        ({"folds": []}, "folds"),
        ({"folds": [5]}, r"folds\.0"),
        ({"folds": [1, 1]}, "arm 'clean': it names a fold twice"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, r"seeds\.0"),
        ({"seeds": [2, 2]}, "it names a seed twice"),
        ({"name": ""}, "name"),
        ({"recipe": "none.yaml"}, r"none\.yaml can't be read"),
        ({"set": {"dropuot": 0.1}}, "arm 'clean': dropuot"),
        ({"set": {"degrade": {"blurr": 1}}}, r"arm 'clean': degrade\.blurr"),
        ({"set": {"phases": None}}, "arm 'clean': phases"),
    ],
)
def test_a_wrong_arm_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_plan(write_plan(tmp_path / "study.yaml", CLEAN | change))


def test_arms_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for change, reason in [
        ({"name": "more", "trials": 3}, "arm 'more': another one has mobilenetv2.yaml tuned"),
        ({"set": {}}, "mobilenetv2 has two arms 'clean'"),
        ({"name": "more", "lifts": ["mobilenetv2/more"]}, "'mobilenetv2/more' is no arm before it"),
        ({"name": "more", "taught_by": ["resnet18/clean"]}, "'resnet18/clean' is no arm before it"),
        ({"name": "more", "recipe": "./mobilenetv2.yaml"}, "another one has ./mobilenetv2.yaml"),
    ]:
        with pytest.raises(InputError, match=reason):
            read_plan(write_plan(tmp_path / "study.yaml", CLEAN, CLEAN | change))
    two = [CLEAN | {"name": name} for name in ("as is", "as-is")]  # of one folder
    with pytest.raises(InputError, match="mobilenetv2 has two arms 'as-is'"):
        read_plan(write_plan(tmp_path / "study.yaml", *two))
    read_plan(write_plan(tmp_path / "study.yaml", CLEAN, HEAVY))


def test_an_arm_takes_runs_that_others_surely_have(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    read_plan(write_plan(path, *TEACHERS, TAUGHT))
    for change in ({"folds": [1, 2]}, {"seeds": [0, 1]}):
        with pytest.raises(InputError, match="'mobilenetv2/clean, slow' may lack runs"):
            read_plan(write_plan(path, *TEACHERS, TAUGHT | change))
    apart = TEACHERS[0], TEACHERS[1] | {"refit": False}
    with pytest.raises(InputError, match="'efficientnet_b2/clean' may lack runs"):
        read_plan(write_plan(path, *apart, TAUGHT))
    read_plan(write_plan(path, *apart, TAUGHT | {"refit": False}))
    dropped = TEACHERS[1] | {"lifts": ["mobilenetv2/clean, slow"], "folds": [1]}
    with pytest.raises(InputError, match="'efficientnet_b2/clean' may lack runs"):
        read_plan(write_plan(path, TEACHERS[0], dropped, TAUGHT))
    with pytest.raises(InputError, match="'mobilenetv2/clean, slow' may lack runs"):
        read_plan(write_plan(path, *TEACHERS, LIFTING))  # its first fold is 2


@pytest.mark.parametrize("text", ["arms: []", "arms: 3", "recipes: [mobilenetv2.yaml]", ": :"])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"plan .*study\.yaml"):
        read_plan(path)
    with pytest.raises(InputError, match="can't be read"):
        read_plan(tmp_path / "none.yaml")


def test_every_arm_of_the_project_makes_a_recipe_of_its_own() -> None:
    plan = read_plan(queue.PLAN)
    study = Study(plan, queue.PLAN.parent, Path(), Path(), None)
    plain = [recipe.read(study.recipes / arm.recipe) for arm in plan.arms]
    for one, arm in zip(plain, plan.arms, strict=True):
        if arm.trials:
            read_parameters(one)  # what is tuned holds the recipe's own numbers
    made = [
        apply_arm(one, arm).decides() | {"arm": ""}
        for one, arm in zip(plain, plan.arms, strict=True)
    ]
    assert all(one not in made[:place] for place, one in enumerate(made))
    (recommended, *_) = plan.arms
    assert recommended.refit
    assert (len(recommended.folds), len(recommended.seeds)) == (5, 3)


def test_tiles_are_averaged_where_that_lifts_every_whole_case() -> None:
    def say(*gains: float) -> Report:
        alone = {"auroc": 0.9, "recall": 0.5, "specificity": 0.5}
        cases = [
            {
                "case": f"idc/{number}",
                "tiles": 9,
                "sigma": 1.0,
                "alone": alone,
                "with_neighbours": alone | {"auroc": 0.9 + gain},
            }
            for number, gain in enumerate(gains)
        ]
        context = Context.model_validate_json(json.dumps({"sigma": 1.5, "cases": cases}))
        asked = Asked.model_construct(arm="mobilenetv2/degraded, seed 0", context=context)
        return Report.model_construct(asked=(asked,))

    name = "mobilenetv2/degraded, seed 0"
    assert release_plan.choose_context(say(0.01, 0.02), name) == 1.5
    assert release_plan.choose_context(say(0.01, -0.001), name) == 0
    assert release_plan.choose_context(say(0.01), "another, seed 0") == 0
