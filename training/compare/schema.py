"""The schema of ``report.json``: all that a comparison of runs says, and every number in it."""

from __future__ import annotations

from typing import Literal

from bcd_models.config import Estimate, Strict
from bcd_models.local.robustness import Climb
from training.evaluate.cost import Cost, Machine
from training.evaluate.reliability import Reliability
from training.evaluate.schema import (
    Counts,
    Figures,
    Group,
    MacroOverCases,
    OtherSource,
    Within,
)


class RunLine(Strict):
    """One run that was compared.

    Attributes:
        name: Its folder, below the one that all runs share.
        backbone: What people call it.
        arm: Of its recipe.
        split: Which manifest, and what was held out.
        seed: Of its recipe.
        seconds: Of all epochs, scoring after each one included.
        git_commit: It was made with.
    """

    name: str
    backbone: str
    arm: str
    split: str
    seed: int
    seconds: float
    git_commit: str


class Claim(Strict):
    """What the original project says of a backbone; shares of one."""

    backbone: str
    accuracy: float
    recall: float
    false_negative_rate: float


class OnSameTerms(Strict):
    """A run measured as the original was: all sources of a part together.

    ``auroc_within`` is of the larger source alone.
    """

    run: str
    backbone: str
    arm: str
    seed: int = 0
    learnt: str
    split: str
    part: str
    counts: Counts
    figures: Figures
    auroc_within: Estimate


class Tested(Strict):
    """A run's test figures within the larger source; ``learnt`` names the parts learnt from."""

    run: str
    backbone: str
    arm: str
    seed: int = 0
    learnt: str
    weights_sha256: str
    within: Within


class Pair(Strict):
    """Test figures of one run minus another's, over the same resamples of the same images."""

    run: str
    other: str
    counts: Counts
    differences: Figures


class OutOfFold(Strict):
    """Folds pooled: each image scored by the run that held it out.

    Attributes:
        backbone: What people call it.
        arm: Of the recipes.
        seed: Of the trainings.
        folds: Which of the five.
        counts: Images of the larger source.
        auroc: Within the larger source.
        balanced_accuracy: At the threshold where it is largest on these images, which flatters.
        minus_plain: Paired difference to the same backbone's plain arm of that seed; none for
            itself.
        paired_images: Images that both arms scored.
        minus_floor: Paired difference to colour statistics, where these were given.
    """

    backbone: str
    arm: str
    seed: int = 0
    folds: tuple[int, ...]
    counts: Counts
    auroc: Estimate
    balanced_accuracy: Estimate
    minus_plain: Estimate | None = None
    paired_images: int | None = None
    minus_floor: Estimate | None = None


class Clean(Strict):
    """An arm's out-of-fold figures on clean images of the larger source.

    Attributes:
        images: Which: those that the published models were measured on too, or all.
        counts: How many.
        figures: Of the recipe's views, cross-fitted; at the prevalence as threshold.
        over_cases: Mean AUROC within a case.
        minus_published: Of AUROC, paired, by views: one and eight.
    """

    images: Literal["first sample", "all"]
    counts: Counts
    figures: Figures
    over_cases: MacroOverCases
    minus_published: dict[str, Estimate]


class TileFigures(Strict):
    """Of a case's tiles, at the threshold that finds 95% of all out-of-fold carcinoma alone."""

    auroc: float
    recall: float
    specificity: float


class WholeCase(Strict):
    """A whole case, alone and smoothed by the width ``sigma``, in tiles, best in the others."""

    case: str
    tiles: int
    sigma: float
    alone: TileFigures
    with_neighbours: TileFigures


class Context(Strict):
    """What neighbouring tiles add; ``sigma`` is the width that is best over all whole cases."""

    sigma: float
    cases: tuple[WholeCase, ...]


class Asked(Strict):
    """What the fold models of an arm and seed answered, asked once and measured in many ways.

    Attributes:
        arm: As "backbone/arm, seed".
        folds: Which of the five.
        views: Of the recipe: of all figures but those that say otherwise.
        clean: Figures on clean images.
        calibration: How far cross-fitted probabilities can be believed.
        one_view: AUROC of a single view.
        gains: What other ways of asking add to that, by way.
        climb: The robustness ladder.
        groups: By brightness and by tissue.
        context: Of whole cases; None without two of them.
        others: Sources besides the larger one.
    """

    arm: str
    folds: tuple[int, ...]
    views: int
    clean: tuple[Clean, ...]
    calibration: Reliability
    one_view: Estimate
    gains: dict[str, Estimate]
    climb: Climb
    groups: tuple[Group, ...]
    context: Context | None
    others: tuple[OtherSource, ...]


class Ensemble(Strict):
    """The mean calibrated log-odds of two or more arms, on the images that all answered."""

    members: tuple[str, ...]
    auroc: Estimate
    minus_best: Estimate


class Split(Strict):
    """A published recipe learnt from a random split, on what that holds out of the larger source.

    ``grouped`` is the same recipe's fold models, on the same images.
    """

    arm: str
    counts: Counts
    random: Estimate
    grouped: Estimate
    difference: Estimate


class Goal(Strict):
    """What was asked of an arm, said before it was trained: at least, or at most, ``bound``."""

    arm: str
    words: str
    at: Literal["least", "most"]
    bound: float
    found: float
    met: bool


class CostLine(Strict):
    """What a backbone costs, measured on one run's model."""

    backbone: str
    run: str
    cost: Cost


class Report(Strict):
    """A ``report.json``; a section that could not be made is empty, and ``missing`` says why.

    ``hours`` are those of all epochs of all runs.
    """

    schema_version: Literal[3] = 3
    corpus: str
    corpus_fingerprint: str
    larger_source: str
    intervals: str
    runs: tuple[RunLine, ...]
    hours: float
    original: tuple[Claim, ...]
    on_same_terms: tuple[OnSameTerms, ...]
    tested: tuple[Tested, ...]
    pairs: tuple[Pair, ...]
    out_of_fold: tuple[OutOfFold, ...]
    asked: tuple[Asked, ...]
    goals: tuple[Goal, ...]
    ensembles: tuple[Ensemble, ...]
    random_split: tuple[Split, ...]
    costs: tuple[CostLine, ...]
    machine: Machine
    missing: dict[str, str]
    notice: str
