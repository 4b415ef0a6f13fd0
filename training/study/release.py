"""Tested runs -> what ``cards`` holds: model folders with their figures and cards, and the report.

python -m training.study.release RUN... --report REPORT --cards cards --readme README.md
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.hub.atomic import write_files
from training import command
from training.card import write as card
from training.compare import page
from training.compare.runs import METRICS
from training.evaluate import schema as measured
from training.run_folder import MODEL
from training.train.checkpoint import EPOCHS, sum_up_epochs

FIGURES = ("evaluation-test.png", "risk-by-case-test.png", card.CURVES)
REQUIRED_FILES = (
    f"{MODEL}/config.json",
    f"{MODEL}/model.safetensors",
    METRICS,
    EPOCHS,
    *FIGURES[:2],
)


def release(run: Path, cards: Path, dataset: str = "") -> Path:
    """Put a run's model, figures and card into its folder; returns the folder.

    Args:
        run: A run's folder.
        cards: Folder of model folders.
        dataset: Hub id of the published corpus, or "".

    Raises:
        InputError: The run was not finished or not tested.
    """
    missing = [name for name in REQUIRED_FILES if not (run / name).is_file()]
    if missing:
        raise InputError(f"{run} lacks {missing[0]}: finish training and evaluation first")
    config = model_folder.read_config(run / MODEL)
    folder = cards / config.name
    beside = cards / f".{folder.name}.new"
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(run / MODEL, beside)
    metrics = measured.read(run / METRICS)
    metrics = metrics.model_copy(update={"training": sum_up_epochs(run)})
    (beside / card.METRICS_FILE).write_text(metrics.model_dump_json(indent=1) + "\n", "utf-8")
    for name in FIGURES:
        if (run / name).is_file():
            shutil.copy(run / name, beside)
    card.write(beside, dataset)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder


def main(
    runs: Annotated[list[Path], typer.Argument(help="Tested runs, one a model.")],
    cards: Annotated[Path, typer.Option(help="Folder of model folders.")],
    report: Annotated[Path | None, typer.Option(help="Folder written by compare.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Also put the results in here.")] = None,
    dataset: Annotated[str, typer.Option(help="Hub id of the published corpus.")] = "",
) -> None:
    """Publish tested runs into a folder of model folders."""
    if report:
        page.read(report)
    folders = [release(run, cards, dataset) for run in runs]
    for folder in folders:
        typer.echo(f"model: {folder}")
    if report:
        for file in sorted(report.glob("*.*")):
            shutil.copy(file, cards)
    if readme:
        text = card.put_results(readme.read_text("utf-8"), card.tabulate_results(folders))
        write_files({readme: text.encode()})


if __name__ == "__main__":
    command.run(main)
