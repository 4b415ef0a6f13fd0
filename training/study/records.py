"""What a study found, without its weights: small enough to publish, enough to compare again.

python -m training.study.records STUDY --out RECORDS

RECORDS has the study's own layout: of each training that held something out its recipe, provenance,
learning curve, decision rule and answers, and of each tuning its trials and pages. A study begun
with ``training.study --records RECORDS`` has those runs already.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from filelock import FileLock, Timeout
from optuna import get_all_study_names
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from bcd_models.decision import calibrate
from bcd_models.hub import folder as model_folder
from bcd_models.hub.atomic import write_files
from training import command, run_folder
from training.corpus import predictions
from training.corpus.selection import check_corpus, find_unlearnt_rows, open_corpus
from training.evaluate import answers
from training.evaluate.answers import ANSWERS
from training.recipes import schema as recipe
from training.run_folder import MODEL, PREDICTIONS, RECIPE, RUN_FILE
from training.train.checkpoint import EPOCHS
from training.tune.search import BEST
from training.tune.storage import DATABASE, copy_finished, open_storage, sqlite_url

JOURNAL = "trials.journal"
CONFIG = f"{MODEL}/{model_folder.CONFIG}"
RUN_FILES = (RECIPE, RUN_FILE, EPOCHS, ANSWERS, CONFIG)
TUNED_TEXTS = (".yaml", ".json", ".md")


def gather(study: Path, out: Path) -> list[str]:
    """Add what a study has come to since to its records; returns the names of all its runs."""
    asked = sorted(path.parent for path in (study / "runs").glob(f"*/*/*/{ANSWERS}"))
    runs = [run for run in asked if not run_folder.read_provenance(run).held_out.nothing]
    files = {run / name for run in runs for name in RUN_FILES}
    files |= {path for path in (study / "tune").glob("*/*") if path.suffix in TUNED_TEXTS}
    contents = {out / path.relative_to(study): path.read_bytes() for path in sorted(files)}
    for tuning in sorted((study / "tune").glob("*")):
        if not (tuning / BEST).exists() and (journal := _journal(tuning)):
            contents[out / "tune" / tuning.name / JOURNAL] = journal.encode()
    for path, data in contents.items():
        if not path.exists() or path.read_bytes() != data:
            write_files({path: data})
    for best in (out / "tune").glob(f"*/{BEST}"):
        best.with_name(JOURNAL).unlink(missing_ok=True)
    return [run.relative_to(study / "runs").as_posix() for run in runs]


def restore(records: Path, study: Path, corpus: Path) -> list[str]:
    """Give a study the recorded runs and tunings that it lacks; returns the runs' names.

    Raises:
        InputError: The records are of another corpus, or can't be read.
    """
    recorded = {
        path.parent.relative_to(records / "runs").as_posix(): path.parent
        for path in sorted((records / "runs").glob(f"*/*/*/{ANSWERS}"))
    }
    study.mkdir(parents=True, exist_ok=True)
    with FileLock(study / ".restore.lock"):  # of several processes that begin at once, one restores
        restored = []
        for name, files in recorded.items():
            run = study / "runs" / name
            run.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout), FileLock(run / run_folder.LOCK, timeout=0):  # or it is trained
                if not (run / MODEL).exists():
                    _restore_run(files, run, corpus)
                    restored.append(name)
        for path in sorted((records / "tune").glob("*/*")):
            tuning = study / "tune" / path.parent.name
            if path.name == JOURNAL:
                _restore_tuning(tuning, path.read_text("utf-8"))
            elif not (tuning / path.name).exists():
                write_files({tuning / path.name: path.read_bytes()})
    return restored


def _journal(tuning: Path) -> str:
    """Return the trials of a tuning that goes on, as Optuna's own text; the same for the same.

    It is empty where no study was begun: a database is there before its study is.
    """
    if not (tuning / DATABASE).exists():
        return ""
    with TemporaryDirectory() as beside, open_storage(sqlite_url(tuning), 1) as database:
        if tuning.name not in get_all_study_names(database):
            return ""
        path = Path(beside) / JOURNAL
        copy_finished(tuning.name, database, JournalStorage(JournalFileBackend(str(path))))
        return re.sub(r'"worker_id":"[^"]*"', '"worker_id":""', path.read_text("utf-8"))


def _restore_tuning(tuning: Path, text: str) -> None:
    """Make a tuning's database anew, whole, where there is none yet."""
    if (tuning / DATABASE).exists() or (tuning / BEST).exists():
        return
    tuning.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=tuning) as beside:
        path = Path(beside) / JOURNAL
        path.write_text(text, "utf-8")
        with open_storage(sqlite_url(Path(beside)), 1) as database:
            copy_finished(tuning.name, JournalStorage(JournalFileBackend(str(path))), database)
        (Path(beside) / DATABASE).rename(tuning / DATABASE)


def _restore_run(recorded: Path, run: Path, corpus: Path) -> None:
    """Copy a run's files; its model's folder comes last: where it is, the run is finished."""
    plan, provenance = recipe.read(recorded / RECIPE), run_folder.read_provenance(recorded)
    opened = open_corpus(corpus, provenance.split)
    check_corpus(provenance, opened)
    said = answers.read(recorded)[f"views_{plan.views}"]
    held_out = find_unlearnt_rows(opened, provenance.held_out)
    margins = said[held_out].to_numpy(np.float64)
    decision = model_folder.read_config(recorded / MODEL).decision
    beside = run / f".{MODEL}.new"
    beside.mkdir(parents=True, exist_ok=True)
    for name in RUN_FILES[:-1]:
        shutil.copy(recorded / name, run / name)
    shutil.copy(recorded / CONFIG, beside)
    told = calibrate(margins, decision)
    predictions.write(opened.table[held_out], margins, told, run / PREDICTIONS)
    beside.rename(run / MODEL)


def main(
    study: Annotated[Path, typer.Argument(help="The study's folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the records.")],
) -> None:
    """Write what a study found so far."""
    typer.echo(f"{len(gather(study, out))} runs: {out}")


if __name__ == "__main__":
    command.run(main)
