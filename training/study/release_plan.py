"""What is made of finished trainings, step by step, up to the model folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bcd_models.hub.folder import CONFIG, WEIGHTS
from training.compare import page
from training.compare.runs import METRICS, TESTED
from training.compare.schema import Report
from training.evaluate import robustness
from training.evaluate.answers import ANSWERS
from training.evaluate.decide.decisions import DECISIONS, TILE_DECISIONS
from training.evaluate.suitability import page as suitability
from training.recipes.schema import Recipe
from training.run_folder import MODEL, PREDICTIONS, RECIPE, RUN_FILE
from training.study import release, slides
from training.study.plan import Arm, make_file_name
from training.study.steps import Step
from training.study.trainings import REFIT, Study, find_folds, goes_on, name_refit, write_options
from training.train.checkpoint import EPOCHS

REPORT, FLOOR = "report", "floor"
DONE = "done"  # what steps' files held
COMPARED = (RECIPE, RUN_FILE, EPOCHS, ANSWERS, PREDICTIONS, METRICS, TESTED)


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


def _decide(study: Study, arm: Arm) -> Step:
    """Give a refit its operating points; the comparison of the folds has to be there."""
    trained, folds, model = find_folds(study, arm)
    name = f"{trained.backbone}/{trained.arm}, seed {trained.seed}"
    context = choose_context(page.read(study.out / REPORT), name)
    options = write_options(model=model, corpus=study.corpus, context=context)
    title = f"{name_refit(trained)}: operating points"
    made = [model / name for name in (DECISIONS, TILE_DECISIONS)]
    return _keep(study, title, "evaluate.decide", options, folds, [model / WEIGHTS, *made])


def _climb(study: Study, arm: Arm) -> Step:
    """Measure a refit on the robustness ladder, by its folds' answers."""
    trained, folds, model = find_folds(study, arm)
    options = write_options(model=model, corpus=study.corpus)
    title = f"{name_refit(trained)}: robustness ladder"
    files = [model / WEIGHTS, model / robustness.FILE]
    return _keep(study, title, "study.ladder", options, folds, files)


def _map_slides(study: Study, arm: Arm) -> Step:
    """Map whole cases by an arm's fold models; its refit has to have its rule for tiles."""
    _, folds, model = find_folds(study, arm)
    out = study.out / slides.FILE
    options = write_options(model=model, corpus=study.corpus, out=out)
    files = [*(model / name for name in (WEIGHTS, TILE_DECISIONS)), out]
    return _keep(study, "whole cases as slides", "study.slides", options, folds, files)


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
    options = write_options(corpus=study.corpus, out=out)
    return Step("colour statistics alone", "evaluate.floors", options, out / PREDICTIONS)


def _test(study: Study, trained: Recipe) -> Step:
    """Read the test part once."""
    run = study.run_folder(trained, REFIT)
    options = write_options(model=run / MODEL, corpus=study.corpus, out=run / METRICS)
    return Step(f"{name_refit(trained)}: test part", "evaluate", options, run / METRICS)


def _fit_gate(study: Study) -> Step:
    out = study.out / suitability.FILE
    options = write_options(corpus=study.corpus, out=out)
    return Step("the gate", "evaluate.suitability", options, out)


def _compare(study: Study) -> Step:
    """Compare all runs that there are now."""
    models = sorted((study.out / "runs").glob(f"*/*/*/{MODEL}"))
    report, floor = study.out / REPORT, study.out / FLOOR
    named = [str(model.parent) for model in models]
    options = write_options(corpus=study.corpus, out=report, floor=floor)
    files = [model.parent / name for model in models for name in COMPARED]
    files += [*(model / CONFIG for model in models), floor, report]
    return _keep(study, "the comparison", "compare", [*named, *options], (), files)


def _release(study: Study, refitted: Sequence[Recipe], pages: Pages) -> Step:
    """Put tested refits into the pages."""
    assert pages.cards
    runs = [study.run_folder(trained, REFIT) for trained in refitted]
    report, gate, table = (study.out / name for name in (REPORT, suitability.FILE, slides.FILE))
    options = write_options(report=report, gate=gate, slides=table, cards=pages.cards)
    options += write_options(readme=pages.readme, slides_page=pages.slides)
    files = [run / name for run in runs for name in (MODEL, *release.RUN_FILES)]
    files += [report, gate, table, *(pages.cards / trained.name for trained in refitted)]
    files += [pages.cards / path.name for path in (*sorted(report.glob("*.*")), gate)]
    files += [page for page in (pages.readme, pages.slides) if page]
    title = "the model folders"
    return _keep(study, title, "study.release", [*map(str, runs), *options], (), files)
