"""The arms of a plan and what is made of them, step by step, going on where it was left.

python -m training.study --plan training/study/study.yaml --corpus CORPUS --out STUDY [--workers N]

Each step is one of this package's commands; one that is done is passed over, one that was cut off
is resumed. So the same command begins and goes on, and a second time does nothing. After the
trainings come what is made of them: the gate, the comparison, operating points, ladders, slides,
the test part, and with ``--cards`` the model folders. With ``--next`` it takes the next
training that is missing and no other process has in hand, adds what came of it to ``--records``,
and ends.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from filelock import FileLock, Timeout

from bcd_models.decision import log_odds
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.hub.folder import CONFIG, WEIGHTS
from bcd_models.local import metrics
from bcd_models.models.backbones import get_backbone
from training.compare import page
from training.compare.rows import align_frames, select_source
from training.compare.runs import METRICS, TESTED
from training.compare.schema import Report
from training.corpus import predictions, splits
from training.evaluate import robustness
from training.evaluate.answers import ANSWERS
from training.evaluate.decide.decisions import DECISIONS, TILE_DECISIONS
from training.evaluate.suitability import page as suitability
from training.recipes import schema as recipe
from training.recipes.schema import Recipe
from training.run_folder import MODEL, PREDICTIONS, RECIPE, RUN_FILE
from training.study import records, release, slides, steps
from training.study.plan import Arm, Plan, apply_arm, make_file_name, read_plan
from training.study.steps import Step
from training.train.checkpoint import EPOCHS
from training.tune.search import BEST

REPORT, FLOOR, REFIT = "report", "floor", "all"
DONE = "done"  # what steps' files held
COMPARED = (RECIPE, RUN_FILE, EPOCHS, ANSWERS, PREDICTIONS, METRICS, TESTED)
PLAN = Path(__file__).with_name("study.yaml")
START_ENDINGS = ("imagenet", "init")


@dataclass(frozen=True)
class Study:
    """Where everything is.

    Attributes:
        plan: What is trained.
        recipes: Folder that the plan names recipes from.
        corpus: As written by ``training.corpus``.
        out: The study's folder.
        starts: Folder of start weights, ``ARCHITECTURE_imagenet.safetensors`` or ``_init``; None:
            as recipes say.
    """

    plan: Plan
    recipes: Path
    corpus: Path
    out: Path
    starts: Path | None

    def read_recipe(self, arm: Arm, seed: int = 0) -> Recipe:
        """Read what an arm trains by; its tuning has to be there."""
        tuned = self.find_tuning(arm) / BEST
        return apply_arm(recipe.read(tuned if arm.trials else self.recipes / arm.recipe), arm, seed)

    def find_tuning(self, arm: Arm) -> Path:
        """Return the folder in which an arm's recipe is tuned."""
        return self.out / "tune" / Path(arm.recipe).stem

    def run_folder(self, trained: Recipe, held: str) -> Path:
        """Return the folder of one run."""
        return self.find_run(f"{trained.backbone}/{trained.arm}", held)

    def find_run(self, name: str, held: str) -> Path:
        """Return the folder of one run of an arm, as "backbone/arm"."""
        backbone, _, arm = name.partition("/")
        return self.out / "runs" / backbone / make_file_name(arm) / held

    def write_config(self, trained: Recipe) -> Path:
        """Write a recipe's file into the study; returns the file."""
        name = f"{trained.backbone}-{make_file_name(trained.arm)}-{trained.seed}.yaml"
        path = self.out / "recipes" / name
        document = trained.model_dump(mode="json", exclude_unset=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: yaml.safe_dump(document, sort_keys=False).encode()})
        return path

    def find_start(self, trained: Recipe) -> Path | None:
        """Return a recipe's file of start weights; None: as the recipe says."""
        if self.starts is None or trained.start == "none":
            return None
        name = get_backbone(trained.backbone).timm_name
        files = [self.starts / f"{name}_{ending}.safetensors" for ending in START_ENDINGS]
        found = next((file for file in files if file.is_file()), None)
        if not found:
            raise InputError(f"start weights {files[0]} are missing: look at --starts")
        return found


@dataclass(frozen=True)
class Pages:
    """Where a study's results go.

    Attributes:
        cards: Folder of model folders; None: nowhere.
        readme: Gets the table of results.
        slides: Gets the table of slides.
    """

    cards: Path | None = None
    readme: Path | None = None
    slides: Path | None = None


def plan_trainings(study: Study) -> Iterator[list[Step]]:
    """Plan the trainings, by steps that wait for none of each other, once those before are done."""
    for arm in study.plan.arms:
        if arm.trials:
            yield [_tune(study, arm)]
        folds = [
            _train_fold(study, arm, study.read_recipe(arm, seed), fold)
            for seed in arm.seeds
            for fold in arm.folds
        ]
        if arm.lifts:
            yield folds[:1]
        if not goes_on(study, arm):
            continue
        yield folds
        if arm.refit:
            yield [_record(study, study.find_run(name, REFIT)) for name in arm.taught_by]
            yield [_refit(study, arm)]


def plan_release(study: Study, pages: Pages) -> Iterator[list[Step]]:
    """Plan what is made of finished trainings, up to the model folders where there are pages."""
    arms = [arm for arm in study.plan.arms if arm.refit and goes_on(study, arm)]
    refitted = [study.read_recipe(arm, arm.seeds[0]) for arm in arms]
    yield [_measure_floor(study), _fit_gate(study)]
    yield [_compare(study)]
    yield [_decide(study, arm) for arm in arms if len(arm.folds) > 1]
    yield [_climb(study, arm) for arm in arms]
    yield [_map_slides(study, arm) for arm in arms[:1]]
    yield [_test(study, trained) for trained in refitted]
    yield [_compare(study)]
    if pages.cards:
        yield [_release(study, refitted, pages)]


def goes_on(study: Study, arm: Arm) -> bool:
    """Return whether an arm is trained on all its folds: it lifts what it has to on the first."""
    if not arm.lifts:
        return True
    held = f"seed-{arm.seeds[0]}-fold-{arm.folds[0]}"
    own = study.run_folder(study.read_recipe(arm, arm.seeds[0]), held)
    others = [study.find_run(name, held) for name in arm.lifts]
    frames = align_frames([predictions.read(run / PREDICTIONS) for run in (*others, own)])
    larger = splits.find_larger_source(frames[0])
    within = [select_source(frame, larger) for frame in frames]
    said = [log_odds(frame["probability"].clip(1e-6, 1 - 1e-6)) for frame in within]
    truth = metrics.is_malignant(within[0])
    without, together = (np.mean(some, axis=0) for some in (said[:-1], said))
    return metrics.auroc(truth, together) > metrics.auroc(truth, without)


def do_next(study: Study, launch: Sequence[str] = ()) -> str | None:
    """Do the next training that is missing and nobody has in hand; returns its name, if any is.

    Args:
        study: What is trained, and where.
        launch: What starts a training, as in ``steps.do_steps``.

    Raises:
        BCDError: It failed; the same command goes on from it.
        InputError: All that can be done now is in other processes' hands.
    """
    for stage in plan_trainings(study):
        undone = [step for step in stage if not step.is_done]
        for step in undone:
            lock = study.out / "claims" / make_file_name(step.name)
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(lock, timeout=0):
                    steps.do_steps([step], list(launch), 1)
                    return step.name
            except Timeout:
                continue
        if undone:
            raise InputError(f"{undone[0].name} is another process' at this moment: wait for it")
    return None


def _options(**given: Any) -> list[str]:
    """Return a command's options by name, but for those of None."""
    named = {name: str(value) for name, value in given.items() if value is not None}
    return [
        word for name, value in named.items() for word in (f"--{name.replace('_', '-')}", value)
    ]


def _tune(study: Study, arm: Arm) -> Step:
    plain, out = study.recipes / arm.recipe, study.find_tuning(arm)
    options = _options(
        config=plain,
        corpus=study.corpus,
        out=out,
        trials=arm.trials,
        start=study.find_start(recipe.read(plain)),
    )
    return Step(f"{out.name}: tuning", "tune", options, out / BEST)


def _train_fold(study: Study, arm: Arm, trained: Recipe, fold: int) -> Step:
    """Train with a fold held out, then record what the run says."""
    held = f"seed-{trained.seed}-fold-{fold}"
    run = study.run_folder(trained, held)
    name = f"{trained.backbone}, {trained.arm}, seed {trained.seed}, fold {fold}"
    options = ["--fold", str(fold), *_teach(study, arm, held)]
    return _record(study, run, _train(study, trained, name, run, options))


def _record(study: Study, run: Path, training: Step | None = None) -> Step:
    """Record what a run says; ``training`` makes it."""
    name = "/".join(run.parts[-3:])
    options = [str(run), *_options(corpus=study.corpus)]
    return Step(f"{name}: answers", "evaluate.answers", options, run / ANSWERS, training)


def _teach(study: Study, arm: Arm, held: str) -> list[str]:
    runs = (str(study.find_run(name, held)) for name in arm.taught_by)
    return [word for run in runs for word in ("--teacher", run)]


def _refit(study: Study, arm: Arm) -> Step:
    """Train on all but test; the folds of its seed decide its decision rule."""
    trained, folds, model = _find_folds(study, arm)
    options = [word for fold in folds for word in ("--decision-from", str(fold))]
    options += _teach(study, arm, REFIT)
    return _train(study, trained, _name_refit(trained), model.parent, options)


def _train(study: Study, trained: Recipe, name: str, run: Path, holding: list[str]) -> Step:
    options = _options(
        config=study.write_config(trained),
        corpus=study.corpus,
        out=run,
        start=study.find_start(trained),
    )
    return Step(name, "train", [*options, *holding, "--resume"], run / MODEL)


def _decide(study: Study, arm: Arm) -> Step:
    """Give a refit its operating points; the comparison of the folds has to be there."""
    trained, folds, model = _find_folds(study, arm)
    name = f"{trained.backbone}/{trained.arm}, seed {trained.seed}"
    context = choose_context(page.read(study.out / REPORT), name)
    options = _options(model=model, corpus=study.corpus, context=context)
    title = f"{_name_refit(trained)}: operating points"
    made = [model / name for name in (DECISIONS, TILE_DECISIONS)]
    return _keep(study, title, "evaluate.decide", options, folds, [model / WEIGHTS, *made])


def _climb(study: Study, arm: Arm) -> Step:
    """Measure a refit on the robustness ladder, by its folds' answers."""
    trained, folds, model = _find_folds(study, arm)
    options = _options(model=model, corpus=study.corpus)
    title = f"{_name_refit(trained)}: robustness ladder"
    files = [model / WEIGHTS, model / robustness.FILE]
    return _keep(study, title, "study.ladder", options, folds, files)


def _map_slides(study: Study, arm: Arm) -> Step:
    """Map whole cases by an arm's fold models; its refit has to have its rule for tiles."""
    _, folds, model = _find_folds(study, arm)
    out = study.out / slides.FILE
    options = _options(model=model, corpus=study.corpus, out=out)
    files = [*(model / name for name in (WEIGHTS, TILE_DECISIONS)), out]
    return _keep(study, "whole cases as slides", "study.slides", options, folds, files)


def _find_folds(study: Study, arm: Arm) -> tuple[Recipe, list[Path], Path]:
    """Return what an arm's refit is trained by, the fold runs of its seed, and its model."""
    trained = study.read_recipe(arm, arm.seeds[0])
    held = [f"seed-{trained.seed}-fold-{fold}" for fold in arm.folds]
    model = study.run_folder(trained, REFIT) / MODEL
    return trained, [study.run_folder(trained, one) for one in held], model


def _keep(
    study: Study,
    name: str,
    module: str,
    options: list[str],
    runs: Sequence[Path],
    files: Sequence[Path],
) -> Step:
    """Return a step that is done again where runs' answers, or other files, are others since."""
    named = [word for run in runs for word in ("--run", str(run))]
    done = study.out / DONE / make_file_name(name)
    asked = [run / ANSWERS for run in runs]
    return Step(name, module, [*options, *named], done, files=(*asked, *files))


def choose_context(report: Report, arm: str) -> float:
    """Return the width that tiles are averaged over: 0 unless it lifts every whole case."""
    context = next((one.context for one in report.asked if one.arm == arm), None)
    if context and all(one.with_neighbours.auroc > one.alone.auroc for one in context.cases):
        return context.sigma
    return 0.0


def _measure_floor(study: Study) -> Step:
    out = study.out / FLOOR
    options = _options(corpus=study.corpus, out=out)
    return Step("colour statistics alone", "evaluate.floors", options, out / PREDICTIONS)


def _test(study: Study, trained: Recipe) -> Step:
    """Read the test part once."""
    run = study.run_folder(trained, REFIT)
    options = _options(model=run / MODEL, corpus=study.corpus, out=run / METRICS)
    return Step(f"{_name_refit(trained)}: test part", "evaluate", options, run / METRICS)


def _fit_gate(study: Study) -> Step:
    out = study.out / suitability.FILE
    options = _options(corpus=study.corpus, out=out)
    return Step("the gate", "evaluate.suitability", options, out)


def _compare(study: Study) -> Step:
    """Compare all runs that there are now."""
    models = sorted((study.out / "runs").glob(f"*/*/*/{MODEL}"))
    report, floor = study.out / REPORT, study.out / FLOOR
    named = [str(model.parent) for model in models]
    options = _options(corpus=study.corpus, out=report, floor=floor)
    files = [model.parent / name for model in models for name in COMPARED]
    files += [*(model / CONFIG for model in models), floor, report]
    return _keep(study, "the comparison", "compare", [*named, *options], (), files)


def _release(study: Study, refitted: Sequence[Recipe], pages: Pages) -> Step:
    """Put tested refits into the pages."""
    assert pages.cards
    runs = [study.run_folder(trained, REFIT) for trained in refitted]
    report, gate, table = (study.out / name for name in (REPORT, suitability.FILE, slides.FILE))
    options = _options(report=report, gate=gate, slides=table, cards=pages.cards)
    options += _options(readme=pages.readme, slides_page=pages.slides)
    files = [run / name for run in runs for name in (MODEL, *release.RUN_FILES)]
    files += [report, gate, table, *(pages.cards / trained.name for trained in refitted)]
    files += [pages.cards / path.name for path in (*sorted(report.glob("*.*")), gate)]
    files += [page for page in (pages.readme, pages.slides) if page]
    title = "the model folders"
    return _keep(study, title, "study.release", [*map(str, runs), *options], (), files)


def _name_refit(trained: Recipe) -> str:
    return f"{trained.backbone}, {trained.arm}, {REFIT}"


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
    slides_page: Annotated[Path | None, typer.Option(help="Put the slides' table here.")] = None,
    recorded: Annotated[
        Path | None,
        typer.Option("--records", help="Begin with the runs recorded here; --next adds to them."),
    ] = None,
    take_next: Annotated[
        bool, typer.Option("--next", help="Do the next missing training alone.")
    ] = False,
) -> None:
    """Train, tune and compare everything; run it again to go on."""
    if launch and workers > 1:
        raise InputError(f"--launch and --workers {workers} would share the machine: choose one")
    study = Study(read_plan(plan), plan.parent, corpus, out, starts)
    if recorded and recorded.exists():
        typer.echo(f"{len(records.restore(recorded, out, corpus))} runs from {recorded}")
    if take_next:
        done = do_next(study, shlex.split(launch))
        if recorded:
            records.gather(out, recorded)
        typer.echo(f"done: {done}" if done else "nothing is missing")
        return
    pages = Pages(cards, readme, slides_page)
    for stage in chain(plan_trainings(study), plan_release(study, pages)):
        steps.do_steps(stage, shlex.split(launch), workers)
    typer.echo(f"report: {out / REPORT / 'report.md'}")
