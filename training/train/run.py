"""Train one model from a recipe.

python -m training.train --config training/recipes/NAME.yaml --corpus CORPUS --out RUN

Held out is the validation part, or with ``--fold`` one fold of what isn't test, or with
``--leave-out`` one case, or with ``--decision-from`` nothing: then everything but test is learnt
from, and the decision rule is fitted on what other runs predicted for their folds.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from accelerate.utils import set_seed
from numpy.typing import NDArray

from bcd_models.config import DecisionConfig, HeldOut, ModelConfig, PreprocessConfig, Provenance
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from bcd_models.local import metrics
from bcd_models.local.points import fit_decision
from bcd_models.models.backbones import create_network
from bcd_models.models.classifier import BCDClassifier
from training import command, run_folder
from training.corpus import predictions, splits
from training.corpus.pixels import Rows
from training.corpus.selection import Data, open_corpus, select_data
from training.evaluate import scoring
from training.evaluate.answers import ANSWERS
from training.recipes import schema as recipe
from training.run_folder import MODEL, PREDICTIONS
from training.train import engine, start
from training.train.teach import average_teachers


def build_network(plan: recipe.Recipe, file: Path | None) -> tuple[Any, PreprocessConfig, str]:
    """Return a network as training begins with it, its preprocessing, its start's SHA-256 or ""."""
    set_seed(plan.seed)
    network = create_network(
        plan.backbone, plan.input_size, drop_path=plan.drop_path, dropout=plan.dropout
    )
    start.silence_head(network)
    mean = std = (0.5, 0.5, 0.5)
    sha256 = ""
    if file:
        mean, std, sha256 = start.from_file(network, file, plan.start_lacks)
    elif plan.start == "imagenet":
        mean, std, sha256 = start.from_imagenet(network, plan.backbone)
    return network, PreprocessConfig(input_size=plan.input_size, mean=mean, std=std), sha256


def train(
    config: Path,
    corpus_folder: Path,
    out: Path,
    start_file: Path | None = None,
    held: HeldOut = HeldOut(),
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
        teachers: Runs whose answers are part of the targets.
        decision_from: Runs whose predictions decide the decision rule where nothing is held out.
    """
    plan = recipe.read(config)
    state = engine.find_processes()
    with state.main_process_first():
        opened = open_corpus(corpus_folder, plan.split)
        data = select_data(opened, plan, held)
    taught = average_teachers(opened, data.training.frame, plan, held, teachers)
    network, preprocess, start_sha256 = build_network(plan, start_file)
    began_with = (start_file, start_sha256)
    inputs = [run / ANSWERS for run in teachers] + [run / PREDICTIONS for run in decision_from]
    provenance = build_provenance(plan, data, held, began_with, inputs)
    described = ModelConfig(
        name=plan.name,
        version=plan.version,
        backbone=plan.backbone,
        preprocess=preprocess,
        provenance=provenance,
    )
    training = replace(data.training, taught=taught)
    with run_folder.hold(out, plan, provenance, state):
        network = engine.fit(network, plan, preprocess, training, data.held_out, out)
        if state.is_main_process:
            save(described, network, data.held_out, decision_from, out)
        state.wait_for_everyone()
    return out / MODEL


def build_provenance(
    plan: recipe.Recipe,
    data: Data,
    held: HeldOut,
    began_with: tuple[Path | None, str],
    inputs: Sequence[Path],
) -> Provenance:
    """Return what decides a run.

    Args:
        plan: Its recipe.
        data: Its rows.
        held: What it holds out.
        began_with: The file of its start weights, and its SHA-256.
        inputs: Other runs' files that it takes something from.
    """
    file, start_sha256 = began_with
    return Provenance(
        images={name: source["images"] for name, source in data.about["sources"].items()},
        corpus_fingerprint=data.about["fingerprint"],
        split=data.split.kind,
        split_sha256=data.split.sha256,
        held_out=held,
        recipe=plan.as_trained(),
        seed=plan.seed,
        start=file.name if file else plan.start,
        start_sha256=start_sha256,
        inputs={"/".join(p.parts[-4:-1]): run_folder.hash_file(p) for p in inputs},
        git_commit=run_folder.read_git_commit(),
        versions=run_folder.list_versions(),
    )


def save(
    config: ModelConfig,
    network: Any,
    held_out: Rows | None,
    decision_from: Sequence[Path],
    out: Path,
) -> None:
    """Fit the decision rule on the float16 weights as they come back; the model appears last.

    Args:
        config: Of the model, but for its decision rule.
        network: Trained.
        held_out: Rows to predict, and to fit the rule on; None where nothing is held out.
        decision_from: Runs whose predictions the rule is fitted on then.
        out: The run's folder.
    """
    beside, folder = out / f".{MODEL}.new", out / MODEL
    BCDClassifier(config, network).save_pretrained(beside)
    reloaded = BCDClassifier.from_pretrained(beside)
    plan = recipe.Recipe(**config.provenance.recipe)
    if held_out is None:
        known = pd.concat([predictions.read(run / PREDICTIONS) for run in decision_from])
        margins = known["margin"].to_numpy()
    else:
        known = held_out.frame
        network = BCDClassifier.from_pretrained(beside).network  # reloaded keeps its graphs
        margins = scoring.score(network, held_out, config.preprocess, views=plan.views)
    decision = fit_decision_rule(known, margins, plan)
    reloaded.config = config.model_copy(update={"decision": decision})
    reloaded.save_pretrained(beside)
    if held_out is not None:
        predictions.write(known, margins, calibrate(margins, decision), out / PREDICTIONS)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def fit_decision_rule(
    frame: pd.DataFrame, margins: NDArray[np.float64], plan: recipe.Recipe
) -> DecisionConfig:
    """Return the decision rule within the larger source; the plain one where a label is missing."""
    larger = (frame["source"] == splits.find_larger_source(frame)).to_numpy()
    truth = metrics.is_malignant(frame)[larger]
    if truth.all() or not truth.any():
        return DecisionConfig(views=plan.views)
    fitted = fit_decision(margins[larger], truth, plan.refer_share)
    return fitted.model_copy(update={"views": plan.views})


def main(
    config: Annotated[Path, typer.Option(help="Recipe, one of training/recipes/.")],
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
        list[Path] | None, typer.Option(help="Run whose answers are part of the targets.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")] = False,
) -> None:
    """Train one model from a recipe."""
    if (fold is not None) + bool(leave_out) + bool(decision_from) > 1:
        raise InputError("choose one of --fold, --leave-out and --decision-from")
    if out.exists() and any(f.name != run_folder.LOCK for f in out.iterdir()) and not resume:
        raise InputError(f"{out} is not empty: choose another folder, or go on with --resume")
    command.keep_freed_memory()
    held = HeldOut(fold=fold, case=leave_out, nothing=bool(decision_from))
    folder = train(config, corpus, out, start, held, teacher or [], decision_from or [])
    if engine.find_processes().is_main_process:
        typer.echo(f"model: {folder}")
