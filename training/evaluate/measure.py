"""Measure a model on a part of a corpus, with intervals and beside the two floors.

python -m training.evaluate --model FOLDER --corpus CORPUS --part test --out METRICS.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray

from bcd_models.config import DecisionConfig, HeldOut
from bcd_models.decision import PROBABILITY_BINS, calibrate
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.local import metrics
from bcd_models.local.calibration import measure_calibration
from bcd_models.models.classifier import BCDClassifier
from bcd_models.prediction import NOTICE
from training import command
from training.corpus import predictions, splits
from training.corpus.pixels import Rows, select_rows
from training.corpus.selection import check_corpus, open_corpus, select_data
from training.evaluate import figures, floors, scoring
from training.evaluate import schema as measured
from training.recipes import schema as recipe

FLOORS = ("source_alone", "colour_statistics")


def evaluate(
    model: BCDClassifier, corpus_folder: Path, part: str
) -> tuple[measured.Metrics, pd.DataFrame]:
    """Score a model on one part of its own split.

    Returns:
        The metrics document, and each row with its ``margin``, its calibrated ``probability`` and
        what each of ``FLOORS`` gives it.

    Raises:
        InputError: The model was made of another corpus or split, has learnt from the part, or
            the part holds one label only within the larger source.
    """
    provenance = model.config.provenance
    kind, held = provenance.split, provenance.held_out
    opened = open_corpus(corpus_folder, kind)
    about, split, table = opened.about, opened.split, opened.table
    check_corpus(provenance, opened)
    if held != HeldOut() and part != "test":
        raise InputError(
            f"the model (split {provenance.split_words}) is measured on test, not {part!r}"
        )
    plan = recipe.parse(provenance.recipe, "the model's own recipe can't be read")
    larger = splits.find_larger_source(table)
    tested = (split.part == part).to_numpy()
    _check_both_labels(table[tested & (table["source"] == larger)], part, larger)
    learnt = select_data(opened, plan, held).training
    scored = _score(
        model,
        select_rows(opened.rows, table, np.flatnonzero(tested), model.config.preprocess.input_size),
        learnt,
    )
    decision = model.config.decision
    within = _where(scored, "source", larger)
    document = {
        "schema_version": measured.SCHEMA_VERSION,
        "model": {
            "name": model.config.name,
            "version": model.config.version,
            "weights_sha256": model.weights_sha256,
            "threshold": decision.threshold,
            "refer": decision.refer,
        },
        "data": {
            "corpus_fingerprint": about["fingerprint"],
            "split": kind,
            "split_sha256": split.sha256,
            "part": part,
            "counts": metrics.count_images(scored),
            "train_counts": metrics.count_images(learnt.frame),
            "only_trained_on": {
                name: metrics.count_images(learnt.frame[learnt.frame["source"] == name])
                for name in sorted(set(learnt.frame["source"]) - set(scored["source"]))
            },
        },
        "intervals": "95%, bootstrap over whole cases within source, "
        f"{metrics.RESAMPLES} resamples",
        **_measure(scored, decision, "overall"),
        "per_source": _measure_subgroups(scored, "source", decision.threshold),
        "per_magnification": _measure_subgroups(scored, "magnification", decision.threshold),
        "probabilities": metrics.count_in_bins(scored["probability"].to_numpy(), PROBABILITY_BINS),
        "within": {
            "source": larger,
            "counts": metrics.count_images(within),
            **_measure(within, decision, "figures"),
        },
        "notice": NOTICE,
    }
    return measured.Metrics.model_validate(document, strict=True), scored


def _where(scored: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    return scored[scored[column] == value].reset_index(drop=True)


def _score(model: BCDClassifier, rows: Rows, learnt: Rows) -> pd.DataFrame:
    views = model.config.decision.views
    margins = scoring.score(model.network, rows, model.config.preprocess, views=views)
    return rows.frame.assign(
        margin=margins,
        probability=calibrate(margins, model.config.decision),
        source_alone=floors.predict_by_source(learnt.frame, rows.frame),
        colour_statistics=floors.predict_by_colour(learnt, rows),
    )


def _measure(scored: pd.DataFrame, decision: DecisionConfig, name: str) -> dict[str, Any]:
    """Return everything that is measured of a set of images, its figures by the name given."""
    drawn = metrics.draw_resamples(scored["case_id"], scored["source"])
    truth, probability = metrics.is_malignant(scored), scored["probability"].to_numpy()
    return {
        name: metrics.measure_intervals(truth, probability, decision.threshold, drawn),
        "calibration": measure_calibration(truth, probability),
        "referral": _referral(truth, probability, decision),
        "macro_over_cases": metrics.average_over_cases(scored, probability),
        "floors": {
            floor: {
                "auroc": metrics.measure_interval(metrics.auroc, truth, rival, drawn),
                "model_minus_floor": metrics.measure_difference(
                    metrics.auroc, truth, probability, rival, drawn
                ),
            }
            for floor, rival in ((floor, scored[floor].to_numpy()) for floor in FLOORS)
        },
    }


def _referral(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], decision: DecisionConfig
) -> dict[str, float | None]:
    low, high = decision.refer or (1.0, 0.0)
    outside = (probability < low) | (probability > high)
    right = (probability >= decision.threshold) == truth
    return {
        "referred_share": float(1 - outside.mean()),
        "accuracy_of_the_rest": float(right[outside].mean()) if outside.any() else None,
    }


def _measure_subgroups(scored: pd.DataFrame, column: str, threshold: float) -> dict[str, Any]:
    groups = {}
    for name in sorted(filter(None, scored[column].unique())):
        group = _where(scored, column, name)
        figures: Any = measured.NOT_ESTIMABLE
        if metrics.is_estimable(group):
            drawn = metrics.draw_resamples(group["case_id"], group["source"])
            truth, probability = metrics.is_malignant(group), group["probability"].to_numpy()
            figures = metrics.measure_intervals(truth, probability, threshold, drawn)
        groups[str(name)] = {"counts": metrics.count_images(group), "figures": figures}
    return groups


def _check_both_labels(frame: pd.DataFrame, part: str, source: str) -> None:
    if frame["label"].nunique() < 2:
        raise InputError(
            f"part {part!r} does not hold both labels within {source}: "
            f"{metrics.count_images(frame)}"
        )


def write(document: measured.Metrics, scored: pd.DataFrame, out: Path) -> None:
    """Write the metrics, and beside them the predictions and the figures: all, or none."""
    part, threshold = document.data.part, document.model.threshold
    truth, probability = metrics.is_malignant(scored), scored["probability"].to_numpy()
    margins = scored["margin"].to_numpy()
    contents = {
        f"predictions-{part}.parquet": predictions.encode(scored, margins, probability),
        f"evaluation-{part}.png": figures.draw_evaluation(truth, probability, threshold),
        f"risk-by-case-{part}.png": figures.draw_risk_by_case(scored, probability),
        out.name: f"{document.model_dump_json(indent=1)}\n".encode(),
    }
    write_files({out.with_name(name): data for name, data in contents.items()})


def main(
    model: Annotated[Path, typer.Option(help="Model folder.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="JSON file to write; figures go beside it.")],
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
) -> None:
    """Measure a model on a part of the corpus it was made from."""
    if part not in splits.SHARES:
        raise InputError(f"no part {part!r}: choose one of {', '.join(splits.SHARES)}")
    out.parent.mkdir(parents=True, exist_ok=True)  # or it is told before minutes of work
    command.keep_freed_memory()
    document, scored = evaluate(BCDClassifier.from_pretrained(model), corpus, part)
    write(document, scored, out)
    within = document.within
    assert within is not None  # evaluate always measures it
    typer.echo(f"within {within.source}, {document.intervals}:")
    for name in metrics.HEADLINE:
        entry = within.figures[name]
        typer.echo(f"{name:20} {entry.value:.4f} ({entry.low:.4f} to {entry.high:.4f})")
    for name, floor in within.floors:
        typer.echo(f"{name:20} AUROC {floor.auroc.value:.4f}")
