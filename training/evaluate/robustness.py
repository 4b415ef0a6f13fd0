"""Measure what becomes of a model's figures as images grow worse, rung by rung.

python -m training.evaluate.robustness --model RUN/model --corpus CORPUS --out ROBUSTNESS.json

Each of several fold models of one recipe scores the rows that it has not learnt from, at its own
threshold and calibration, which clean out-of-fold images have fixed; their answers are pooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from tqdm import tqdm

from bcd_models.config import Estimate, HeldOut, Provenance, Strict, first_error
from bcd_models.decision import log_odds
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.local import metrics
from bcd_models.local.degradations import Pixels
from bcd_models.local.ladder import LADDER, Rung
from bcd_models.local.metrics import Bools, Floats
from bcd_models.local.robustness import (
    MAX_RECALL_LOSS,
    MAX_SPECIFICITY_LOSS,
    SEED,
    Answers,
    Climb,
    KeyFigures,
    degrade,
    draw_evenly,
    measure_climb,
)
from bcd_models.models.classifier import BCDClassifier
from bcd_models.prediction import NOTICE
from training import command
from training.corpus import splits
from training.corpus.selection import Corpus, check_corpus, find_unlearnt_rows, open_corpus
from training.evaluate import scoring
from training.evaluate.schema import Counts, Model
from training.recipes import schema as recipe
from training.recipes.schema import SplitKind

SCHEMA_VERSION = 1
FILE = "robustness.json"  # in a model folder
MAX_PATCHES = 2_000
MIN_CASES = 100  # that a draw should hold; where a corpus has fewer, the table says so


class Draw(Strict):
    """The patches measured on.

    Attributes:
        corpus_fingerprint: Of their corpus.
        split: Kind of the manifest.
        split_sha256: Of the manifest.
        source: The larger source, which all patches come from.
        max_patches: How many were asked for.
        min_cases: Of how many cases.
        seed: Of the draw, and of noise.
        counts: What there was.
    """

    corpus_fingerprint: str
    split: SplitKind
    split_sha256: str
    source: str
    max_patches: int
    min_cases: int
    seed: int
    counts: Counts


class Robustness(Climb):
    """A ``robustness.json``: the ladder, and what climbed it.

    Attributes:
        models: Whose answers are pooled, or by whose decision rule an arm's were measured.
        arm: Whose fold models gave the answers; "": the models themselves.
        draw: The patches.
        intervals: How they were made.
    """

    schema_version: Literal[1]
    models: tuple[Model, ...] = Field(min_length=1)
    arm: str = ""
    draw: Draw
    intervals: str
    notice: str


def climb(
    models: Sequence[BCDClassifier], corpus_folder: Path, ladder: Sequence[Rung] = LADDER
) -> Robustness:
    """Score a fixed draw of patches on every rung, each by the model that has not learnt from it.

    Raises:
        InputError: The models are not of one recipe, corpus and split, two have held out the same
            rows, or what they have not learnt from holds one label only.
    """
    provenance = check_one_recipe(models)
    opened = open_corpus(corpus_folder, provenance.split)
    check_corpus(provenance, opened)
    larger = splits.find_larger_source(opened.table)
    judges = assign_judges(models, opened)
    drawn = draw_rows(opened, provenance.held_out)
    drawn = drawn[judges[drawn.index] >= 0]
    if drawn["label"].nunique() < 2:
        raise InputError(f"what the models have not learnt from within {larger} holds one label")
    images = opened.rows.select(drawn.index)["image"]
    patches = [np.asarray(image.convert("RGB")) for image in images]
    panel = [(model, np.flatnonzero(judges[drawn.index] == i)) for i, model in enumerate(models)]
    return describe_climb(models, opened, drawn, _measure(panel, patches, drawn, ladder))


def climb_recorded(
    frame: pd.DataFrame, clean: str, slope: Floats | float, intercept: Floats | float, at: float
) -> Climb:
    """Climb the ladder with recorded margins.

    Args:
        frame: Answers of some images, with a column a rung.
        clean: The column of the same images as they are.
        slope: Calibrates margins; one, or each row's own.
        intercept: Likewise.
        at: Threshold in calibrated log-odds.
    """
    truth = metrics.is_malignant(frame)

    def answer(column: str) -> Answers:
        said = slope * frame[column].to_numpy(np.float64) + intercept
        return said, (said >= at).astype(np.float64)

    degraded = ((rung, answer(rung.name)) for rung in LADDER)
    drawn = metrics.draw_resamples(frame["case_id"], frame["source"])
    return measure_climb(truth, answer(clean), degraded, drawn)


def find_climbed(frame: pd.DataFrame) -> Bools:
    """Return which rows of recorded answers hold every rung of the ladder, shape (N,)."""
    found: Bools = frame[[rung.name for rung in LADDER]].notna().all(axis=1).to_numpy()
    return found


def describe_climb(
    models: Sequence[BCDClassifier],
    opened: Corpus,
    drawn: pd.DataFrame,
    climbed: Climb,
    arm: str = "",
) -> Robustness:
    """Return a climb with what was measured on; for the arguments see ``Robustness``."""
    return Robustness(
        schema_version=SCHEMA_VERSION,
        models=tuple(describe_model(model) for model in models),
        arm=arm,
        draw=Draw(
            corpus_fingerprint=opened.about["fingerprint"],
            split=opened.split.kind,
            split_sha256=opened.split.sha256,
            source=splits.find_larger_source(opened.table),
            max_patches=MAX_PATCHES,
            min_cases=MIN_CASES,
            seed=SEED,
            counts=Counts(**metrics.count_images(drawn)),
        ),
        intervals=f"95%, bootstrap over whole cases, {metrics.RESAMPLES} resamples; differences "
        "are paired over the same resamples",
        **dict(climbed),
        notice=NOTICE,
    )


def draw_patches(frame: pd.DataFrame, count: int = MAX_PATCHES, seed: int = SEED) -> pd.DataFrame:
    """Draw rows at random, as many from each case until it has no more."""
    return frame.iloc[draw_evenly(frame["case_id"], count, seed)]


def draw_rows(opened: Corpus, held: HeldOut) -> pd.DataFrame:
    """Draw the rows of a corpus that models which held this out are measured on.

    They are the same for all folds, each of which scores its own, and others for refits: of the
    test part.
    """
    table = opened.table
    is_test = (opened.split.part == "test").to_numpy()
    of_part = is_test if held.nothing else ~is_test
    return draw_patches(table[of_part & (table["source"] == splits.find_larger_source(table))])


def check_one_recipe(models: Sequence[BCDClassifier]) -> Provenance:
    """Return what models share; InputError where they are not of one recipe, corpus and split."""
    provenances = [model.config.provenance for model in models]
    plans = [recipe.parse(p.recipe, "the model's own recipe can't be read") for p in provenances]
    shared = [
        (plan.decides(), one.corpus_fingerprint, one.split_sha256)
        for plan, one in zip(plans, provenances, strict=True)
    ]
    if any(one != shared[0] for one in shared):
        raise InputError("the models are not of one recipe, corpus and split: measure them apart")
    return provenances[0]


def assign_judges(models: Sequence[BCDClassifier], opened: Corpus) -> NDArray[np.int64]:
    """Return which model scores each row; -1 where every model has learnt from it."""
    judges = np.full(len(opened.table), -1)
    for number, model in enumerate(models):
        held = model.config.provenance.held_out
        rows = find_unlearnt_rows(opened, held)
        if (judges[rows] >= 0).any():
            raise InputError(f"two models have not learnt from {held.words or 'validation'}")
        judges[rows] = number
    return judges


def describe_model(model: BCDClassifier) -> Model:
    """Return which weights are measured, and at which threshold."""
    return Model(
        name=model.config.name,
        version=model.config.version,
        weights_sha256=model.weights_sha256,
        threshold=model.config.decision.threshold,
    )


Panel = list[tuple[BCDClassifier, NDArray[np.int64]]]
"""Models, each with the places of the patches that it scores."""


def _measure(
    panel: Panel, patches: list[Pixels], drawn: pd.DataFrame, ladder: Sequence[Rung]
) -> Climb:
    truth = metrics.is_malignant(drawn)
    resamples = metrics.draw_resamples(drawn["case_id"], drawn["source"])
    degraded = (
        (rung, _answer(panel, degrade(rung, patches, drawn.index)))
        for rung in tqdm(ladder, "robustness ladder", disable=None)
    )
    return measure_climb(truth, _answer(panel, patches), degraded, resamples)


def _answer(panel: Panel, patches: list[Pixels]) -> Answers:
    answers, calls = np.empty((2, len(patches)))
    for model, places in panel:
        decision = model.config.decision
        margins = scoring.score_patches(model, (patches[place] for place in places), decision.views)
        answers[places] = decision.slope * margins + decision.intercept
        calls[places] = answers[places] >= log_odds(decision.threshold)
    return answers, calls


def tabulate(document: Robustness) -> str:
    """Return the ladder as a Markdown table, with what was measured on below it."""
    shown = [metrics.METRICS[name] for name in KeyFigures.model_fields]
    lines = [
        ["images", *(metric.words for metric in shown)],
        ["---"] * (1 + len(shown)),
        ["as they are", *(_write(metric, document.clean, document.clean) for metric in shown)],
    ]
    stops = set(document.stops_at.values())
    for rung in document.rungs:
        bold = "**" if rung.name in stops else ""
        mark = " (never trained on)" if rung.unseen else ""
        cells = (_write(metric, rung.figures, rung.minus_clean, "+") for metric in shown)
        lines.append([f"{bold}{rung.kind}, {rung.words}{mark}{bold}", *cells])
    counts, draw = document.draw.counts, document.draw
    is_small = counts.images < draw.max_patches or counts.cases < draw.min_cases
    fewer = f" ({draw.max_patches} of {draw.min_cases} were asked for)" if is_small else ""
    by = (
        f"each scored by the model of {document.arm} that had not learnt from its case"
        if document.arm
        else "that the model has not learnt from"
    )
    below = (
        f"{counts.images} patches ({counts.malignant} malignant) of {counts.cases} cases{fewer} "
        f"within {draw.source}, {by}. In brackets the 95% interval "
        "of the difference to the same images as they are; in the first line, of the figure. "
        "**Bold**: the first rung of a kind at which recall has fallen by more than "
        f"{100 * MAX_RECALL_LOSS:.0f} points or specificity by more than "
        f"{100 * MAX_SPECIFICITY_LOSS:.0f}: there the model stops being usable."
    )
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", below, ""])


def _write(
    metric: metrics.Metric, figures: KeyFigures, interval: KeyFigures, sign: str = ""
) -> str:
    """Write a figure, and in brackets an interval, its gains with a sign."""
    within: Estimate = getattr(interval, metric.name)
    low, high = ((sign if end > 0 else "") + metric.text(end) for end in (within.low, within.high))
    return f"{metric.text(getattr(figures, metric.name).value)} ({low} to {high})"


def read(path: Path, weights_sha256: str) -> Robustness:
    """Read a ``robustness.json``.

    Raises:
        InputError: It can't be read, or is of other weights.
    """
    try:
        document = Robustness.model_validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        raise InputError(first_error(error, str(path))) from None
    except OSError as error:
        raise InputError(f"{path} can't be read ({error}): run the robustness ladder") from None
    if weights_sha256 not in {one.weights_sha256 for one in document.models}:
        raise InputError(f"{path} is of other weights: run python -m training.study.ladder")
    return document


def main(
    model: Annotated[list[Path], typer.Option(help="Model folder; of one recipe if several.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
) -> None:
    """Measure a model, or the fold models of a recipe, on the robustness ladder."""
    command.keep_freed_memory()
    document = climb([BCDClassifier.from_pretrained(folder) for folder in model], corpus)
    write_files({out: f"{document.model_dump_json(indent=1)}\n".encode()})
    typer.echo(tabulate(document), nl=False)


if __name__ == "__main__":
    command.run(main)
