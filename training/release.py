"""Tested runs -> what ``cards`` holds: model folders with their figures and cards, and the report.

python -m training.release RUN... --report REPORT --cards cards --readme README.md
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from bcd_models import folder as model_folder
from bcd_models.errors import InputError
from training import card, command
from training.comparison.runs import METRICS
from training.run_folder import MODEL

FIGURES = ("evaluation-test.png", "risk-by-case-test.png", card.CURVES)
NEEDED = (f"{MODEL}/config.json", f"{MODEL}/model.safetensors", METRICS, *FIGURES[:2])


def release(run: Path, cards: Path) -> Path:
    """Put a run's model, figures and card into its folder; returns the folder.

    Raises:
        InputError: The run was not finished or not tested.
    """
    missing = [name for name in NEEDED if not (run / name).is_file()]
    if missing:
        raise InputError(f"{run} lacks {missing[0]}: finish training and evaluation first")
    folder = cards / model_folder.read_config(run / MODEL).name
    beside = cards / f".{folder.name}.new"
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(run / MODEL, beside)
    shutil.copy(run / METRICS, beside / card.METRICS)
    for name in FIGURES:
        if (run / name).is_file():
            shutil.copy(run / name, beside)
    (beside / "README.md").write_text(card.render(beside), "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder


def main(
    runs: Annotated[list[Path], typer.Argument(help="Tested runs, one a model.")],
    cards: Annotated[Path, typer.Option(help="Folder of model folders.")],
    report: Annotated[Path | None, typer.Option(help="Folder written by compare.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Also put the results in here.")] = None,
) -> None:
    """Publish tested runs into a folder of model folders."""
    folders = [release(run, cards) for run in runs]
    for folder in folders:
        typer.echo(f"model: {folder}")
    if report:
        for file in sorted(report.glob("*.*")):
            shutil.copy(file, cards)
    if readme:
        text = card.put_results(readme.read_text("utf-8"), card.results_table(folders))
        readme.write_text(text, "utf-8")


if __name__ == "__main__":
    command.run(main)
