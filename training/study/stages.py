"""The whole way from a corpus to the comparison, stage by stage, going on where it was left.

python -m training.study --plan training/study/study.yaml --corpus CORPUS --out STUDY [--workers N]

Each step of a stage is one of this package's commands; a step whose result is there is passed over,
one that was cut off is resumed. So the same command begins and goes on.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.models.backbones import backbone_named
from training.compare.runs import METRICS
from training.recipes import schema as recipe
from training.run_folder import MODEL, PREDICTIONS
from training.study import choice, steps
from training.study.plan import Change, Plan, read_plan
from training.study.records import restore
from training.study.steps import Step
from training.tune.search import BEST

REPORT, FLOOR, TEACHERS = "report", "floor", "teachers"
SPLITS = ("grouped", "random")  # the same recipe in each: what a split flatters by
PLAN = Path(__file__).with_name("study.yaml")


@dataclass(frozen=True)
class Study:
    """Where everything is.

    Attributes:
        plan: What is to be done.
        recipes: The plain recipes, by backbone.
        corpus: As written by ``training.corpus``.
        out: The study's folder.
        starts: Folder of start weights, ``ARCHITECTURE_init.safetensors``; None: as recipes say.
        cards: Folder to publish the chosen models into; None: they stay where they are.
        readme: File to put their results into.
    """

    plan: Plan
    recipes: dict[str, recipe.Recipe]
    corpus: Path
    out: Path
    starts: Path | None
    cards: Path | None
    readme: Path | None

    def run_folder(self, trained: recipe.Recipe, held: str) -> Path:
        """Return the folder of one run."""
        return self.out / "runs" / trained.backbone / _make_file_name(trained.arm) / held

    def write_config(self, trained: recipe.Recipe) -> Path:
        """Write a recipe's file into the study; returns the file."""
        name = f"{trained.backbone}-{_make_file_name(trained.arm)}-{trained.split}.yaml"
        path = self.out / "recipes" / name
        document = trained.model_dump(mode="json", exclude_unset=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: yaml.safe_dump(document, sort_keys=False).encode()})
        return path

    def find_start(self, trained: recipe.Recipe) -> Path | None:
        """Return a recipe's file of start weights; None: as the recipe says."""
        if self.starts is None or trained.start == "none":
            return None
        file = self.starts / f"{backbone_named(trained.backbone).timm_name}_init.safetensors"
        if not file.is_file():
            raise InputError(f"start weights {file} are missing: look at --starts")
        return file


def plan_stages(study: Study) -> Iterator[list[Step]]:
    """Yield all steps, stage by stage; those of a stage wait for none of each other.

    What is in a stage depends on what earlier ones found: ask for it once they are done.
    """
    nothing: list[Step] = []
    for one, other in zip_longest(_plan_plain_and_tuned(study), _race(study), fillvalue=nothing):
        yield [*one, *other]
    together = {backbone: _combine(study, plain) for backbone, plain in study.recipes.items()}
    yield [
        _compare(study, "each change alone, and the tuned recipes"),
        *_train_folds(study, (trained for trained, _ in together.values()), study.plan.folds),
    ]
    averaged = [
        _rescore(study, several, fold, of=trained)
        for trained, several in together.values()
        if several
        for fold in study.plan.folds
    ]
    if averaged:
        yield averaged
    chosen = [_choose(study, study.recipes[name], *pair) for name, pair in together.items()]
    yield [
        _compare(study, "the changes together"),
        *(_refit(study, trained) for trained in chosen),
        *_plan_first_backbone(study, chosen[0]),
    ]
    yield [
        *(_test(study, trained, "all") for trained in chosen),
        *(_test(study, trained, trained.split) for trained in _vary_split(chosen[0])),
    ]
    yield [_compare(study, "the comparison")]
    if study.cards:
        yield [_release(study, chosen)]


def _plan_plain_and_tuned(study: Study) -> Iterator[list[Step]]:
    """Plan what needs nothing, the longest first; then what needs tunings or plain runs."""
    plan, recipes = study.plan, study.recipes.values()
    tunings = [_tune(study, plain) for plain in recipes]
    yield [*tunings, _measure_floor(study), *_train_folds(study, recipes, plan.folds)]
    tuned = [_read_tuned(study, plain) for plain in recipes]
    views = [
        changed for changed in list_single_changes(study) if _changes_views_alone(study, changed)
    ]
    rescored = [
        _rescore(study, changed, fold, of=study.recipes[changed.backbone])
        for changed in views
        for fold in plan.change_folds
    ]
    yield [*_train_folds(study, tuned, plan.change_folds), *rescored]


def _race(study: Study) -> Iterator[list[Step]]:
    """Train all changes on one fold, and on each next fold those not behind plain."""
    folds = study.plan.change_folds
    racing = [
        changed
        for changed in list_single_changes(study)
        if not _changes_views_alone(study, changed)
    ]
    for number, fold in enumerate(folds):
        seen = folds[:number]
        racing = [one for one in racing if not seen or _measure_gain_on(study, one, seen) >= 0]
        yield _train_folds(study, racing, (fold,))


def _refit(study: Study, chosen: recipe.Recipe) -> Step:
    """Refit the best recipe on all but test."""
    folds = [study.run_folder(chosen, f"fold-{fold}") for fold in study.plan.folds]
    decided = [word for run in folds for word in ("--decision-from", str(run))]
    return _train(study, chosen, "all", decided)


def _plan_first_backbone(study: Study, chosen: recipe.Recipe) -> Iterator[Step]:
    """Plan what the first backbone alone is for: splits, neighbours, learning curve."""
    plan = study.plan
    for trained in _vary_split(chosen):
        yield _train(study, trained, trained.split, [])
    near = chosen.model_copy(update={"split": "neighbours"})
    shares = [
        chosen.model_copy(update={"learnt_share": share, "arm": f"{share:g} of the cases"})
        for share in plan.shares
    ]
    yield from _train_folds(study, [near, *shares], plan.change_folds)


def _vary_split(chosen: recipe.Recipe) -> list[recipe.Recipe]:
    return [chosen.model_copy(update={"split": split}) for split in SPLITS]


def _options(**given: Any) -> list[str]:
    """Return a command's options by name, but for those of None."""
    named = {name: str(value) for name, value in given.items() if value is not None}
    return [word for name, value in named.items() for word in (f"--{name}", value)]


def _measure_floor(study: Study) -> Step:
    out = study.out / FLOOR
    options = _options(corpus=study.corpus, out=out)
    return Step("colour statistics alone", "evaluate.floors", options, out / PREDICTIONS)


def _train_folds(study: Study, arms: Iterable[recipe.Recipe], folds: tuple[int, ...]) -> list[Step]:
    """Train each arm with each of some folds held out."""
    return [
        _train(study, trained, f"{of_split}fold-{fold}", ["--fold", str(fold)])
        for trained in arms
        for of_split in ("" if trained.split == "grouped" else f"{trained.split}-",)
        for fold in folds
    ]


def _changes_views_alone(study: Study, changed: recipe.Recipe) -> bool:
    """Return whether only the views differ from plain: then nothing is to be trained."""
    plain = study.recipes[changed.backbone]
    return changed == plain.model_copy(update={"arm": changed.arm, "views": changed.views})


def _rescore(study: Study, changed: recipe.Recipe, fold: int, of: recipe.Recipe) -> Step:
    """Score the weights of another recipe's run anew."""
    held = f"fold-{fold}"
    run = study.run_folder(changed, held)
    options = _options(corpus=study.corpus, out=run, arm=changed.arm, views=changed.views)
    arguments = [str(study.run_folder(of, held)), *options]
    return Step(_name_step(changed, held), "train.rescore", arguments, run / MODEL)


def _test(study: Study, trained: recipe.Recipe, held: str) -> Step:
    """Read the test part once."""
    run = study.run_folder(trained, held)
    options = _options(model=run / MODEL, corpus=study.corpus, out=run / METRICS)
    return Step(f"{_name_step(trained, held)}: test part", "evaluate", options, run / METRICS)


def _train(study: Study, trained: recipe.Recipe, held: str, holding: list[str]) -> Step:
    """Train one run, once the teachers of it alone are there, which see no more than it does."""
    name, run = _name_step(trained, held), study.run_folder(trained, held)
    given = {"config": study.write_config(trained), "corpus": study.corpus}
    start, teachers, out = study.find_start(trained), None, None
    if trained.teachers:
        out = study.out / TEACHERS / trained.backbone / _make_file_name(trained.arm) / held
        options = _options(**given, out=out, start=start)
        options += ["--hold-nothing"] if "--decision-from" in holding else holding
        teachers = Step(f"{name}: teachers", "train.teach", options, out / PREDICTIONS)
    options = [*_options(**given, out=run, start=start), *holding, "--resume"]
    return Step(name, "train", options + _options(teacher=out), run / MODEL, teachers)


def _tune(study: Study, plain: recipe.Recipe) -> Step:
    out = study.out / "tune" / plain.backbone
    options = _options(
        config=study.write_config(plain),
        corpus=study.corpus,
        out=out,
        trials=study.plan.trials,
        start=study.find_start(plain),
    )
    return Step(f"{plain.backbone}: study", "tune", options, out / BEST)


def _compare(study: Study, name: str) -> Step:
    """Compare all runs, every time: it is quick, and runs may have come since."""
    runs = sorted(str(model.parent) for model in (study.out / "runs").glob(f"*/*/*/{MODEL}"))
    options = _options(corpus=study.corpus, out=study.out / REPORT, floor=study.out / FLOOR)
    return Step(name, "compare", [*runs, *options], None)


def _release(study: Study, chosen: list[recipe.Recipe]) -> Step:
    runs = [str(study.run_folder(trained, "all")) for trained in chosen]
    options = _options(report=study.out / REPORT, cards=study.cards, readme=study.readme)
    return Step("the model folders", "study.release", [*runs, *options], None)


def _read_tuned(study: Study, plain: recipe.Recipe) -> recipe.Recipe:
    """Return the study's best trial, which may or may not be better than the plain recipe."""
    return recipe.read(study.out / "tune" / plain.backbone / BEST)


def list_single_changes(study: Study) -> list[recipe.Recipe]:
    """Return each of the plan's changes alone, on the recipe that it is tried on."""
    return [_apply_change(study, change) for change in study.plan.changes]


def _apply_change(study: Study, change: Change) -> recipe.Recipe:
    plain = study.recipes[change.backbone or next(iter(study.recipes))]
    document = plain.model_dump(mode="json", exclude_unset=True)
    return recipe.Recipe.model_validate(choice.merge(document, change.set) | {"arm": change.arm})


def _measure_gain_on(study: Study, trained: recipe.Recipe, folds: tuple[int, ...]) -> float:
    """Return the gain of AUROC over the plain recipe, on those of the folds that are finished."""
    held = [f"fold-{fold}" for fold in folds]
    held = [name for name in held if (study.run_folder(trained, name) / MODEL).exists()]
    plain = study.recipes[trained.backbone]
    ours, theirs = ([study.run_folder(r, name) for name in held] for r in (trained, plain))
    return choice.measure_gain(ours, theirs)


def _combine(study: Study, plain: recipe.Recipe) -> tuple[recipe.Recipe, recipe.Recipe | None]:
    """Combine what helps: as it is trained, with one view; and with several, where these help.

    What is the plain or the tuned recipe again goes by that name, so that its runs are used.
    """
    tuned, folds = _read_tuned(study, plain), study.plan.change_folds
    changes = [one for one in study.plan.changes if one.backbone in (None, plain.backbone)]
    gains = {one.arm: _measure_gain_on(study, _apply_change(study, one), folds) for one in changes}
    sets = {one.arm: one.set for one in changes}
    together = choice.combine(plain, tuned, _measure_gain_on(study, tuned, folds), sets, gains)
    trained = together.model_copy(update={"views": 1})
    for known in (plain, tuned):
        if known == trained.model_copy(update={"arm": known.arm}):
            trained = known
    if together.views == 1:
        return trained, None
    arm = f"{trained.arm}, {together.views} views"
    return trained, trained.model_copy(update={"arm": arm, "views": together.views})


def _choose(
    study: Study, plain: recipe.Recipe, trained: recipe.Recipe, several: recipe.Recipe | None
) -> recipe.Recipe:
    """Choose the recipe to refit; several views stay only where they gain enough for their cost."""

    def runs(of: recipe.Recipe) -> list[Path]:
        return [study.run_folder(of, f"fold-{fold}") for fold in study.plan.folds]

    if several and choice.are_worth_their_cost(runs(several), runs(trained)):
        trained = several
    return choice.choose_better(plain, trained, _measure_gain_on(study, trained, study.plan.folds))


def _name_step(trained: recipe.Recipe, held: str) -> str:
    return f"{trained.backbone}, {trained.arm}, {held}"


def _make_file_name(arm: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", arm)


def carry_out(study: Study, launch: list[str], workers: int) -> None:
    """Do every step that isn't done.

    Args:
        study: Where and what.
        launch: What starts a training, up to the module's name; empty: this process trains.
        workers: Steps done at a time, each a process of its own; of one, this process does them.

    Raises:
        BCDError: A step failed; the same command goes on from it.
        InputError: Both a launcher and several workers are asked for.
    """
    if launch and workers > 1:
        raise InputError(f"--launch and --workers {workers} would share the machine: choose one")
    for stage in plan_stages(study):
        steps.do_steps(stage, launch, workers)


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="The study's folder.")],
    plan: Annotated[Path, typer.Option(help="What is trained.")] = PLAN,
    starts: Annotated[Path | None, typer.Option(help="Folder of start weights.")] = None,
    launch: Annotated[
        str, typer.Option(help='Starts trainings: "accelerate launch ... -m". This process does.')
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Steps done at a time.")] = 1,
    cards: Annotated[Path | None, typer.Option(help="Publish the models into here.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Put their results in here.")] = None,
    records: Annotated[
        Path | None, typer.Option(help="Begin with these records of another's runs.")
    ] = None,
) -> None:
    """Train, tune and compare everything; run it again to go on."""
    study = Study(*read_plan(plan), corpus, out, starts, cards, readme)
    if records:
        typer.echo(f"{len(restore(records, out))} runs from {records}")
    carry_out(study, shlex.split(launch), workers)
    typer.echo(f"report: {out / REPORT / 'report.md'}")
