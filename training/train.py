"""Train one model from a recipe.

python -m training.train --config training/configs/NAME.yaml --corpus CORPUS --out RUN
"""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from accelerate.utils import set_seed

from bcd_models.backbones import create
from bcd_models.classifier import BCDClassifier
from bcd_models.config import ModelConfig, PreprocessConfig, Provenance
from bcd_models.errors import InputError
from training import command, corpus, engine, recipe, splits, start
from training.calibration import fit_decision

RECIPE = "recipe.yaml"
RUN = "run.json"
MODEL = "model"


@dataclass(frozen=True)
class Data:
    """What a run learns from and is scored on.

    Attributes:
        about: What ``corpus.json`` says.
        split: The manifest read back.
        training: Rows to learn from.
        held_out: Rows to score after each epoch, in corpus order.
    """

    about: dict[str, Any]
    split: splits.Split
    training: engine.Rows
    held_out: engine.Rows


def data_of(corpus_folder: Path, plan: recipe.Recipe, fold: int | None) -> Data:
    """Load the rows of a run: train and validation part, or a fold and all that isn't test."""
    rows, about = corpus.load(corpus_folder)
    split = splits.read(corpus_folder, rows, plan.split, about["fingerprint"])
    table = splits.table(rows)
    fitted, held_out = _indices(split, fold)
    return Data(
        about,
        split,
        engine.rows_of(rows, table, fitted, plan.largest),
        engine.rows_of(rows, table, held_out, plan.largest),
    )


def network_of(plan: recipe.Recipe, file: Path | None) -> tuple[Any, PreprocessConfig, str]:
    """A network as training begins with it, its preprocessing, its start's SHA-256 or ""."""
    set_seed(plan.seed)
    network = create(plan.backbone, plan.drop_path, plan.dropout)
    start.silence_head(network)
    mean, std, sha256 = _start(network, plan, file)
    return network, PreprocessConfig(mean=mean, std=std), sha256


def train(
    config: Path, corpus_folder: Path, out: Path, start_file: Path | None, fold: int | None
) -> Path:
    """Train, calibrate on the held-out rows, and write ``RUN/model``; returns that folder."""
    plan = recipe.read(config)
    data = data_of(corpus_folder, plan, fold)
    network, preprocess, start_sha256 = network_of(plan, start_file)
    sources = data.about["sources"].items()
    provenance = Provenance(
        corpus=", ".join(f"{name}: {source['images']}" for name, source in sources),
        corpus_fingerprint=data.about["fingerprint"],
        split=data.split.kind if fold is None else f"{data.split.kind}, fold {fold}",
        split_sha256=data.split.sha256,
        recipe=plan.model_dump(mode="json"),
        seed=plan.seed,
        start=start_file.name if start_file else plan.start,
        start_sha256=start_sha256,
        git_commit=_git_commit(),
        versions=_versions(),
    )
    _open_run(out, plan, provenance)
    network = engine.fit(network, plan, preprocess, data.training, data.held_out, out)
    described = ModelConfig(
        name=plan.name,
        version=plan.version,
        backbone=plan.backbone,
        preprocess=preprocess,
        provenance=provenance,
    )
    return _save(described, network, data.held_out, plan.refer_share, out / MODEL)


def _save(
    config: ModelConfig,
    network: Any,
    validation: engine.Rows,
    refer_share: float,
    folder: Path,
) -> Path:
    """Save, then fit the decision rule on the float16 weights as they come back."""
    BCDClassifier(config, network).save_pretrained(folder)
    reloaded = BCDClassifier.from_pretrained(folder)
    larger = validation.frame["source"] == splits.larger_source(validation.frame)
    margins = engine.score(reloaded.network, validation, config.preprocess)[larger]
    decision = fit_decision(margins, validation.truth[larger], refer_share)
    reloaded.config = config.model_copy(update={"decision": decision})
    reloaded.save_pretrained(folder)
    return folder


def _indices(split: splits.Split, fold: int | None) -> tuple[Any, Any]:
    if fold is None:
        fitted, held_out = split.part == "train", split.part == "validation"
    else:
        held_out = split.fold == fold
        fitted = (split.part != "test") & ~held_out
    if not held_out.any() or not fitted.any():
        raise InputError(f"split {split.kind}, fold {fold}: a part is empty")
    return np.flatnonzero(fitted), np.flatnonzero(held_out)


def _start(network: Any, plan: recipe.Recipe, file: Path | None) -> tuple[Any, Any, str]:
    if file:
        return start.from_file(network, file)
    if plan.start == "imagenet":
        return start.from_imagenet(network, plan.backbone)
    half = (0.5, 0.5, 0.5)
    return half, half, ""


def _open_run(out: Path, plan: recipe.Recipe, provenance: Provenance) -> None:
    """Write what decides the run, or check that the run being resumed was decided the same."""
    out.mkdir(parents=True, exist_ok=True)
    decides = provenance.model_dump(mode="json", exclude={"git_commit", "versions"})
    record = out / RUN
    if record.exists():
        before = json.loads(record.read_text())
        changed = [key for key, value in decides.items() if before.get(key) != value]
        if changed:
            raise InputError(f"{out} was begun with another {changed[0]}: choose another folder")
        return
    (out / RECIPE).write_text(yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False))
    record.write_text(provenance.model_dump_json(indent=1) + "\n")


def _git_commit() -> str:
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
    resume: Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")] = False,
) -> None:
    """Train one model from a recipe."""
    if out.exists() and any(out.iterdir()) and not resume:
        raise InputError(f"{out} is not empty: choose another folder, or go on with --resume")
    engine.keep_freed_memory()
    folder = train(config, corpus, out, start, fold)
    typer.echo(f"model: {folder}")


if __name__ == "__main__":
    command.run(main)
