"""Calibrate a model on one's own labelled images, into a new model folder."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bcd_models.config import DecisionConfig, Estimate, LocalCalibration, Strict
from bcd_models.decision import sigmoid
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.images.image_list import LabelledImage
from bcd_models.local import metrics
from bcd_models.local.answers import Progress, answer, pass_on
from bcd_models.local.calibration import fit_line, measure_line
from bcd_models.local.figures import (
    Counts,
    Figures,
    PointHere,
    check_arrays,
    count_cases,
    measure,
    to_log_odds,
)
from bcd_models.local.metrics import Bools, Floats
from bcd_models.local.page import (
    COMPARED,
    compare_points,
    describe_left_out,
    describe_promise,
    show,
)
from bcd_models.local.points import band_around, choose_points, fit_decision, measure_point
from bcd_models.local.referral import (
    HEADLINE,
    Judged,
    choose_reach,
    count_cases_needed,
    judge,
    measure_referral,
)
from bcd_models.local.validation import choose_rule
from bcd_models.models.predictor import Predictor
from bcd_models.prediction import NOTICE

FOLDS = 5
MIN_CASES = 2 * FOLDS  # that hold images of a label: two a fold
REFER_SHARE = 0.1  # of the images, those nearest a threshold, where a promise takes more cases
# Of all, so that those of four folds promise something, too.
CASES_FOR_PROMISE = math.ceil(count_cases_needed(HEADLINE) * FOLDS / (FOLDS - 1))
MAX_UNSCALED = 0.1  # share of the images, above which a list is refused
SEED = 0
DOCUMENT, CARD = "calibration.json", "README.md"

Model = TypeVar("Model", bound=Predictor)


class After(Strict):
    """What can be expected of a calibrated model: each fold of cases by what the others give.

    Attributes:
        slope: Of truth on log-odds; 1 if perfect.
        in_the_large: Log-odds by which all answers together are too low; 0 if perfect.
        points: The operating points; their thresholds are those fitted on all cases.
    """

    slope: Estimate
    in_the_large: Estimate
    points: dict[str, PointHere]


class Calibration(Strict):
    """What ``bcd calibrate`` found; its JSON.

    Attributes:
        before: The figures of the model as it was.
        after: Those that can be expected now.
        promise: How much of a further case's images the new referral bands promise to be decided
            wrongly at most, on average; None: too few cases for a promise, and the bands refer the
            tenth of the images nearest a threshold.
        cases_for_promise: How many cases a promise takes.
        left_out: Images that were not fitted on, nor count in any figure, as they are referred for
            another reason than a referral band.
        warnings: What these are, and what to do.
        decision: The new rule, fitted on all cases.
        notice: For research use only.
    """

    schema_version: Literal[1] = 1
    before: Figures
    after: After
    promise: float | None
    cases_for_promise: int = CASES_FOR_PROMISE
    left_out: int = 0
    warnings: tuple[str, ...] = ()
    decision: DecisionConfig
    notice: str = NOTICE


def calibrate(
    probability: ArrayLike,
    labels: Sequence[str] | ArrayLike,
    cases: ArrayLike,
    decision: DecisionConfig,
    *,
    sources: ArrayLike | None = None,
) -> Calibration:
    """Fit slope, intercept, operating points and referral anew, on answers that are already there.

    Every figure of what comes after is of cases that line, thresholds and referral bands were not
    fitted on: five folds of whole cases, each by what the other four give. What is kept is fitted
    on all of them. Bands are chosen by risk control over cases, as those of published models, where
    there are enough of them.

    Args:
        probability: Calibrated P(malignant) of each image, shape (N,), by ``decision``.
        labels: "benign" or "malignant".
        cases: What images belong together by, such as the patient.
        decision: The rule that gave the answers; views and context are kept.
        sources: Where each image comes from; one by default.

    Raises:
        InputError: As ``measure``; fewer than ten cases that hold images of a label, with the
            number needed; or answers that aren't shown to rise with the labels (the interval of the
            calibration slope holds 0), so that no line makes them better.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> probability = rng.random(400)
        >>> labels = np.where(rng.random(400) < probability / 2, "malignant", "benign")
        >>> found = calibrate(probability, labels, np.arange(400) // 10, DecisionConfig())
        >>> found.before.in_the_large.high < 0 < found.after.in_the_large.high
        True
    """
    given, label, case, places, _ = check_arrays(probability, labels, cases, sources, None)
    table = {"label": label, "case_id": case}
    _check_enough(count_cases(table))
    before = measure(given, label, case, decision, sources=places)
    _check_rising(before.slope)
    truth = metrics.is_malignant(table)
    margins = (to_log_odds(given) - decision.intercept) / decision.slope
    folds = assign_folds(truth, case)
    rule = fit_decision(margins, truth, refer_share=0)
    drawn = metrics.draw_resamples(case, places)
    alpha = HEADLINE if before.counts.cases >= CASES_FOR_PROMISE else None
    odds, thresholds, in_band = _cross_fit(margins, truth, case, folds, alpha)
    measured = {
        name: measure_point(truth, sigmoid(odds), own, drawn) for name, own in thresholds.items()
    }
    here = {
        name: PointHere(
            threshold=point.threshold,
            **measure_referral(~in_band[name], (sigmoid(odds) >= thresholds[name]) != truth, drawn),
            **measured[name],
        )
        for name, point in rule.points.items()
    }
    whole = rule.slope * margins + rule.intercept
    points = {}
    for name, point in rule.points.items():
        reach = _find_reach(judge(whole, truth, case, point.threshold), alpha)
        band = band_around(point.threshold, reach)
        more = {"refer": band, "prevalence": float(truth.mean())}
        points[name] = point.model_copy(update=more | measured[name])
    own = {"points": points, "refer": next(iter(points.values())).refer}
    kept = {"views": decision.views, "context": decision.context}
    return Calibration(
        before=before,
        promise=alpha,
        after=After.model_validate(measure_line(odds, truth, drawn) | {"points": here}),
        decision=rule.model_copy(update=own | kept),
    )


def assign_folds(truth: Bools, cases: NDArray[np.generic]) -> NDArray[np.int64]:
    """Deal whole cases to five folds, alike in how many cases hold either label, shape (N,)."""
    names, case = np.unique(cases, return_inverse=True)
    malignant = np.bincount(case, truth, len(names)) / np.bincount(case, minlength=len(names))
    kind = (malignant > 0).astype(int) + (malignant == 1)
    shuffled = np.random.default_rng(SEED).permutation(len(names))
    dealt = np.empty(len(names), np.int64)
    dealt[shuffled[np.argsort(kind[shuffled], kind="stable")]] = np.arange(len(names)) % FOLDS
    return dealt[case]


def recalibrate(
    model: Model, images: Sequence[LabelledImage], progress: Progress = pass_on
) -> tuple[Model, Calibration, tuple[str, ...]]:
    """Calibrate a model on labelled images.

    Args:
        model: Stays as it is.
        images: As ``read_labelled`` reads a list; all of one field of the model's, or all larger.
        progress: Shows how far it is.

    Returns:
        A copy that decides by the new calibration, what was found, and why images were not used.
        Images that are referred for another reason than the band are left out, and counted. A
        calibrated model is fitted anew, from the same margins: an earlier calibration of single
        fields stays in force beside one of larger fields, and the other way round.

    Raises:
        InputError: As ``calibrate``; no image can be used, more than a tenth have no known scale,
            or some show one field and others more.

    Example:
        >>> from bcd_models import BCDClassifier
        >>> from bcd_models.images.image_list import read_labelled
        >>> model = BCDClassifier.from_pretrained("cards/bcd-mobilenetv2")
        >>> images, faults = read_labelled(Path("my-images.csv"))  # doctest: +SKIP
        >>> ours, found, _ = recalibrate(model, images)  # doctest: +SKIP
        >>> write_folder(ours, found, Path("our-model"))  # doctest: +SKIP
    """
    listed = answer(model, images, progress=progress)
    warnings = tuple(listed.describe_referred())
    if listed.unscaled > MAX_UNSCALED * len(listed.images):
        raise InputError(
            f"{listed.unscaled} of {len(listed.images)} images have no known scale, more than a "
            "tenth: calibration on the others would not be that of the list. Give the micrometres "
            "a pixel in a column mpp"
        )
    if listed.referred.all():
        raise InputError(f"no image can be calibrated on: {'; '.join(warnings)}")
    said = listed.keep(~listed.referred)
    larger, config = said.larger_fields, model.config
    if 0 < larger < len(said.images):
        raise InputError(
            f"{len(said.images) - larger} images show one field of the model's and {larger} show "
            "more, which are decided by their most suspicious tile: calibrate on either alone"
        )
    rule = choose_rule(model, said)
    with listed.report_faults():
        found = calibrate(
            said.probability,
            said.labels,
            said.cases,
            rule,
            sources=said.sources,
        )
    found = found.model_copy(update={"left_out": int(listed.referred.sum()), "warnings": warnings})
    counts = found.before.counts
    local = LocalCalibration(
        date=datetime.now(UTC).date().isoformat(),
        fingerprint=said.fingerprint,
        images=counts.images,
        cases=counts.cases,
        malignant=counts.malignant,
        larger_fields=larger > 0,
        promise=found.promise,
        parent=config.name,
        parent_version=config.version,
        parent_weights_sha256=model.weights_sha256,
    )
    others = (one for one in config.calibrated if one.larger_fields != local.larger_fields)
    calibrated = copy.copy(model)
    calibrated.config = config.model_copy(
        update={
            "version": f"{config.version.partition('+local.')[0]}+local.{said.fingerprint[:8]}",
            "decision": config.decision if larger else found.decision,
            "tile_decision": found.decision if larger else config.for_tiles,
            "calibrated": (*others, local),
        }
    )
    return calibrated, found, said.faults


def write_folder(model: Predictor, found: Calibration, folder: Path) -> None:
    """Write a calibrated model into a new folder, with its card and the figures.

    Raises:
        InputError: Something is there already, or it is in a model's folder: neither is ever
            written over.
        ModelFolderError: It can't be written.
    """
    refuse_existing(folder)
    files = model.files() | {
        DOCUMENT: f"{found.model_dump_json(indent=1)}\n".encode(),
        CARD: render_card(model, found).encode(),
    }
    model_folder.write(folder, files)


def refuse_existing(folder: Path) -> None:
    """InputError where something is in a new folder's place, or it would lie in a model's."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already: name a new folder")
    model_folder.refuse_inside(folder)


def render_card(model: Predictor, found: Calibration) -> str:
    """Return the card of a calibrated model, in Markdown."""
    *earlier, local = model.config.calibrated
    after, before = found.after, found.before
    rows = [COMPARED, ["---"] * len(COMPARED), *compare_points(found)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    left_out = "".join(f"\n\n{line}." for line in describe_left_out(found))
    beside = "".join(f"\n\nStill in force beside it: {one.words}." for one in earlier)
    return f"""# {model.config.name} {model.config.version}

**Calibrated locally**: {local.words}. Weights are those of {local.parent} {local.parent_version},
whose card says what they were trained on; slope, intercept, operating points and referral bands are
new, and hold for images like those they were fitted on{_LIMITS[local.larger_fields]}.{beside}

{table}

{describe_promise(found)}{left_out}

Each figure after is of cases that its line, threshold and band were not fitted on (five folds of
whole cases), with its 95% interval over cases. Calibration slope {show(after.slope, 2)},
before {before.slope.value:.2f}; in the large
{after.in_the_large.value:+.2f} ({after.in_the_large.low:+.2f} to {after.in_the_large.high:+.2f}) in
log-odds, before {before.in_the_large.value:+.2f}. All figures: `{DOCUMENT}`.

{NOTICE}
"""


_LIMITS = {
    False: ": images of one field of the model's. Larger fields and slides are decided as before",
    True: ": larger fields, by their most suspicious tile. Slides are decided by this rule too, "
    "which was not measured on them; images of one field as before",
}


def _check_enough(counts: Counts) -> None:
    lacking = [
        f"{cases} cases hold {label} images, and calibration needs at least {MIN_CASES}: "
        f"{MIN_CASES - cases} more cases with {label} images are needed"
        for label, cases in (("benign", counts.benign_cases), ("malignant", counts.malignant_cases))
        if cases < MIN_CASES
    ]
    if lacking:
        raise InputError("; ".join(lacking))


def _check_rising(slope: Estimate) -> None:
    if slope.low <= 0:
        raise InputError(
            f"the answers aren't shown to rise with the labels of these images (calibration slope "
            f"{show(slope, 2)}), so no calibration makes them better: check labels and scale, see "
            "what bcd validate says, or list more cases"
        )


def _find_reach(judged: Judged, alpha: float | None) -> float:
    """Return how far from a threshold the images to refer lie, in log-odds.

    Args:
        judged: Answers at that threshold.
        alpha: What is promised; None: nothing, of too few cases.
    """
    reach = choose_reach(judged, alpha) if alpha else None
    return float(np.quantile(judged.away, REFER_SHARE)) if reach is None else reach


def _cross_fit(
    margins: Floats,
    truth: Bools,
    case: NDArray[Any],
    folds: NDArray[np.int64],
    alpha: float | None,
) -> tuple[Floats, dict[str, Floats], dict[str, Bools]]:
    """Return each fold by what the others give: log-odds, and thresholds and referrals by point."""
    odds = np.empty_like(margins)
    thresholds: dict[str, Floats] = {}
    referred: dict[str, Bools] = {}
    for others in (folds != fold for fold in range(FOLDS)):
        slope, intercept = fit_line(margins[others], truth[others])
        every = slope * margins + intercept
        odds[~others] = every[~others]
        for name, point in choose_points(sigmoid(every[others]), truth[others]).items():
            judged = judge(every, truth, case, point.threshold)
            reach = _find_reach(judged.where(others), alpha)
            thresholds.setdefault(name, np.empty_like(odds))[~others] = point.threshold
            in_band = referred.setdefault(name, np.empty(len(odds), bool))
            in_band[~others] = judged.away[~others] <= reach
    return odds, thresholds, referred
