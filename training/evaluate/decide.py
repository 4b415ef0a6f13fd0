"""Fit a model's operating points and referral bands on margins of cases it has not learnt from.

python -m training.evaluate.decide --model FOLDER --corpus CORPUS --run FOLD-RUN --run ...
python -m training.evaluate.decide --model FOLDER --margins TABLE --arm BACKBONE/ARM

The margins are recorded answers of fold runs; or those of TABLE, a ``predictions.parquet`` as
studies recorded up to release 0.2.0: a line an image, a column of margins a run,
``BACKBONE/ARM/fold-K``. The points go into the folder's ``config.json``, what they rest on into
``decisions.json`` beside it; weights, calibration and the rule by default stay as they are. A model
of several views gets a rule of its own for tiles, which are looked at once, from the answers of one
view, and ``decisions-tiles.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import typer
from pydantic import ValidationError

from bcd_models.config import DecisionConfig, OperatingPoint, Strict, first_error
from bcd_models.decision import calibrate, log_odds
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.hub.atomic import write_files
from bcd_models.local import metrics
from bcd_models.local.page import share
from bcd_models.local.points import band_around, choose_points, fit_decision, measure_point
from bcd_models.models.classifier import BCDClassifier
from bcd_models.prediction import NOTICE
from training import command
from training.corpus import splits
from training.corpus.selection import open_corpus
from training.evaluate import answers, referral
from training.evaluate.figures import draw_risk_coverage
from training.evaluate.reliability import Reliability, measure_reliability
from training.evaluate.schema import Counts

DECISIONS, TILE_DECISIONS = "decisions.json", "decisions-tiles.json"
CURVE = "risk-coverage.png"
CAUTION = (
    "**Scores were out of fold, so the refitted model gets no formal guarantee from them. They "
    "promise nothing for another hospital until `bcd validate` has been run there.**"
)
DECIDED = (100, 90, 80, 70, 60, 50)  # percent, in the table of the risk-coverage curve
PREDICTED = (
    "sensitivity",
    "specificity",
    "positive_predictive_value",
    "negative_predictive_value",
)


class Promise(Strict):
    """What a referral band promises over cases, and what came of it on folds it was not chosen on.

    Attributes:
        alpha: The largest expected share of a case's patches that are decided wrongly.
        refer: The band, chosen on all folds.
        realised: What came of it.
        by_images: What came of MAPIE's band of the same alpha; None: too few images.
    """

    alpha: float
    refer: tuple[float, float]
    realised: referral.Realised
    by_images: referral.Realised | None


class PointFigures(Strict):
    """An operating point, the promises that hold at it, and its risk-coverage curve."""

    point: OperatingPoint
    promises: tuple[Promise, ...]
    curve: tuple[referral.Coverage, ...]


class Decisions(Strict):
    """A ``decisions.json``.

    Attributes:
        weights_sha256: Of the model.
        arm: Whose fold models gave the margins.
        source: What they were measured on.
        counts: How much of it there is.
        calibration: How far their probabilities can be believed.
        points: By name.
        notice: For research use only.
    """

    schema_version: Literal[1] = 1
    weights_sha256: str
    arm: str
    source: str
    counts: Counts
    calibration: Reliability
    points: dict[str, PointFigures]
    notice: str = NOTICE


def read_margins(table: Path, arm: str) -> pd.DataFrame:
    """Return an arm's held-out rows of a study's table, with ``margin`` and ``fold``.

    Raises:
        InputError: The table can't be read, or holds fewer than two folds of the arm.
    """
    try:
        wide = pd.read_parquet(table)
    except (OSError, ValueError) as error:
        raise InputError(f"{table} can't be read: {error}") from None
    folds = {f"{arm}/fold-{fold}": fold for fold in range(splits.FOLDS)}
    held = [name for name in folds if name in wide.columns]
    if len(held) < 2:  # what is chosen on some is measured on another
        raise InputError(f"{table} holds {len(held) or 'no'} fold of {arm}: it takes two or more")
    keys = [name for name in wide.columns if "/" not in name]
    long = wide.melt(keys, held, "run", "margin").dropna(subset="margin")
    return long.assign(fold=long["run"].map(folds)).reset_index(drop=True)


def fit_points(frame: pd.DataFrame, decision: DecisionConfig) -> dict[str, PointFigures]:
    """Fit the operating points on out-of-fold margins, each with its figures and promises.

    Args:
        frame: Rows of one source: ``margin``, ``label``, ``case_id``, ``source`` and ``fold``.
        decision: The model's rule. Its calibration is kept, and its threshold and referral band,
            with which the model was tested, are the first point's.

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
    calibrated = decision.slope * margins + decision.intercept  # a probability may round to 1
    drawn = metrics.draw_resamples(frame["case_id"], frame["source"])
    found = {}
    points = choose_points(probability, truth, decision.threshold)
    first = next(iter(points))
    points[first] = OperatingPoint(threshold=decision.threshold, refer=decision.refer)
    for name, point in points.items():
        said = referral.Answers(
            np.abs(calibrated - log_odds(point.threshold)),
            (probability >= point.threshold) != truth,
            frame["case_id"].to_numpy(),
        )
        promises = _measure_promises(said, frame["fold"].to_numpy(), point.threshold)
        headline = [one.refer for one in promises if one.alpha == referral.HEADLINE]
        measured = measure_point(truth, probability, point.threshold, drawn)
        band = point.refer or (headline[0] if headline else None)
        more = {"refer": band, "prevalence": float(truth.mean())}
        found[name] = PointFigures(
            point=point.model_copy(update=measured | more),
            promises=promises,
            curve=referral.trace_coverage(said, drawn),
        )
    return found


def _measure_promises(
    said: referral.Answers, folds: np.ndarray, threshold: float
) -> tuple[Promise, ...]:
    promises = []
    for alpha in referral.ALPHAS:
        reach = referral.choose_reach(said, alpha)
        realised = referral.realise(said, folds, alpha)
        if reach is not None and realised is not None:
            band = band_around(threshold, reach)
            by_images = referral.realise(said, folds, alpha, referral.choose_reach_by_images)
            promises.append(
                Promise(alpha=alpha, refer=band, realised=realised, by_images=by_images)
            )
    return tuple(promises)


def read(folder: Path, weights_sha256: str, name: str = DECISIONS) -> Decisions | None:
    """Read a model folder's ``decisions.json``, or that of its tiles; None where it has none.

    Raises:
        InputError: It can't be read, or is of other weights.
    """
    path = folder / name
    if not path.is_file():
        return None
    try:
        decisions = Decisions.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(first_error(error, str(path))) from None
    if decisions.weights_sha256 != weights_sha256:
        raise InputError(f"{path} is of other weights: run python -m training.evaluate.decide")
    return decisions


def tabulate(decisions: Decisions) -> str:
    """Return the points and their promises as Markdown."""
    lines = [
        ["point", "threshold", *(name.replace("_", " ") for name in PREDICTED)],
        ["---"] * (2 + len(PREDICTED)),
    ]
    for name, figures in decisions.points.items():
        point = figures.point
        cells = [share(getattr(point, key)) for key in PREDICTED]
        lines.append([name, f"{point.threshold:.3f}", *cells])
    counts = decisions.counts
    second = _list_promises(
        "point", {name: (one, counts) for name, one in decisions.points.items()}
    )
    coverages = [one.coverage for one in next(iter(decisions.points.values())).curve]
    shown = [place for place, share in enumerate(coverages) if round(100 * share) in DECIDED]
    third = [["point", *(f"{coverages[place]:.0%} decided" for place in shown)]]
    third.append(["---"] * len(third[0]))
    for name, figures in decisions.points.items():
        third.append([name, *(_write_coverage(figures.curve[place]) for place in shown)])
    tables = [_write_table(lines) for lines in (lines, second, third)]
    below = (
        f"{counts.images:,} images of {counts.cases} cases of {decisions.source}, each scored by "
        f"the model of {decisions.arm} that had not learnt from its case. Intervals: 95%, "
        "bootstrap over cases.",
        "The second table is what referral promises: that so much of a further case's patches is "
        "decided wrongly on average (conformal risk control over cases). Beside it stands MAPIE's "
        "binary risk control of the same share of all images, with "
        f"{referral.CONFIDENCE:.0%} confidence: it takes images for exchangeable, and those of one "
        "case are not. Each band is chosen on all folds but one and realised on that one, five "
        "times; the model uses those over cases. Above 20% lie cases of which more than a fifth of "
        "the decided is wrong; a fold is above where more of its images than promised were decided "
        "wrongly.",
        "The third is the risk-coverage curve: what is wrong of the decided, and how many cases "
        "lie above 20%, where so many images are decided, those farthest from the threshold.",
        CAUTION,
    )
    return "\n\n".join([*tables, *below, ""])


def tabulate_promises(models: Mapping[str, Decisions]) -> str:
    """Return what bands at the models' own points promise and what came of it, as Markdown."""
    own = {
        title: (next(iter(decisions.points.values())), decisions.counts)
        for title, decisions in models.items()
    }
    return _write_table(_list_promises("model", own))


def _list_promises(
    what: str, figures: Mapping[str, tuple[PointFigures, Counts]]
) -> list[list[str]]:
    header = [what, "at most wrong", "referred", "wrong, of a case", "wrong, of the decided"]
    header += ["cases above 20%", "folds above", "MAPIE, over images"]
    lines = [header, ["---"] * len(header)]
    for name, (one, counts) in figures.items():
        kept = {promise.alpha: promise for promise in one.promises}
        for alpha in referral.ALPHAS:
            cells = ["too few cases"]
            if promise := kept.get(alpha):
                cells = _write_realised(promise.realised, counts.cases)
                by_images = promise.by_images
                cells.append(
                    "{} referred, {} of a case wrong, {} cases above 20%, {} folds above".format(
                        *(_write_realised(by_images, counts.cases)[place] for place in (0, 1, 3, 4))
                    )
                    if by_images
                    else "too few images"
                )
            lines.append([name, f"{alpha:.0%}", *cells])
    return lines


def _write_table(lines: list[list[str]]) -> str:
    width = len(lines[0])
    return "\n".join(f"| {' | '.join(cells + [''] * (width - len(cells)))} |" for cells in lines)


def _write_realised(one: referral.Realised, cases: int) -> list[str]:
    shares = (one.referred, one.loss, one.error_among_decided)
    counted = f"{one.cases_of_large_error} of {cases}"
    return [*(f"{share:.1%}" for share in shares), counted, f"{one.folds_above} of {splits.FOLDS}"]


def _write_coverage(one: referral.Coverage) -> str:
    return f"{share(one.error)}, {one.cases_of_large_error} cases"


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
    return decision.model_copy(update={"points": named}), decisions


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
        answered = answers.pool_folds(run, open_corpus(corpus, config.provenance.split))
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


if __name__ == "__main__":
    command.run(main)
