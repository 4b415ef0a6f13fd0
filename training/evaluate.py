"""Measure a model on a part of a corpus, with intervals and beside the two floors.

python -m training.evaluate --model FOLDER --corpus CORPUS --part test --out METRICS.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray

from bcd_models.classifier import BCDClassifier
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from bcd_models.prediction import NOTICE
from training import command, corpus, engine, figures, floors, metrics, splits

SCHEMA_VERSION = 1
FLOOR_SIZE = 50


def evaluate(model: BCDClassifier, corpus_folder: Path, part: str) -> tuple[dict[str, Any], Any]:
    """Score a model on one part of its own split.

    Returns:
        The metrics document, and what the figures are drawn of: truth and probability.

    Raises:
        InputError: The model was trained on another corpus, or the part can't be measured.
    """
    rows, about = corpus.load(corpus_folder)
    provenance = model.config.provenance
    if provenance.corpus_fingerprint != about["fingerprint"]:
        raise InputError(
            f"the model was trained on corpus {provenance.corpus_fingerprint[:16] or 'unknown'}, "
            f"this one is {about['fingerprint'][:16]}: its parts say nothing about this model"
        )
    kind = provenance.split.split(",")[0]
    split = splits.read(corpus_folder, rows, kind, about["fingerprint"])
    table = splits.table(rows)
    size = model.config.preprocess.input_size
    scored = engine.rows_of(rows, table, np.flatnonzero(split.part == part), size)
    train = engine.rows_of(rows, table, np.flatnonzero(split.part == "train"), size)
    _check_both_labels(scored.frame, part)

    margins = engine.score(model.network, scored, model.config.preprocess)
    probability = calibrate(margins, model.config.decision)
    drawn = metrics.resamples(scored.frame["case_id"], scored.frame["source"])
    document = {
        "schema_version": SCHEMA_VERSION,
        "model": {
            "name": model.config.name,
            "version": model.config.version,
            "weights_sha256": model.weights_sha256,
            "threshold": model.config.decision.threshold,
        },
        "data": {
            "corpus_fingerprint": about["fingerprint"],
            "split": kind,
            "split_sha256": split.sha256,
            "part": part,
            "counts": metrics.counts(scored.frame),
            "train_counts": metrics.counts(train.frame),
            "only_trained_on": _counts_of_untested(train.frame, scored.frame),
        },
        "intervals": f"95%, bootstrap over whole cases within source, {len(drawn)} resamples",
        **_measured(model, scored, probability, drawn),
        "floors": _floors(train, scored, probability, drawn),
        "notice": NOTICE,
    }
    return document, (scored.truth, probability)


def _measured(
    model: BCDClassifier,
    scored: engine.Rows,
    probability: NDArray[np.float64],
    drawn: list[NDArray[np.int64]],
) -> dict[str, Any]:
    decision = model.config.decision
    low, high = decision.refer or (1.0, 0.0)
    outside = (probability < low) | (probability > high)
    called = probability >= decision.threshold
    return {
        "overall": metrics.with_intervals(scored.truth, probability, decision.threshold, drawn),
        "calibration": metrics.calibration(scored.truth, probability),
        "referral": {
            "referred_share": float(1 - outside.mean()),
            "accuracy_of_the_rest": float((called == scored.truth)[outside].mean()),
        },
        "macro_over_cases": metrics.macro_over_cases(scored.frame, probability),
        "per_source": _subgroups(scored, "source", probability, decision.threshold),
        "per_magnification": _subgroups(scored, "magnification", probability, decision.threshold),
    }


def _subgroups(
    scored: engine.Rows, column: str, probability: NDArray[np.float64], threshold: float
) -> dict[str, Any]:
    groups = {}
    for name, rows in scored.frame.groupby(column).indices.items():
        if not name:
            continue
        frame = scored.frame.iloc[rows].reset_index(drop=True)
        groups[str(name)] = {"counts": metrics.counts(frame), "figures": "not estimable"}
        if metrics.estimable(frame):
            drawn = metrics.resamples(frame["case_id"], frame["source"])
            groups[str(name)]["figures"] = metrics.with_intervals(
                scored.truth[rows], probability[rows], threshold, drawn
            )
    return groups


def _floors(
    train: engine.Rows,
    scored: engine.Rows,
    probability: NDArray[np.float64],
    drawn: list[NDArray[np.int64]],
) -> dict[str, Any]:
    rivals = {
        "source_alone": floors.source_floor(train.frame, scored.frame),
        "colour_statistics": floors.colour_floor(train, scored, FLOOR_SIZE),
    }
    return {
        name: {
            "auroc": metrics.interval(metrics.auroc, scored.truth, rival, drawn),
            "model_minus_floor": metrics.difference(
                metrics.auroc, scored.truth, probability, rival, drawn
            ),
        }
        for name, rival in rivals.items()
    }


def _counts_of_untested(train: pd.DataFrame, scored: pd.DataFrame) -> dict[str, Any]:
    absent = sorted(set(train["source"]) - set(scored["source"]))
    return {name: metrics.counts(train[train["source"] == name]) for name in absent}


def _check_both_labels(frame: pd.DataFrame, part: str) -> None:
    if frame["label"].nunique() < 2:
        raise InputError(f"part {part!r} does not hold both labels: {metrics.counts(frame)}")


def main(
    model: Annotated[Path, typer.Option(help="Model folder.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="JSON file to write; figures go beside it.")],
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
) -> None:
    """Measure a model on a part of the corpus it was made from."""
    if part not in splits.SHARES:
        raise InputError(f"no part {part!r}: choose one of {', '.join(splits.SHARES)}")
    engine.keep_freed_memory()
    document, (truth, probability) = evaluate(BCDClassifier.from_pretrained(model), corpus, part)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")
    threshold = document["model"]["threshold"]
    figures.evaluation(truth, probability, threshold, out.with_name(f"evaluation-{part}.png"))
    for name in ("auroc", "balanced_accuracy", "accuracy", "recall", "false_negative_rate"):
        entry = document["overall"][name]
        typer.echo(f"{name:20} {entry['value']:.4f} ({entry['low']:.4f} to {entry['high']:.4f})")
    for name, floor in document["floors"].items():
        typer.echo(f"{name:20} AUROC {floor['auroc']['value']:.4f}")


if __name__ == "__main__":
    command.run(main)
