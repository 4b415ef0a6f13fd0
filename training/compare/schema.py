"""The schema of ``report.json``: all that a comparison of runs says, and every number in it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from bcd_models.config import Estimate, Strict
from training.evaluate.cost import Cost, Machine
from training.evaluate.schema import Counts, Figures, Neighbours, Within

SCHEMA_VERSION: Literal[2] = 2
DROPPED_SECTIONS = {"leaks", "leave_one_out", "warnings"}  # of schema 1


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
        learnt_share: Share of the training cases learnt from.
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
    learnt_share: float
    folds: tuple[int, ...]
    counts: Counts
    auroc: Estimate
    balanced_accuracy: Estimate
    minus_plain: Estimate | None = None
    paired_images: int | None = None
    minus_floor: Estimate | None = None


class Budget(Strict):
    """What an arm was given, summed over the folds compared.

    ``image_passes`` (training images times epochs) is none where no corpus was named.
    """

    phases: str
    epochs: int
    image_passes: int | None
    seconds: float


class Corner(Strict):
    """One of the four of the 2x2; balanced accuracy is the largest over all thresholds."""

    backbone: str
    arm: str
    auroc: Estimate
    balanced_accuracy: Estimate
    budget: Budget


class Square(Strict):
    """Backbone x (plain, tuned), over the images that all four scored."""

    folds: tuple[int, ...]
    counts: Counts
    corners: tuple[Corner, ...]
    unequal: tuple[str, ...]


class LearningCurve(Strict):
    """Out-of-fold AUROC of one recipe by the share of the cases learnt from."""

    backbone: str
    arm: str
    points: tuple[OutOfFold, ...]


class CostLine(Strict):
    """What a backbone costs, measured on one run's model."""

    backbone: str
    run: str
    cost: Cost


class Report(Strict):
    """A ``report.json``; a section that could not be made is empty, and ``missing`` says why.

    ``hours`` are those of all epochs of all runs. Schema 1 is read without the sections dropped.
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
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
    square: Square | None
    neighbours: tuple[Neighbours, ...]
    learning_curves: tuple[LearningCurve, ...]
    costs: tuple[CostLine, ...]
    machine: Machine
    missing: dict[str, str]
    notice: str

    @model_validator(mode="before")
    @classmethod
    def _drop_sections(cls, document: Any) -> Any:
        if not isinstance(document, dict) or document.get("schema_version") != 1:
            return document
        known = {key: value for key, value in document.items() if key not in DROPPED_SECTIONS}
        return known | {
            "missing": {k: v for k, v in known["missing"].items() if k not in DROPPED_SECTIONS}
        }
