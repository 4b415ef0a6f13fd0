"""Tested runs -> what ``cards`` holds: model folders with their figures and cards, and the report.

python -m training.study.release RUN... --report REPORT --gate SUITABILITY.json --cards cards
    --readme README.md --slides SLIDES.json --slides-page docs/slides.md
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from bcd_models.config import CameraValidation, ModelConfig, SuitabilityConfig
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.hub.atomic import write_files
from training import command
from training.card import write as card
from training.compare import page
from training.compare.runs import METRICS
from training.compare.schema import Report
from training.corpus.sources import get_source
from training.evaluate import schema as measured
from training.evaluate.schema import OtherSource
from training.evaluate.suitability import page as suitability
from training.pages import put_between
from training.run_folder import MODEL, change_config
from training.study import slides as whole_cases
from training.study.slides import Slides
from training.train.checkpoint import EPOCHS, sum_up_epochs

FIGURES = ("evaluation-test.png", "risk-by-case-test.png", card.CURVES)
RUN_FILES = (METRICS, EPOCHS, *FIGURES)
REQUIRED_FILES = (
    f"{MODEL}/config.json",
    f"{MODEL}/model.safetensors",
    METRICS,
    EPOCHS,
    *FIGURES[:2],
)


def release(
    run: Path,
    cards: Path,
    dataset: str = "",
    report: Report | None = None,
    gate: SuitabilityConfig | None = None,
) -> Path:
    """Put a run's model, figures and card into its folder; returns the folder.

    Args:
        run: A run's folder.
        cards: Folder of model folders.
        dataset: Hub id of the published corpus, or "".
        report: The comparison that the run is part of, with its folds' figures.
        gate: What refuses tiles that are no tissue; by default the run's own, if it has one.

    Raises:
        InputError: The run was not finished or not tested, or the figures are of other weights.
    """
    missing = [name for name in REQUIRED_FILES if not (run / name).is_file()]
    if missing:
        raise InputError(f"{run} lacks {missing[0]}: finish training and evaluation first")
    config = model_folder.read_config(run / MODEL)
    folder = cards / config.name
    beside = cards / f".{folder.name}.new"
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(run / MODEL, beside)
    folds = find_out_of_fold(config, report) if report else {}
    cameras = measure_cameras(folds.get("others", ())) if report else config.cameras
    facts = {"suitability": gate or config.suitability, "cameras": cameras or CameraValidation()}
    change_config(beside, facts)
    more = {"training": sum_up_epochs(run), **folds}
    metrics = measured.read(run / METRICS).model_copy(update=more)
    (beside / card.METRICS_FILE).write_text(metrics.model_dump_json(indent=1) + "\n", "utf-8")
    for name in FIGURES:
        if (run / name).is_file():
            shutil.copy(run / name, beside)
    card.write(beside, dataset)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder


def find_out_of_fold(config: ModelConfig, report: Report) -> dict[str, Any]:
    """Return what a report says of a model's folds: by look, and of other sources.

    Zero-shot figures of another arm of the same backbone stand beside the arm's own.
    """
    plan = config.provenance.recipe
    own = f"{config.backbone}/{plan.get('arm', 'plain')}, seed {config.provenance.seed}"
    others = [
        other
        for one in report.asked
        for other in one.others
        if one.arm == own or (one.arm.startswith(f"{config.backbone}/") and not other.learnt)
    ]
    groups = next((one.groups for one in report.asked if one.arm == own), ())
    return {"groups": groups, "others": tuple(others)}


def measure_cameras(others: Iterable[OtherSource]) -> CameraValidation:
    """Return how a model ranks patients of microscope cameras, or that it wasn't measured."""
    for one in others:
        if one.learnt and get_source(one.source).is_by_camera:
            return CameraValidation(
                source=one.source,
                images=one.counts.images,
                cases=one.counts.cases,
                auroc=one.auroc["case"],
            )
    return CameraValidation()


def main(
    runs: Annotated[list[Path], typer.Argument(help="Tested runs, one a model.")],
    cards: Annotated[Path, typer.Option(help="Folder of model folders.")],
    report: Annotated[Path | None, typer.Option(help="Folder written by compare.")] = None,
    gate: Annotated[
        Path | None, typer.Option(help="JSON file written by evaluate.suitability.")
    ] = None,
    slides: Annotated[Path | None, typer.Option(help="JSON file written by study.slides.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Also put the results in here.")] = None,
    slides_page: Annotated[Path | None, typer.Option(help="And the slides' table here.")] = None,
    dataset: Annotated[str, typer.Option(help="Hub id of the published corpus.")] = "",
) -> None:
    """Publish tested runs into a folder of model folders."""
    compared = page.read(report) if report else None
    fitted = suitability.load(gate).gate if gate else None
    stored = whole_cases.read(slides) if slides else None
    check_weights(runs, compared, stored)
    cards.mkdir(parents=True, exist_ok=True)
    for file in (gate, gate.with_suffix(".md")) if gate else ():  # which cards are made of
        write_files({cards / file.name: file.read_bytes()})
    folders = [release(run, cards, dataset, compared, fitted) for run in runs]
    for folder in folders:
        typer.echo(f"model: {folder}")
    for file in sorted(report.glob("*.*")) if report else ():
        write_files({cards / file.name: file.read_bytes()})
    if readme:
        text = card.put_results(readme.read_text("utf-8"), card.tabulate_results(folders))
        write_files({readme: text.encode()})
    if stored and slides_page:
        table = whole_cases.tabulate(stored)
        text = put_between(
            slides_page.read_text("utf-8"), whole_cases.BEGIN, whole_cases.END, table
        )
        write_files({slides_page: text.encode()})


def check_weights(runs: list[Path], report: Report | None, slides: Slides | None) -> None:
    """Raise InputError where a report or the slides' table is of other weights than the runs'."""
    weights = {run: model_folder.read_weights(run / MODEL)[1] for run in runs}
    for run, sha256 in weights.items():
        if report and sha256 not in {one.weights_sha256 for one in report.tested}:
            raise InputError(f"the report has no test figures of {run}'s weights: compare again")
    if slides and slides.weights_sha256 not in weights.values():
        raise InputError("the slides' table is of other weights: run training.study.slides again")


if __name__ == "__main__":
    command.run(main)
