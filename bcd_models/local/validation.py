"""Validate a model on one's own labelled images: figures, robustness ladder, drift, the gate."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from bcd_models import __version__
from bcd_models.config import DecisionConfig, Estimate, Strict
from bcd_models.decision import log_odds, smooth_margins
from bcd_models.errors import ImageError, InputError
from bcd_models.hub import folder as model_folder
from bcd_models.images.image_list import LabelledImage
from bcd_models.images.suitability import NETWORK_NUMBERS, NUMBERS, measure_tiles
from bcd_models.local import metrics
from bcd_models.local.answers import Answers, Progress, answer, find_mpp, pass_on
from bcd_models.local.drift import Drift, measure_drift
from bcd_models.local.figures import DIFFERENCE, Figures, measure
from bcd_models.local.robustness import SEED, Climb, degrade, draw_evenly, measure_climb
from bcd_models.models.predictor import BATCH, Predictor
from bcd_models.prediction import NOTICE
from bcd_models.runtime.ahead import ahead

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import SuitabilityConfig
    from bcd_models.images.field import TissueField
    from bcd_models.local import robustness
    from bcd_models.local.ladder import Rung

    Opened = list[tuple[LabelledImage, TissueField]]

SAMPLE = 200  # images that are opened once more, for their colours and the ladder
FIELDS_AHEAD = 64
COLOURS = {
    "density": "depth of staining (optical density)",
    "green": "strength of pink and purple",
    "red": "blue to red, of the stain",
    "colour": "share of colour in the density",
    "glass": "share of bare glass",
    "sharpness": "sharpness",
    "levels": "contrast",
}


class MeasuredModel(Strict):
    """Which model was measured, and on what it was calibrated locally, in words."""

    name: str
    version: str
    weights_sha256: str
    calibrated: tuple[str, ...] = ()


class Sample(Strict):
    """The images that colours and ladder were measured on: drawn evenly from the cases."""

    images: int
    cases: int
    tiles: int
    malignant: int
    seed: int = SEED


class Validation(Strict):
    """What ``bcd validate`` found; its JSON.

    Attributes:
        model: Which was measured.
        date: When, as in 2026-11-30.
        software: Version of bcd-models.
        list_name: File name of the list; "": images from elsewhere.
        warnings: What to know before any figure is read.
        fingerprint: SHA-256 of the images' files, labels, cases and scales.
        larger_fields: Images of several tiles, whose probability is the largest of theirs.
        figures: Of all images that could be used.
        unscaled: Images that are referred because nobody knows their scale.
        unsuitable: Images that the gate refers, by what it found.
        stated: AUROC of the model's test part, from its ``metrics.json``; None: not known.
        worse: Figures whose whole interval lies below what card or config state.
        probabilities: How far they lie from those of the model's test part; None: not known.
        colours: How far the mean tile lies from the training tissue's, in its standard deviations.
        sample: What colours and ladder were measured on.
        ladder: At the operating point asked about; None where it was left out.
        not_used: Lines and images that could not be used, and why.
        notice: For research use only.
    """

    schema_version: Literal[1] = 1
    model: MeasuredModel
    date: str
    software: str = __version__
    list_name: str = ""
    warnings: tuple[str, ...]
    fingerprint: str
    larger_fields: int
    figures: Figures
    unscaled: int
    unsuitable: dict[str, int]
    stated: Estimate | None
    worse: tuple[str, ...]
    probabilities: Drift | None
    colours: dict[str, float]
    sample: Sample
    ladder: Climb | None
    not_used: tuple[str, ...]
    notice: str = NOTICE


def validate(
    model: Predictor,
    images: Sequence[LabelledImage],
    *,
    folder: Path | None = None,
    point: str | None = None,
    ladder_images: int = SAMPLE,
    difference: float = DIFFERENCE,
    progress: Progress = pass_on,
) -> Validation:
    """Measure a model on labelled images.

    Args:
        model: What is measured.
        images: As ``read_labelled`` reads a list; at least ten cases, both labels among them.
        folder: Of the model, whose ``metrics.json`` says what is compared with.
        point: Operating point; the model's own threshold by default.
        ladder_images: Images that climb the ladder, drawn evenly from the cases with a fixed seed;
            0 leaves it out.
        difference: In AUROC, sensitivity or specificity, that is to be detected.
        progress: Shows how far it is.

    Raises:
        InputError: Too few cases or one label only, no image can be used, no such operating point,
            or scipy, which the ladder needs, is missing.

    Example:
        >>> from bcd_models import BCDClassifier
        >>> from bcd_models.images.image_list import read_labelled
        >>> model = BCDClassifier.from_pretrained("cards/bcd-mobilenetv2")
        >>> images, faults = read_labelled(Path("my-images.csv"))  # doctest: +SKIP
        >>> validate(model, images, ladder_images=0).figures.auroc  # doctest: +SKIP
        Estimate(value=0.91, low=0.86, high=0.95)
    """
    if ladder_images and find_spec("scipy") is None:  # before anything is computed
        raise InputError(
            "the robustness ladder needs scipy: pip install 'bcd-models[validate]', or leave it "
            "out with --ladder-images 0"
        )
    said = answer(model, images, point, progress)
    with said.report_faults():
        rule = choose_rule(model, said)
        figures = measure(
            said.probability,
            said.labels,
            said.cases,
            rule,
            point=point,
            sources=said.sources,
            referred=said.referred,
            difference=difference,
        )
    drawn = draw_evenly(said.cases, ladder_images or SAMPLE)
    opened = _open(model, [said.images[place] for place in drawn], progress)
    stated, reference = _read_stated(folder)
    return Validation(
        model=MeasuredModel(
            name=model.config.name,
            version=model.config.version,
            weights_sha256=model.weights_sha256,
            calibrated=tuple(one.words for one in model.config.calibrated),
        ),
        date=datetime.now(UTC).date().isoformat(),
        warnings=(*_find_own_images(model, said), *said.describe_referred()),
        fingerprint=said.fingerprint,
        larger_fields=said.larger_fields,
        figures=figures,
        unscaled=said.unscaled,
        unsuitable=said.findings,
        stated=stated,
        worse=_find_worse(figures, stated),
        probabilities=measure_drift(figures.probabilities, reference),
        colours=_measure_colours(opened, model.suitability),
        sample=Sample(
            images=len(opened),
            cases=len({one.case_id for one, _ in opened}),
            tiles=sum(len(field.tiles) for _, field in opened),
            malignant=sum(one.label == "malignant" for one, _ in opened),
        ),
        ladder=_climb(model, opened, rule.at(point), progress) if ladder_images else None,
        not_used=said.faults,
    )


def _find_own_images(model: Predictor, said: Answers) -> Iterator[str]:
    """Warn where a model was calibrated on the very images that it is measured on."""
    for one in model.config.calibrated:
        if one.fingerprint == said.fingerprint:
            yield (
                f"The model was calibrated on these very images ({one.date}): figures here are "
                "better than on others. Validate it on images of other cases"
            )


def choose_rule(model: Predictor, said: Answers) -> DecisionConfig:
    """Return the decision rule that gave the answers.

    Raises:
        InputError: Some images are of one tile and some of several, which have a rule each.
    """
    config, larger = model.config, said.larger_fields
    if 0 < larger < len(said.images) and config.for_tiles != config.decision:
        raise InputError(
            f"{len(said.images) - larger} images show one field of the model's and {larger} show "
            "more, and it has a decision rule for each: list them apart"
        )
    return config.for_tiles if larger else config.decision


def _open(model: Predictor, images: Sequence[LabelledImage], progress: Progress) -> Opened:
    """Open images once more, in threads ahead; one that went meanwhile is left out."""

    def open_one(image: LabelledImage) -> TissueField | None:
        try:
            return model.open_field(image.file, find_mpp(image))
        except ImageError:
            return None

    fields = progress(ahead(open_one, images, FIELDS_AHEAD), len(images), "colours")
    return [(image, field) for image, field in zip(images, fields, strict=True) if field]


def _read_stated(folder: Path | None) -> tuple[Estimate | None, list[int]]:
    """Return the AUROC of a model's test part and the histogram of its probabilities."""
    path = folder / model_folder.METRICS if folder else None
    if path is None or not path.is_file():
        return None, []
    try:
        document = json.loads(path.read_bytes())
        within = document.get("within") or {"figures": document["overall"]}
        stated = Estimate.model_validate(within["figures"]["auroc"])
        return stated, document.get("probabilities") or []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} can't be read ({error}): {model_folder.REMEDY}") from None


def _find_worse(figures: Figures, stated: Estimate | None) -> tuple[str, ...]:
    here = figures.points[figures.point]
    pairs = {
        "auroc": (figures.auroc, stated),
        "sensitivity": (here.sensitivity, here.sensitivity_stated),
        "specificity": (here.specificity, here.specificity_stated),
    }
    return tuple(name for name, (own, said) in pairs.items() if said and own.high < said.value)


def _measure_colours(opened: Opened, suitability: SuitabilityConfig | None) -> dict[str, float]:
    if suitability is None or not opened:
        return {}
    numbers = np.concatenate([measure_tiles(field.tiles) for _, field in opened])
    away = (numbers[:, :NETWORK_NUMBERS].mean(0) - suitability.mean) / suitability.deviation
    return {name: float(away[NUMBERS.index(name)]) for name in COLOURS}


def _climb(model: Predictor, opened: Opened, rule: DecisionConfig, progress: Progress) -> Climb:
    """Climb the ladder with the tiles that the gate lets pass, each degraded at its own scale."""
    from bcd_models.local.ladder import LADDER

    table = {"label": [one.label for one, _ in opened], "case_id": [o.case_id for o, _ in opened]}
    if not metrics.is_estimable(table):
        raise InputError(
            f"the {len(opened)} images drawn for the ladder are of one label, or of fewer than "
            f"{metrics.MIN_CASES} cases: draw more with --ladder-images, or none with 0"
        )
    fields = [field for _, field in opened]
    degraded = (
        (rung, _answer(model, fields, rule, rung))
        for rung in progress(LADDER, len(LADDER), "robustness ladder")
    )
    drawn = metrics.draw_resamples(table["case_id"], [one.source for one, _ in opened])
    truth = metrics.is_malignant(table)
    return measure_climb(truth, _answer(model, fields, rule), degraded, drawn)


def _answer(
    model: Predictor, fields: Sequence[TissueField], rule: DecisionConfig, rung: Rung | None = None
) -> robustness.Answers:
    """Answer for fields, on a rung or as they are; of several tiles the largest counts."""
    tiles = [tile for field in fields for tile in field.tiles]
    as_tiles = any(field.shown.size > 1 for field in fields)

    def prepare(row: int) -> object:
        return model.prepare(degrade(rung, tiles[row : row + 1], [row])[0] if rung else tiles[row])

    def compute() -> Iterator[float]:
        ready = ahead(prepare, range(len(tiles)), 2 * BATCH)
        while batch := list(islice(ready, BATCH)):
            yield from model.compute_margins(batch, as_tiles).values

    margins = compute()
    largest = [_find_largest(field.shown, margins, rule.context) for field in fields]
    said = rule.slope * np.array(largest) + rule.intercept
    return said, (said >= log_odds(rule.threshold)).astype(np.float64)


def _find_largest(shown: NDArray[np.bool_], margins: Iterator[float], context: float) -> float:
    """Return the largest of the next margins, which are of the tiles shown."""
    grid = np.full(shown.shape, np.nan)
    grid[shown] = list(islice(margins, int(shown.sum())))
    return float(np.nanmax(smooth_margins(grid, context)))
