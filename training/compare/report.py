"""Compare finished runs: the original's figures beside ours, arms, splits, floors and costs.

python -m training.compare RUN... --out REPORT [--corpus CORPUS]

A section that lacks runs is left out, and the report says which runs it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from bcd_models.config import Estimate
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.hub.folder import WEIGHTS
from bcd_models.local import metrics
from bcd_models.prediction import NOTICE
from training import command, run_folder
from training.card import write as card
from training.compare import folds, goals, page, published, schema, tested, ways
from training.compare.runs import Missing, Run, read_all
from training.corpus import predictions, splits
from training.corpus.selection import open_corpus
from training.evaluate import answers, cost, figures

ORIGINAL = (
    schema.Claim(
        backbone="MobileNetV2", accuracy=0.8778, recall=0.8591, false_negative_rate=0.1409
    ),
    schema.Claim(
        backbone="EfficientNet-B2", accuracy=0.9215, recall=0.9128, false_negative_rate=0.0872
    ),
)

Row = tuple[str, float, float, float]


def compare(
    folders: list[Path],
    corpus_folder: Path | None = None,
    floor_folder: Path | None = None,
) -> schema.Report:
    """Make every section that the runs allow.

    Args:
        folders: Run folders written by ``training.train``.
        corpus_folder: The corpus they were trained on; with it, recorded answers are measured.
        floor_folder: As written by ``training.evaluate.floors``: a floor to set arms beside.

    Raises:
        InputError: A folder holds no finished run, or the runs don't belong together.
    """
    runs = read_all(folders)
    provenance = runs[0].provenance
    opened = open_corpus(corpus_folder, "grouped") if corpus_folder else None
    if opened and opened.about["fingerprint"] != provenance.corpus_fingerprint:
        trained_on, this = provenance.corpus_fingerprint[:16], opened.about["fingerprint"][:16]
        raise InputError(f"the runs were trained on corpus {trained_on}, {corpus_folder} is {this}")
    earlier = predictions.read(published.TABLE, answers=())
    floor = predictions.read(floor_folder / run_folder.PREDICTIONS) if floor_folder else None
    larger = _find_larger_source(runs)
    missing: dict[str, str] = {}

    def section(name: str, make: Callable[..., Any], *given: Any) -> Any:
        try:
            return make(*given)
        except Missing as reason:
            missing[name] = str(reason)
            return ()

    arms = section("asked", ways.read_arms, runs, opened)
    asked = tuple(
        ways.measure_arm(arm, answers.read_patches(opened, arm.larger["row"]), earlier)
        for arm in arms
        if opened
    )
    ensembles = ways.compare_ensembles(arms)
    return schema.Report(
        corpus=provenance.corpus,
        corpus_fingerprint=provenance.corpus_fingerprint,
        larger_source=larger,
        intervals="95%, bootstrap over whole cases within source, "
        f"{metrics.RESAMPLES} resamples; differences are paired over the same resamples",
        runs=tuple(map(_line, runs)),
        hours=sum(run.seconds for run in runs) / 3600,
        original=ORIGINAL,
        on_same_terms=section("on_same_terms", tested.compare_on_same_terms, runs, larger),
        tested=section("tested", tested.list_tested, runs),
        pairs=section("pairs", tested.compare_backbones, runs, larger),
        out_of_fold=section("out_of_fold", folds.compare_arms, runs, larger, floor),
        asked=asked,
        goals=goals.list_goals(asked, ensembles),
        ensembles=ensembles,
        random_split=section("random_split", published.compare_random, earlier, larger),
        costs=_measure_costs(runs),
        machine=cost.describe_machine(),
        missing=missing,
        notice=NOTICE,
    )


def _find_larger_source(runs: list[Run]) -> str:
    """Return the source with most of the images that any run was scored on."""
    frames = [run.held_out for run in runs if run.held_out is not None]
    frames += [run.test.frame for run in runs if run.test]
    if not frames:
        raise InputError("no run was scored: run training.evaluate --out RUN/metrics-test.json")
    return splits.find_larger_source(pd.concat(frames).drop_duplicates("sha256"))


def _line(run: Run) -> schema.RunLine:
    return schema.RunLine(
        name=run.name,
        backbone=run.backbone,
        arm=run.plan.arm,
        split=run.provenance.split_words,
        seed=run.plan.seed,
        seconds=run.seconds,
        git_commit=run.provenance.git_commit,
    )


def _measure_costs(runs: list[Run]) -> tuple[schema.CostLine, ...]:
    """Measure one run of each backbone, input size and number of views, which decide the cost.

    Runs from records have no weights: they can't be timed.
    """
    first: dict[tuple[str, int, int], Run] = {}
    for run in runs:
        if (run.folder / run_folder.MODEL / WEIGHTS).is_file():
            first.setdefault((run.backbone, run.plan.input_size, run.plan.views), run)
    return tuple(
        schema.CostLine(
            backbone=run.backbone,
            run=run.name,
            cost=cost.measure_cost(run.folder / run_folder.MODEL),
        )
        for run in first.values()
    )


def draw(report: schema.Report) -> dict[str, bytes]:
    """Draw the figures of the sections there are; returns PNG by file name."""
    within = f"within {report.larger_source}"
    drawn = {}
    if rows := _list_tested(report):
        drawn["tested"] = figures.draw_forest(rows, f"AUROC {within}")
    if arms := _list_arms(report):
        words = f"AUROC minus plain on the same images, {within}"
        drawn["out_of_fold"] = figures.draw_forest(arms, words, differences=True)
    return {page.PICTURES[name]: data for name, data in drawn.items()}


def _list_tested(report: schema.Report) -> list[Row]:
    models = [(page.name_run(one), *_place(one.within.figures["auroc"])) for one in report.tested]
    floors = [
        (f"{card.FLOOR_WORDS[name].partition(' (')[0]} (floor)", *_place(floor.auroc))
        for one in report.tested[:1]
        for name, floor in one.within.floors
    ]
    return models + floors


def _list_arms(report: schema.Report) -> list[Row]:
    """Return differences alone: AUROCs of different folds can't stand side by side."""
    return [
        (
            f"{one.backbone}, {page.name_arm(one)} (folds {', '.join(map(str, one.folds))})",
            *_place(one.minus_plain),
        )
        for one in report.out_of_fold
        if one.minus_plain
    ]


def _place(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def write(report: schema.Report, folder: Path) -> None:
    """Write ``report.json``, ``report.md`` and the figures; those of an earlier report go."""
    contents = draw(report)
    gone = set(page.PICTURES.values()) - contents.keys()
    contents[page.REPORT] = f"{report.model_dump_json(indent=1)}\n".encode()
    contents[page.PAGE] = page.render(report).encode()
    write_files({folder / name: data for name, data in contents.items()})
    for name in gone:
        (folder / name).unlink(missing_ok=True)


def main(
    run: Annotated[list[Path], typer.Argument(help="Run folders of training.train.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    corpus: Annotated[
        Path | None, typer.Option(help="Their corpus: recorded answers are then measured.")
    ] = None,
    floor: Annotated[
        Path | None, typer.Option(help="Folder written by training.evaluate.floors.")
    ] = None,
) -> None:
    """Compare finished runs, and write report.json, report.md and figures."""
    command.keep_freed_memory()
    report = compare(run, corpus, floor)
    write(report, out)
    for name, reason in report.missing.items():
        typer.echo(f"left out: {page.TITLES[name]}: {reason}")
    typer.echo(f"report: {out / page.PAGE}")
