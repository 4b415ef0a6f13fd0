"""What a study found, without its weights: small enough to publish, enough to compare again.

python -m training.study.records STUDY --out RECORDS

``runs.json`` holds the texts of each finished run that held something out, and of each tuning;
``predictions.parquet`` has a line a row of the corpus and a column of margins a run. A study begun
with ``training.study --records RECORDS`` has those runs already.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import ValidationError

from bcd_models.config import ModelConfig, Strict
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.hub.folder import CONFIG
from training import command
from training.corpus import predictions
from training.run_folder import MODEL, PREDICTIONS, RECIPE, RUN_FILE
from training.train.checkpoint import EPOCHS
from training.tune.search import BEST
from training.tune.storage import DATABASE, copy_finished, open_storage, sqlite_url

RUNS = "runs.json"
JOURNAL = "trials.journal"
RUN_TEXTS = (RECIPE, RUN_FILE, EPOCHS, f"{MODEL}/{CONFIG}")
TUNED_TEXTS = (".yaml", ".json", ".md")
KEY_COLUMNS = list(predictions.COLUMNS)
ROW_ORDER = ["source", "name"]  # as a corpus has its rows


class Records(Strict):
    """``runs.json``.

    Attributes:
        runs: Texts by file, by run; a run by its path below the study's ``runs``.
        tuned: Texts by path below the study.
    """

    runs: dict[str, dict[str, str]]
    tuned: dict[str, str]


def gather(study: Path, out: Path) -> Records:
    """Write the records of a study as far as it has come.

    Raises:
        InputError: It has no finished run yet, or the records can't be written.
    """
    finished = sorted(folder.parent for folder in (study / "runs").glob(f"*/*/*/{MODEL}"))
    held_out = [run for run in finished if (run / PREDICTIONS).is_file()]
    if not held_out:
        raise InputError(f"{study} has no finished run yet")
    named = {run.relative_to(study / "runs").as_posix(): run for run in held_out}
    texts = {
        name: {file: (run / file).read_text("utf-8") for file in RUN_TEXTS}
        for name, run in named.items()
    }
    tuned = {
        path.relative_to(study).as_posix(): path.read_text("utf-8")
        for path in sorted((study / "tune").glob("*/*"))
        if path.suffix in TUNED_TEXTS
    }
    for folder in sorted((study / "tune").glob("*")):
        if not (folder / BEST).exists() and (folder / DATABASE).exists():
            tuned[f"tune/{folder.name}/{JOURNAL}"] = _journal(folder)
    records = Records(runs=texts, tuned=tuned)
    out.mkdir(parents=True, exist_ok=True)
    # A line a row held out anywhere, a column of margins a run; NaN where a run has none.
    margins = [
        predictions.read(run / PREDICTIONS).set_index(KEY_COLUMNS)["margin"] for run in held_out
    ]
    rows = pd.concat(margins, axis=1, keys=list(named)).reset_index()
    rows = rows.sort_values(ROW_ORDER, kind="stable", ignore_index=True)
    table = rows.to_parquet(index=False, compression="zstd")
    text = json.dumps(records.model_dump(), indent=1, ensure_ascii=False) + "\n"
    write_files({out / PREDICTIONS: table, out / RUNS: text.encode()})
    return records


def restore(folder: Path, study: Path) -> list[str]:
    """Give a study the recorded runs that it lacks; returns their names.

    Raises:
        InputError: The records can't be read.
    """
    try:
        records = Records.model_validate_json((folder / RUNS).read_bytes())
        table = pd.read_parquet(folder / PREDICTIONS)
    except (OSError, ValidationError, ValueError) as error:
        raise InputError(f"{folder} holds no records of a study: {error}") from None
    missing = [name for name in records.runs if not (study / "runs" / name / MODEL).exists()]
    for name in missing:
        _restore_run(records.runs[name], table[name], table[KEY_COLUMNS], study / "runs" / name)
    for name, text in records.tuned.items():
        path = study / name
        if path.name == JOURNAL:
            _restore_tuning(path.parent, text)
        elif not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_files({path: text.encode()})
    return missing


def _journal(tuning: Path) -> str:
    """Return the trials of a tuning that goes on, as Optuna's own text."""
    with TemporaryDirectory() as beside, open_storage(sqlite_url(tuning), 1) as database:
        path = Path(beside) / JOURNAL
        copy_finished(tuning.name, database, JournalStorage(JournalFileBackend(str(path))))
        return path.read_text("utf-8")


def _restore_tuning(tuning: Path, text: str) -> None:
    """Make a tuning's database anew, where there is none yet."""
    if (tuning / DATABASE).exists() or (tuning / BEST).exists():
        return
    with TemporaryDirectory() as beside:
        path = Path(beside) / JOURNAL
        path.write_text(text, "utf-8")
        tuning.mkdir(parents=True, exist_ok=True)
        with open_storage(sqlite_url(tuning), 1) as database:
            copy_finished(tuning.name, JournalStorage(JournalFileBackend(str(path))), database)


def _restore_run(texts: dict[str, str], margins: Any, rows: pd.DataFrame, run: Path) -> None:
    """Write a run's files; its model's folder comes last: where it is, the run is finished."""
    held_out = margins.notna()
    *others, of_model = RUN_TEXTS
    config = ModelConfig.from_json(texts[of_model], str(run))
    own = margins[held_out].to_numpy(dtype=np.float64)
    beside = run / f".{MODEL}.new"
    beside.mkdir(parents=True, exist_ok=True)
    table = predictions.encode(rows[held_out], own, calibrate(own, config.decision))
    contents = {run / name: texts[name].encode() for name in others}
    contents |= {run / PREDICTIONS: table, beside / CONFIG: texts[of_model].encode()}
    write_files(contents)
    beside.rename(run / MODEL)


def main(
    study: Annotated[Path, typer.Argument(help="The study's folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the records.")],
) -> None:
    """Write what a study found so far."""
    records = gather(study, out)
    typer.echo(f"{len(records.runs)} runs: {out}")


if __name__ == "__main__":
    command.run(main)
