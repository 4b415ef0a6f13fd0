"""The whole way from a corpus to the comparison, step by step, going on where it was left.

python -m training.pipeline --plan training/study.yaml --corpus CORPUS --out STUDY

Each step is one of this package's commands; a step whose result is there is passed over, one that
was cut off is resumed. So the same command begins and goes on.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bcd_models.backbones import backbone_named
from bcd_models.errors import BCDError, InputError
from training import choice, command, recipe
from training.comparison.runs import METRICS
from training.comparison.schema import Report
from training.records import restore
from training.run_folder import MODEL, PREDICTIONS
from training.tune import BEST, WINNER

REPORT, FLOOR = "report", "floor"
SPLITS = ("grouped", "leaky", "random")  # the same recipe in each: what a split flatters by
PLAN = Path(__file__).with_name("study.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Change(_Strict):
    """One thing done otherwise than in the plain recipe, measured alone.

    Attributes:
        arm: What the comparison calls it.
        set: The part of a recipe that differs, as in a recipe file.
    """

    arm: str = Field(min_length=1)
    set: dict[str, Any]


class Plan(_Strict):
    """What is trained and compared.

    Attributes:
        recipes: The plain recipe of each backbone, beside the plan.
        folds: Folds held out in turn.
        trials: Of the study of each backbone.
        seeds: Of each study's confirmation.
        top: Trials each study confirms.
        changes: Tried one by one on the first recipe; what clearly helps is kept for all.
        change_folds: Folds held out in turn for them.
        shares: Shares of the cases learnt from, for the first recipe's learning curve.
        leave_out: Cases of which each is held out alone, as a check of the first backbone.
    """

    recipes: tuple[str, ...] = Field(min_length=1)
    folds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=2)
    trials: int = Field(20, ge=1)
    seeds: int = Field(3, ge=2)
    top: int = Field(3, ge=1)
    changes: tuple[Change, ...] = ()
    change_folds: tuple[int, ...] = (0, 1)
    shares: tuple[float, ...] = ()
    leave_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: What it does, in words.
        module: Of this package.
        arguments: Of the command.
        result: What is there once it is done; None: it is done every time.
    """

    name: str
    module: str
    arguments: list[str]
    result: Path | None


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
        """Folder of one run."""
        return self.out / "runs" / trained.backbone / _file_name(trained.arm) / held

    def config(self, trained: recipe.Recipe) -> Path:
        """A recipe's file in the study, written first."""
        name = f"{trained.backbone}-{_file_name(trained.arm)}-{trained.split}.yaml"
        path = self.out / "recipes" / name
        document = trained.model_dump(mode="json", exclude_unset=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
        return path

    def start(self, trained: recipe.Recipe) -> list[str]:
        """The option that names a recipe's start weights."""
        if self.starts is None or trained.start == "none":
            return []
        file = self.starts / f"{backbone_named(trained.backbone).timm_name}_init.safetensors"
        if not file.is_file():
            raise InputError(f"start weights {file} are missing: look at --starts")
        return ["--start", str(file)]

    def read_report(self) -> Report:
        """The comparison as it stands."""
        return Report.model_validate_json((self.out / REPORT / "report.json").read_bytes())


def steps(study: Study) -> Iterator[Step]:
    """Every step, in order; later ones depend on what earlier ones found."""
    plan, recipes = study.plan, study.recipes.values()
    yield _floor(study)
    for plain in recipes:
        yield from _folds(study, plain, plan.folds)
    for changed in single_changes(study):
        yield from _change(study, changed)
    for plain in recipes:
        yield _tune(study, plain)
        yield from _folds(study, _tuned(study, plain), plan.folds)
    yield _compare(study, "each change alone, and the tuned recipes")
    combined = {plain.backbone: _combined(study, plain) for plain in recipes}
    for trained in combined.values():
        yield from _folds(study, trained, plan.folds)
    yield _compare(study, "the changes together")
    chosen = {plain.backbone: _chosen(study, plain, combined[plain.backbone]) for plain in recipes}
    for trained in chosen.values():
        yield from _refitted(study, trained)
    yield from _on_the_first(study, next(iter(chosen.values())))
    yield _compare(study, "the comparison")
    if study.cards:
        yield _release(study, list(chosen.values()), study.cards)


def _refitted(study: Study, chosen: recipe.Recipe) -> Iterator[Step]:
    """The best recipe, learnt from all but test."""
    folds = [study.run_folder(chosen, f"fold-{fold}") for fold in study.plan.folds]
    decided = [part for run in folds for part in ("--decision-from", str(run))]
    yield from _tested(study, chosen, "all", decided)


def _on_the_first(study: Study, chosen: recipe.Recipe) -> Iterator[Step]:
    """What is looked at with the first backbone alone: splits, held-out cases, learning curve."""
    for split in SPLITS:
        yield from _tested(study, chosen.model_copy(update={"split": split}), split, [])
    yield from _folds(study, chosen.model_copy(update={"split": "neighbours"}), study.plan.folds)
    for case in study.plan.leave_out:
        held = f"without-{case.replace('/', '-')}"
        yield _train(study, chosen, held, ["--leave-out", case])
    for share in study.plan.shares:
        part = chosen.model_copy(update={"learnt_share": share, "arm": f"{share:g} of the cases"})
        yield from _folds(study, part, study.plan.folds)


def _floor(study: Study) -> Step:
    out = study.out / FLOOR
    arguments = ["--corpus", str(study.corpus), "--out", str(out)]
    return Step("colour statistics alone", "floors", arguments, out / PREDICTIONS)


def _folds(study: Study, trained: recipe.Recipe, folds: tuple[int, ...]) -> Iterator[Step]:
    of_split = "" if trained.split == "grouped" else f"{trained.split}-"
    for fold in folds:
        yield _train(study, trained, f"{of_split}fold-{fold}", ["--fold", str(fold)])


def _change(study: Study, changed: recipe.Recipe) -> Iterator[Step]:
    """The folds of one change; where only views differ, the plain runs' weights are scored anew."""
    first = next(iter(study.recipes.values()))
    if changed != first.model_copy(update={"arm": changed.arm, "views": changed.views}):
        yield from _folds(study, changed, study.plan.change_folds)
        return
    for fold in study.plan.change_folds:
        held = f"fold-{fold}"
        run = study.run_folder(changed, held)
        arguments = [study.run_folder(first, held), "--corpus", study.corpus, "--out", run]
        arguments += ["--arm", changed.arm, "--views", changed.views]
        yield Step(_named(changed, held), "rescore", list(map(str, arguments)), run / MODEL)


def _tested(study: Study, trained: recipe.Recipe, held: str, options: list[str]) -> Iterator[Step]:
    """Train, then read the test part once."""
    yield _train(study, trained, held, options)
    run = study.run_folder(trained, held)
    arguments = ["--model", run / MODEL, "--corpus", study.corpus, "--out", run / METRICS]
    name = f"{_named(trained, held)}: test part"
    yield Step(name, "evaluate", list(map(str, arguments)), run / METRICS)


def _train(study: Study, trained: recipe.Recipe, held: str, options: list[str]) -> Step:
    run = study.run_folder(trained, held)
    arguments = ["--config", study.config(trained), "--corpus", study.corpus, "--out", run]
    arguments += [*study.start(trained), *options, "--resume"]
    return Step(_named(trained, held), "train", list(map(str, arguments)), run / MODEL)


def _tune(study: Study, plain: recipe.Recipe) -> Step:
    plan, out = study.plan, study.out / "tune" / plain.backbone
    arguments = ["--config", study.config(plain), "--corpus", study.corpus, "--out", out]
    arguments += ["--trials", plan.trials, "--seeds", plan.seeds, "--top", plan.top]
    arguments += study.start(plain)
    return Step(f"{plain.backbone}: study", "tune", list(map(str, arguments)), out / WINNER)


def _compare(study: Study, name: str) -> Step:
    """Never passed over: it is quick, and runs may have come since."""
    runs = (study.out / "runs").glob(f"*/*/*/{MODEL}")
    arguments = sorted(str(model.parent) for model in runs)
    arguments += ["--corpus", str(study.corpus), "--out", str(study.out / REPORT)]
    arguments += ["--floor", str(study.out / FLOOR)]
    return Step(name, "compare", arguments, None)


def _release(study: Study, chosen: list[recipe.Recipe], cards: Path) -> Step:
    runs = [str(study.run_folder(trained, "all")) for trained in chosen]
    arguments = [*runs, "--report", str(study.out / REPORT), "--cards", str(cards)]
    if study.readme:
        arguments += ["--readme", str(study.readme)]
    return Step("the model folders", "release", arguments, None)


def _tuned(study: Study, plain: recipe.Recipe) -> recipe.Recipe:
    """The study's best trial, which may or may not be better than the plain recipe."""
    return recipe.read(study.out / "tune" / plain.backbone / BEST)


def single_changes(study: Study) -> Iterator[recipe.Recipe]:
    """The first recipe with each of the plan's changes alone."""
    first = next(iter(study.recipes.values()))
    document = first.model_dump(mode="json", exclude_unset=True)
    for change in study.plan.changes:
        yield recipe.Recipe.model_validate(
            choice.merged(document, change.set) | {"arm": change.arm}
        )


def _combined(study: Study, plain: recipe.Recipe) -> recipe.Recipe:
    report, first = study.read_report(), next(iter(study.recipes.values()))
    own, measured = (choice.gains(report, backbone_named(r.backbone).title) for r in (plain, first))
    tuned = _tuned(study, plain)
    changes = {change.arm: change.set for change in study.plan.changes}
    return choice.combined(plain, tuned, own.get(tuned.arm, 0.0), changes, measured)


def _chosen(study: Study, plain: recipe.Recipe, combined: recipe.Recipe) -> recipe.Recipe:
    found = choice.gains(study.read_report(), backbone_named(plain.backbone).title)
    return choice.best([plain, _tuned(study, plain), combined], found)


def _named(trained: recipe.Recipe, held: str) -> str:
    return f"{trained.backbone}, {trained.arm}, {held}"


def _file_name(arm: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", arm)


def read_plan(path: Path) -> tuple[Plan, dict[str, recipe.Recipe]]:
    """Read a plan and its recipes; InputError names the key and what is wrong with it."""
    try:
        plan = Plan.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"plan {path} can't be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"plan {path}: {key}: {first['msg']}") from None
    recipes = [recipe.read(path.parent / name) for name in plan.recipes]
    return plan, {one.backbone: one for one in recipes}


def go(study: Study, launch: list[str]) -> None:
    """Do every step that isn't done.

    Args:
        study: Where and what.
        launch: What starts a training, up to the module's name; empty: this process trains.

    Raises:
        BCDError: A step failed; the same command goes on from it.
    """
    for step in steps(study):
        if step.result and step.result.exists():
            continue
        typer.echo(f"== {step.name}")
        if _run(step, launch):
            raise BCDError(f"step {step.name!r} failed: mend what it says above, then go on")


def _run(step: Step, launch: list[str]) -> int:
    """Do one step; returns its exit code."""
    module = f"training.{step.module}"
    if launch and step.module == "train":
        return subprocess.run([*launch, module, *step.arguments], check=False).returncode
    try:
        command.run(import_module(module).main, step.arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="The study's folder.")],
    plan: Annotated[Path, typer.Option(help="What is trained.")] = PLAN,
    starts: Annotated[Path | None, typer.Option(help="Folder of start weights.")] = None,
    launch: Annotated[
        str, typer.Option(help='Starts trainings: "accelerate launch ... -m". This process does.')
    ] = "",
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
    go(study, shlex.split(launch))
    typer.echo(f"report: {out / REPORT / 'report.md'}")


if __name__ == "__main__":
    command.run(main)
