"""What was asked of the second study before it began, beside what came of it."""

from __future__ import annotations

from collections.abc import Iterator

from training.compare import schema
from training.corpus import splits

MIN_AUROC_GAIN = -0.005  # lower end, beside the published models
MIN_BALANCED_ACCURACY = 0.87
MAX_RECALL_LOSS = {  # by rung of the ladder
    **dict.fromkeys(("jpeg_80_420", "blur_1", "noise_5", "resolution_33", "webp_75"), 0.05),
    **dict.fromkeys(("brightness_-15", "brightness_+15", "defocus_jpeg_80"), 0.08),
    **dict.fromkeys(
        (f"{stain}_{n}" for stain in ("eosin", "haematoxylin") for n in ("-15", "+15")), 0.08
    ),
    **dict.fromkeys(("hue_-0.03", "hue_+0.03", "gamma_0.8", "gamma_1.25"), 0.12),
}
MAX_SPECIFICITY_LOSS = 0.07
MAX_AUROC_LOSS = 0.015
FREE_OF_AUROC = "defocus_jpeg_80"
SLOPES = (0.85, 1.15)
MAX_IN_THE_LARGE = 0.4


def list_goals(
    asked: tuple[schema.Asked, ...], ensembles: tuple[schema.Ensemble, ...]
) -> tuple[schema.Goal, ...]:
    """List the goals of the arms that hold out every fold, and of ensembles of these."""
    whole = [one for one in asked if len(one.folds) == splits.FOLDS]
    names = {one.arm for one in whole}
    goals = [goal for one in whole for goal in _list_of_arm(one)]
    goals += [
        _reach(" + ".join(one.members), "AUROC beside the best member", one.minus_best.low, 0)
        for one in ensembles
        if names.issuperset(one.members)
    ]
    return tuple(goals)


def _list_of_arm(one: schema.Asked) -> Iterator[schema.Goal]:
    for clean in one.clean:
        if not clean.minus_published:
            continue
        for views, gain in clean.minus_published.items():
            words = f"AUROC beside the published, views: {views}"
            yield _reach(one.arm, words, gain.low, MIN_AUROC_GAIN)
        accuracy = clean.figures["balanced_accuracy"].value
        yield _reach(one.arm, "balanced accuracy", accuracy, MIN_BALANCED_ACCURACY)
    gains = {rung.name: rung.minus_clean for rung in one.climb.rungs}
    for rung, loss in MAX_RECALL_LOSS.items():
        gained = gains[rung]
        yield _reach(one.arm, f"{rung}: recall", gained.recall.value, -loss)
        yield _reach(
            one.arm, f"{rung}: specificity", gained.specificity.value, -MAX_SPECIFICITY_LOSS
        )
        if rung != FREE_OF_AUROC:
            yield _reach(one.arm, f"{rung}: AUROC", gained.auroc.value, -MAX_AUROC_LOSS)
    if one.context:
        for case in one.context.cases:
            added = case.with_neighbours.auroc - case.alone.auroc
            yield _reach(one.arm, f"neighbours in {case.case}: AUROC", added, 0)
    fit = one.calibration
    yield _reach(one.arm, "calibration slope", fit.slope.value, SLOPES[0])
    yield _stay(one.arm, "calibration slope", fit.slope.value, SLOPES[1])
    yield _stay(one.arm, "calibration in the large", abs(fit.in_the_large.value), MAX_IN_THE_LARGE)
    yield _stay(one.arm, "ECE", fit.ece, fit.ece_if_calibrated_over_cases)


def _reach(arm: str, words: str, found: float, bound: float) -> schema.Goal:
    return schema.Goal(
        arm=arm, words=words, at="least", bound=bound, found=found, met=found >= bound
    )


def _stay(arm: str, words: str, found: float, bound: float) -> schema.Goal:
    return schema.Goal(
        arm=arm, words=words, at="most", bound=bound, found=found, met=found <= bound
    )
