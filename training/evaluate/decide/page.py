"""Operating points and their promises as Markdown, for cards and README."""

from __future__ import annotations

from collections.abc import Mapping

from bcd_models.local.page import share
from bcd_models.local.referral import HEADLINE
from training.corpus import splits
from training.evaluate.decide import referral
from training.evaluate.decide.decisions import Decisions, PointFigures
from training.evaluate.schema import Counts
from training.pages import write_table

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


def tabulate(decisions: Decisions) -> str:
    """Return the points and their promises as Markdown."""
    points, counts = decisions.points, decisions.counts
    coverages = [one.coverage for one in next(iter(points.values())).curve]
    shown = [place for place, share in enumerate(coverages) if round(100 * share) in DECIDED]
    tables = (
        write_table(
            ["point", "threshold", *(name.replace("_", " ") for name in PREDICTED)],
            (
                [name, f"{one.threshold:.3f}", *(share(getattr(one, key)) for key in PREDICTED)]
                for name, one in ((name, figures.point) for name, figures in points.items())
            ),
        ),
        _tabulate_bands("point", {name: (one, counts) for name, one in points.items()}),
        write_table(
            ["point", *(f"{coverages[place]:.0%} decided" for place in shown)],
            (
                [name, *(_write_coverage(figures.curve[place]) for place in shown)]
                for name, figures in points.items()
            ),
        ),
    )
    first = next(iter(points.values())).point
    kept = (
        " The first point keeps the threshold that the model was tested with; "
        f"{first.prevalence:.3f} of these images are malignant."
        if first.prevalence is not None and abs(first.threshold - first.prevalence) > 0.005
        else ""
    )
    below = (
        f"{counts.images:,} images of {counts.cases} cases of {decisions.source}, each scored by "
        f"the model of {decisions.arm} that had not learnt from its case. Intervals: 95%, "
        "bootstrap over cases. Thresholds of screening and confirm were chosen on these very "
        "images, so their 95% hold here by construction."
        f"{kept}",
        "The second table is what referral promises: that so much of a further case's patches is "
        "decided wrongly on average (conformal risk control over cases). Beside it stands MAPIE's "
        "binary risk control of the same share of all images, with "
        f"{referral.CONFIDENCE:.0%} confidence: it takes images for exchangeable, and those of one "
        "case are not. Each band is chosen on all folds but one and realised on that one, five "
        f"times; the model uses those over cases that promise {HEADLINE:.0%}. Above 20% lie cases "
        "of which more than a fifth of the decided is wrong; a fold is above where more of its "
        "images than promised were decided wrongly.",
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
    return _tabulate_bands("model", own)


def _tabulate_bands(what: str, figures: Mapping[str, tuple[PointFigures, Counts]]) -> str:
    head = [what, "at most wrong", "band", "referred", "wrong, of a case"]
    head += ["wrong, of the decided", "cases above 20%", "folds above", "MAPIE, over images"]
    lines = []
    for name, (one, counts) in figures.items():
        kept = {promise.alpha: promise for promise in one.promises}
        for alpha in referral.ALPHAS:
            cells = ["too few cases"]
            if promise := kept.get(alpha):
                low, high = promise.refer
                band = f"{low:.3f} to {high:.3f}"
                cells = [band, *_write_realised(promise.realised, counts.cases)]
                by_images = promise.by_images
                cells.append(
                    "{} referred, {} of a case wrong, {} cases above 20%, {} folds above".format(
                        *(_write_realised(by_images, counts.cases)[place] for place in (0, 1, 3, 4))
                    )
                    if by_images
                    else "too few images"
                )
            lines.append([name, f"{alpha:.0%}", *cells])
    return write_table(head, lines)


def _write_realised(one: referral.Realised, cases: int) -> list[str]:
    shares = (one.referred, one.loss, one.error_among_decided)
    counted = f"{one.cases_of_large_error} of {cases}"
    return [*(f"{share:.1%}" for share in shares), counted, f"{one.folds_above} of {splits.FOLDS}"]


def _write_coverage(one: referral.Coverage) -> str:
    return f"{share(one.error)}, {one.cases_of_large_error} cases"
