"""Fit a model's operating points and referral bands on margins of cases it has not learnt from.

python -m training.evaluate.decide --model FOLDER --corpus CORPUS --run FOLD-RUN --run ...
python -m training.evaluate.decide --model FOLDER --margins TABLE --arm BACKBONE/ARM

The margins are recorded answers of fold runs; or those of TABLE, a ``predictions.parquet`` as
studies recorded up to release 0.2.0: a line an image, a column of margins a run,
``BACKBONE/ARM/fold-K``. The points go into the folder's ``config.json``, what they rest on into
``decisions.json`` beside it. Weights, calibration and the threshold by default stay as they are;
the band by default is that of the headline promise, as at every point. A model of several views
gets a rule of its own for tiles, which are looked at once, from the answers of one view, and
``decisions-tiles.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from bcd_models.config import DecisionConfig
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.hub.atomic import write_files
from bcd_models.local import metrics
from bcd_models.local.points import band_around, choose_points, fit_decision, measure_point
from bcd_models.local.referral import HEADLINE, Judged, choose_reach, judge
from bcd_models.models.classifier import BCDClassifier
from training.corpus import predictions, splits
from training.corpus.selection import open_corpus
from training.evaluate import answers
from training.evaluate.decide import referral
from training.evaluate.decide.decisions import (
    CURVE,
    DECISIONS,
    TILE_DECISIONS,
    Decisions,
    PointFigures,
    Promise,
)
from training.evaluate.decide.page import tabulate
from training.evaluate.figures import draw_risk_coverage
from training.evaluate.reliability import measure_reliability
from training.evaluate.schema import Counts


def read_margins(table: Path, arm: str) -> pd.DataFrame:
    """Return an arm's held-out rows of a study's table, with ``margin`` and ``fold``.

    Raises:
        InputError: The table can't be read, or holds fewer than two folds of the arm.
    """
    rows = predictions.pool_folds(predictions.read(table, answers=()), arm)
    folds = rows["fold"].nunique()
    if folds < 2:  # what is chosen on some is measured on another
        raise InputError(f"{table} holds {folds or 'no'} fold of {arm}: it takes two or more")
    return rows


def fit_points(frame: pd.DataFrame, decision: DecisionConfig) -> dict[str, PointFigures]:
    """Fit the operating points on out-of-fold margins, each with its figures and promises.

    Args:
        frame: Rows of one source: ``margin``, ``label``, ``case_id``, ``source`` and ``fold``.
        decision: The model's rule. Its calibration is kept, and its threshold, with which the model
            was tested, is the first point's; so is its band where too few cases promise anything.

    Raises:
        InputError: The rows hold one label only, or too few cases.
    """
    if not metrics.is_estimable(frame):
        raise InputError(
            f"the margins are of one label, or of fewer than {metrics.MIN_CASES} cases: too few"
        )
    truth = metrics.is_malignant(frame)
    margins = frame["margin"].to_numpy(np.float64)
    probability = calibrate(margins, decision)
    calibrated = decision.slope * margins + decision.intercept
    drawn = metrics.draw_resamples(frame["case_id"], frame["source"])
    found = {}
    for name, point in choose_points(probability, truth, decision.threshold).items():
        said = judge(calibrated, truth, frame["case_id"].to_numpy(), point.threshold)
        promises = _measure_promises(said, frame["fold"].to_numpy(), point.threshold)
        unpromised = decision.refer if point.threshold == decision.threshold else None
        band = next((one.refer for one in promises if one.alpha == HEADLINE), unpromised)
        measured = measure_point(truth, probability, point.threshold, drawn)
        more = {"refer": band, "prevalence": float(truth.mean())}
        found[name] = PointFigures(
            point=point.model_copy(update=measured | more),
            promises=promises,
            curve=referral.trace_coverage(said, drawn),
        )
    return found


def _measure_promises(said: Judged, folds: np.ndarray, threshold: float) -> tuple[Promise, ...]:
    promises = []
    for alpha in referral.ALPHAS:
        reach = choose_reach(said, alpha)
        realised = referral.realise(said, folds, alpha)
        if reach is not None and realised is not None:
            band = band_around(threshold, reach)
            by_images = referral.realise(said, folds, alpha, referral.choose_reach_by_images)
            promises.append(
                Promise(alpha=alpha, refer=band, realised=realised, by_images=by_images)
            )
    return tuple(promises)


def decide(
    model: BCDClassifier, frame: pd.DataFrame, decision: DecisionConfig, arm: str
) -> tuple[DecisionConfig, Decisions]:
    """Give a rule its operating points, and say what they rest on.

    Args:
        model: Whose rule it is.
        frame: Out-of-fold rows of all sources: ``margin``, ``label``, ``case_id``, ``source`` and
            ``fold``. The larger source's count.
        decision: The rule; see ``fit_points`` for what is kept of it.
        arm: Whose fold models gave the margins.

    Raises:
        InputError: As ``fit_points``.
    """
    larger = splits.find_larger_source(frame)
    within = frame[frame["source"] == larger].reset_index(drop=True)
    points = fit_points(within, decision)
    decisions = Decisions(
        weights_sha256=model.weights_sha256,
        arm=arm,
        source=larger,
        counts=Counts(**metrics.count_images(within)),
        calibration=measure_reliability(within),
        points=points,
    )
    named = {name: figures.point for name, figures in points.items()}
    band = next(iter(named.values())).refer
    return decision.model_copy(update={"points": named, "refer": band}), decisions


def fit_tile_rule(frame: pd.DataFrame, context: float) -> DecisionConfig:
    """Fit the rule for tiles, which are looked at once, on the larger source's margins."""
    within = frame[frame["source"] == splits.find_larger_source(frame)]
    margins = within["margin"].to_numpy(np.float64)
    rule = fit_decision(margins, metrics.is_malignant(within), refer_share=0)
    return rule.model_copy(update={"context": context})


def main(
    model: Annotated[Path, typer.Option(help="Model folder, whose config gets the points.")],
    run: Annotated[
        list[Path] | None, typer.Option(help="A fold's run, with its recorded answers.")
    ] = None,
    corpus: Annotated[Path | None, typer.Option(help="The runs' corpus.")] = None,
    context: Annotated[
        float, typer.Option(min=0, help="Width, in tiles, that a tile is averaged over.")
    ] = 0,
    margins: Annotated[Path | None, typer.Option(help="A study's table of margins.")] = None,
    arm: Annotated[str, typer.Option(help="Of that table, as BACKBONE/ARM.")] = "",
) -> None:
    """Fit a model's operating points and referral bands."""
    loaded = BCDClassifier.from_pretrained(model)
    config, rules = loaded.config, {}
    if run and corpus:
        answered = answers.read_folds(run, open_corpus(corpus, config.provenance.split))
        named = f"{config.backbone}/{config.provenance.recipe.get('arm', 'plain')}"
        margin = answered[f"views_{config.decision.views}"]
        rules[DECISIONS] = decide(loaded, answered.assign(margin=margin), config.decision, named)
        if config.decision.views > 1 or context:
            once = answered.assign(margin=answered["views_1"])
            rules[TILE_DECISIONS] = decide(loaded, once, fit_tile_rule(once, context), named)
    elif margins and arm:
        rules[DECISIONS] = decide(loaded, read_margins(margins, arm), config.decision, arm)
    else:
        raise InputError("name --corpus and every fold's --run, or --margins and --arm")
    rule, decisions = rules[DECISIONS]
    tiles, _ = rules.get(TILE_DECISIONS, (config.tile_decision, None))
    loaded.config = config.model_copy(update={"decision": rule, "tile_decision": tiles})
    curves = {
        f"{name}, from {figures.point.threshold:.3f}": [
            (one.coverage, one.error.value, one.error.low, one.error.high) for one in figures.curve
        ]
        for name, figures in decisions.points.items()
    }
    contents = {
        model / name: f"{found.model_dump_json(indent=1)}\n".encode()
        for name, (_, found) in rules.items()
    }
    contents[model / model_folder.CONFIG] = loaded.files()[model_folder.CONFIG]
    contents[model / CURVE] = draw_risk_coverage(curves)
    write_files(contents)
    typer.echo(tabulate(decisions), nl=False)
