"""Train one model from a recipe.

python -m training.train --config training/configs/NAME.yaml --corpus CORPUS --out RUN

Held out is the validation part, or with ``--fold`` one fold of what isn't test, or with
``--leave-out`` one case, or with ``--decision-from`` nothing: then everything but test is learnt
from, and the decision rule is fitted on what other runs predicted for their folds.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
import yaml
from accelerate import PartialState
from accelerate.utils import set_seed
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from bcd_models.backbones import create
from bcd_models.classifier import BCDClassifier
from bcd_models.config import DecisionConfig, ModelConfig, PreprocessConfig, Provenance
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from training import command, corpus, engine, predictions, recipe, splits, start
from training.calibration import fit_decision

RECIPE = "recipe.yaml"
RUN = "run.json"
MODEL = "model"
PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True)
class Held:
    """What a run holds out of its training rows; by default the validation part.

    Attributes:
        fold: One of the folds of what isn't test.
        case: One case, and nothing else that isn't test.
        nothing: Learn from everything that isn't test.
    """

    fold: int | None = None
    case: str | None = None
    nothing: bool = False

    def __str__(self) -> str:
        if self.fold is not None:
            return f", fold {self.fold}"
        if self.case:
            return f", without {self.case}"
        return ", train and validation" if self.nothing else ""


@dataclass(frozen=True)
class Data:
    """What a run learns from and is scored on.

    Attributes:
        about: What ``corpus.json`` says.
        split: The manifest read back.
        training: Rows to learn from.
        held_out: Rows to score after each epoch, in corpus order; None where nothing is held out.
    """

    about: dict[str, Any]
    split: splits.Split
    training: engine.Rows
    held_out: engine.Rows | None


def data_of(corpus_folder: Path, plan: recipe.Recipe, held: Held = Held()) -> Data:
    """Load the rows of a run.

    Raises:
        InputError: The corpus, its manifest or what is held out can't be used, or a part holds one
            label only within the larger source.
    """
    rows, about = corpus.load(corpus_folder)
    split = splits.read(corpus_folder, rows, plan.split, about["fingerprint"])
    table = splits.table(rows)
    fitted, out = _masks(split, table, held)
    if plan.learnt_share < 1:
        fitted &= table["case_id"].isin(drawn_cases(table[fitted], plan.learnt_share)).to_numpy()
    larger = table["source"] == splits.larger_source(table)
    for what, mask in {"learnt from": fitted, "held out": out}.items():
        checked = table["label"][mask & larger]
        if mask.any() and checked.nunique() < 2 and held.case is None:
            raise InputError(f"what is {what}{held} holds one label only: {set(checked)}")
    parts = [
        engine.rows_of(rows, table, np.flatnonzero(mask), plan.largest) if mask.any() else None
        for mask in (fitted, out)
    ]
    if parts[0] is None or (parts[1] is None and not held.nothing):
        raise InputError(f"split {split.kind}{held}: a part is empty")
    return Data(about, split, parts[0], parts[1])


def network_of(plan: recipe.Recipe, file: Path | None) -> tuple[Any, PreprocessConfig, str]:
    """A network as training begins with it, its preprocessing, its start's SHA-256 or ""."""
    set_seed(plan.seed)
    network = create(plan.backbone, plan.drop_path, plan.dropout)
    start.silence_head(network)
    mean, std, sha256 = _start(network, plan, file)
    return network, PreprocessConfig(input_size=plan.input_size, mean=mean, std=std), sha256


def train(
    config: Path,
    corpus_folder: Path,
    out: Path,
    start_file: Path | None = None,
    held: Held = Held(),
    teachers: Sequence[Path] = (),
    decision_from: Sequence[Path] = (),
) -> Path:
    """Train, fit the decision rule, write ``RUN/model`` and predictions; returns the model folder.

    Args:
        config: The recipe.
        corpus_folder: As written by ``training.corpus``.
        out: The run's folder.
        start_file: Start weights.
        held: What is held out.
        teachers: Folders whose predictions are part of the targets.
        decision_from: Runs whose predictions decide the decision rule where nothing is held out.
    """
    plan = recipe.read(config)
    state = engine.processes()
    with state.main_process_first():
        data = data_of(corpus_folder, plan, held)
    network, preprocess, start_sha256 = network_of(plan, start_file)
    provenance = Provenance(
        corpus=", ".join(f"{n}: {s['images']}" for n, s in data.about["sources"].items()),
        corpus_fingerprint=data.about["fingerprint"],
        split=f"{data.split.kind}{held}",
        split_sha256=data.split.sha256,
        recipe=plan.model_dump(mode="json"),
        seed=plan.seed,
        start=start_file.name if start_file else plan.start,
        start_sha256=start_sha256,
        inputs={
            "/".join(p.parts[-3:]): _sha256(p / PREDICTIONS) for p in (*teachers, *decision_from)
        },
        git_commit=git_commit(),
        versions=_versions(),
    )
    described = ModelConfig(
        name=plan.name,
        version=plan.version,
        backbone=plan.backbone,
        preprocess=preprocess,
        provenance=provenance,
    )
    training = replace(data.training, taught=_taught(data.training.frame, teachers))
    with _open_run(out, plan, provenance, state):
        network = engine.fit(network, plan, preprocess, training, data.held_out, out)
        if state.is_main_process:
            _save(described, network, data.held_out, decision_from, out)
        state.wait_for_everyone()
    return out / MODEL


def _save(
    config: ModelConfig,
    network: Any,
    held_out: engine.Rows | None,
    decision_from: Sequence[Path],
    out: Path,
) -> None:
    """Fit the decision rule on the float16 weights as they come back; the model appears last."""
    beside, folder = out / f".{MODEL}.new", out / MODEL
    BCDClassifier(config, network).save_pretrained(beside)
    reloaded = BCDClassifier.from_pretrained(beside)
    plan = recipe.Recipe(**config.provenance.recipe)
    if held_out is None:
        known = pd.concat([predictions.read(run / PREDICTIONS) for run in decision_from])
        margins = known["margin"].to_numpy()
    else:
        known = held_out.frame
        margins = engine.score(reloaded.network, held_out, config.preprocess, views=plan.views)
    decision = _decision(known, margins, plan)
    reloaded.config = config.model_copy(update={"decision": decision})
    reloaded.save_pretrained(beside)
    if held_out is not None:
        predictions.write(known, margins, calibrate(margins, decision), out / PREDICTIONS)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def _decision(
    frame: pd.DataFrame, margins: NDArray[np.float64], plan: recipe.Recipe
) -> DecisionConfig:
    """The decision rule within the larger source; the plain one where a label is missing."""
    larger = (frame["source"] == splits.larger_source(frame)).to_numpy()
    truth = (frame["label"] == "malignant").to_numpy()[larger]
    if truth.all() or not truth.any():
        return DecisionConfig(views=plan.views)
    fitted = fit_decision(margins[larger], truth, plan.refer_share)
    return fitted.model_copy(update={"views": plan.views})


def _taught(frame: pd.DataFrame, teachers: Sequence[Path]) -> NDArray[np.float64] | None:
    """The mean of what teachers say of each row, NaN where none says anything."""
    if not teachers:
        return None
    said = pd.concat([predictions.read(run / PREDICTIONS) for run in teachers])
    mean = said.groupby("sha256")["probability"].mean()
    return frame["sha256"].map(mean).to_numpy(dtype=np.float64)


def _masks(
    split: splits.Split, table: pd.DataFrame, held: Held
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows are learnt from, and which are held out."""
    usable = ~split.part.isin(["test", splits.UNUSED]).to_numpy()
    if held.nothing:
        return usable, np.zeros_like(usable)
    if held.fold is not None:
        out = (split.fold == held.fold).to_numpy()
    elif held.case:
        out = (table["case_id"] == held.case).to_numpy() & usable
    else:
        out = (split.part == "validation").to_numpy()
    return usable & ~out, out


def drawn_cases(table: pd.DataFrame, share: float) -> set[str]:
    """A share of the cases of each source, evenly over those of few and of many malignant images.

    Of halves and quarters, the smaller lie within the larger.
    """
    malignant = (table["label"] == "malignant").groupby([table["source"], table["case_id"]]).mean()
    malignant = malignant.sort_values(kind="stable")
    rank = malignant.groupby("source").cumcount()
    drawn = np.floor((rank + 1) * share) > np.floor(rank * share)
    return set(malignant.index[drawn].get_level_values("case_id"))


def _start(network: Any, plan: recipe.Recipe, file: Path | None) -> tuple[Any, Any, str]:
    if file:
        return start.from_file(network, file)
    if plan.start == "imagenet":
        return start.from_imagenet(network, plan.backbone)
    half = (0.5, 0.5, 0.5)
    return half, half, ""


@contextmanager
def _open_run(
    out: Path, plan: recipe.Recipe, provenance: Provenance, state: PartialState
) -> Iterator[None]:
    """Hold the run's folder: written by one run at a time, resumed only as it was begun."""
    if not state.is_main_process:
        state.wait_for_everyone()
        yield
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            _record(out, plan, provenance)
            state.wait_for_everyone()
            yield
    except Timeout:
        raise InputError(f"{out} is another run's at this moment: choose another folder") from None


def _record(out: Path, plan: recipe.Recipe, provenance: Provenance) -> None:
    """Write what decides the run, or check that the run being resumed was decided the same."""
    decides = provenance.model_dump(mode="json", exclude={"git_commit", "versions"})
    record = out / RUN
    if record.exists():
        before = json.loads(record.read_text())
        changed = [key for key, value in decides.items() if before.get(key, value) != value]
        if changed:
            raise InputError(f"{out} was begun with another {changed[0]}: choose another folder")
        return
    (out / RECIPE).write_text(yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False))
    record.write_text(provenance.model_dump_json(indent=1) + "\n")


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path} is missing: finish that run first")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def git_commit() -> str:
    """The commit of the checkout, or "" where there is none."""
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


def _versions() -> dict[str, str]:
    packages = ("accelerate", "datasets", "numpy", "pillow", "timm", "torch", "torchvision")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def main(
    config: Annotated[Path, typer.Option(help="Recipe, one of training/configs/.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="Run folder.")],
    start: Annotated[Path | None, typer.Option(help="Start weights, safetensors.")] = None,
    fold: Annotated[int | None, typer.Option(min=0, max=4, help="Hold out this fold.")] = None,
    leave_out: Annotated[str | None, typer.Option(help="Hold out this case alone.")] = None,
    decision_from: Annotated[
        list[Path] | None,
        typer.Option(help="Hold out nothing; fit the decision on these runs' held-out rows."),
    ] = None,
    teacher: Annotated[
        list[Path] | None, typer.Option(help="Folder whose predictions are part of the targets.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")] = False,
) -> None:
    """Train one model from a recipe."""
    if (fold is not None) + bool(leave_out) + bool(decision_from) > 1:
        raise InputError("choose one of --fold, --leave-out and --decision-from")
    if out.exists() and any(f.name != ".lock" for f in out.iterdir()) and not resume:
        raise InputError(f"{out} is not empty: choose another folder, or go on with --resume")
    engine.keep_freed_memory()
    held = Held(fold, leave_out, bool(decision_from))
    folder = train(config, corpus, out, start, held, teacher or [], decision_from or [])
    typer.echo(f"model: {folder}")


if __name__ == "__main__":
    command.run(main)
