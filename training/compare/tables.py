"""The sections of ``report.md``, each as lines of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from training.card import write as card
from training.compare import schema
from training.evaluate.metrics import HEADLINE, METRICS
from training.evaluate.schema import Counts, Estimate, Figures

PICTURES = TESTED, OUT_OF_FOLD, LEAKS, SHARES = (
    "test-auroc.png",
    "out-of-fold-differences.png",
    "leak-auroc.png",
    "auroc-by-share.png",
)
_CLAIMED = ("accuracy", "recall", "false_negative_rate")


def on_same_terms(report: schema.Report) -> list[str]:
    """The original beside ours."""
    header = (
        "backbone",
        "arm",
        "learnt from",
        "split, part",
        "images",
        *(METRICS[name].words for name in _CLAIMED),
        f"AUROC within {report.larger_source}",
    )
    rows = [
        (
            one.backbone,
            "original, as claimed",
            "train",
            "random, validation",
            "not said",
            *(f"{getattr(one, name):.2%}" for name in _CLAIMED),
            "not said",
        )
        for one in report.original
    ]
    rows += [
        (
            one.backbone,
            one.arm,
            one.learnt,
            f"{one.split}, {one.part}",
            f"{one.counts.images:,}",
            *(_figure(name, one.figures) for name in _CLAIMED),
            _estimate(one.auroc_within),
        )
        for one in report.on_same_terms
    ]
    words = (
        "All sources of a part together, but for the last column. The original split its images at "
        "random, so images of one case lie on both sides; the grouped split keeps each case on "
        "one. Ours are at each "
        "model's own threshold, fitted on what its run held out (a run that held out nothing: on "
        "other runs' folds). So our validation figures flatter, as the original's may. The "
        "original's data were not these: its rows are a claim to stand beside, and no baseline."
    )
    return [words, "", *table(header, rows)]


def tested(report: schema.Report) -> list[str]:
    """Test figures, floors and calibration."""
    first = report.tested[0].within
    names = [title(one) for one in report.tested]
    rows = [
        (metric.words, *(_figure(name, one.within.figures) for one in report.tested))
        for name, metric in METRICS.items()
    ]
    rows += [
        (words, *(f"{getattr(one.within.calibration, name):.3f}" for one in report.tested))
        for name, words in (
            ("ece_if_perfectly_calibrated", "ECE if perfectly calibrated"),
            ("slope", "calibration slope"),
            ("intercept", "calibration intercept"),
        )
    ]
    rows += [
        (
            "referred to a pathologist",
            *(_share(one.within.referral.referred_share) for one in report.tested),
        ),
        (
            "accuracy of the rest",
            *(_share(one.within.referral.accuracy_of_the_rest) for one in report.tested),
        ),
        (
            "mean AUROC within a case",
            *(
                _plain(one.within.macro_over_cases.auroc)
                + f" ({one.within.macro_over_cases.cases} cases)"
                for one in report.tested
            ),
        ),
    ]
    floors = [
        (
            title(one),
            card.FLOOR_WORDS[name],
            _estimate(floor.auroc),
            _estimate(floor.model_minus_floor, sign=True),
        )
        for one in report.tested
        for name, floor in one.within.floors
    ]
    return [
        f"Grouped split, within {first.source}: {_counts(first.counts)}. No case of it was learnt "
        "from.",
        "",
        *table(("", *names), rows),
        "",
        "Both floors were fitted on what the model learnt from:",
        "",
        *table(("model", "floor", "the floor's AUROC", "model minus floor"), floors),
        "",
        f"![AUROC of the models and the floors]({TESTED})",
    ]


def title(one: schema.Tested) -> str:
    """A tested run in words; runs of one arm may have learnt from other parts."""
    return f"{one.backbone}, {one.arm}, learnt from {one.learnt}"


def pairs(report: schema.Report) -> list[str]:
    """One backbone minus the other."""
    names = [f"{pair.run} minus {pair.other}" for pair in report.pairs]
    rows = [
        (metric.words, *(_figure(name, pair.differences, sign=True) for pair in report.pairs))
        for name, metric in METRICS.items()
    ]
    rows.append(("images that both scored", *(f"{p.counts.images:,}" for p in report.pairs)))
    words = (
        f"Test images within {report.larger_source}. Differences are of the figures as shares of "
        "one, each model at its own threshold."
    )
    return [words, "", *table(("", *names), rows)]


def out_of_fold(report: schema.Report) -> list[str]:
    """Arms on held-out folds."""
    header = ("backbone", "arm", "folds of five", "images", "AUROC", "balanced accuracy")
    header += ("minus plain", "images paired", "minus the colour floor")
    rows = [
        (
            one.backbone,
            one.arm,
            f"{len(one.folds)} ({', '.join(map(str, one.folds))})",
            f"{one.counts.images:,}",
            _estimate(one.auroc),
            _estimate(one.balanced_accuracy),
            _estimate(one.minus_plain, sign=True) if one.minus_plain else "",
            f"{one.paired_images:,}" if one.paired_images else "",
            _estimate(one.minus_floor, sign=True) if one.minus_floor else "",
        )
        for one in report.out_of_fold
    ]
    words = (
        f"Within {report.larger_source}; each image is scored by the run that held its case out, "
        "by the raw logit margin, so that no fold's labels move its scores. Margins of separate "
        "runs are pooled as they are, which can lower the pooled AUROC and never uses a label. "
        "Differences are of AUROC. Balanced accuracy is the largest over all thresholds on these "
        "very images, and so flatters all arms alike."
    )
    lines = [words, "", *table(header, rows)]
    if any(one.minus_plain for one in report.out_of_fold):
        lines += ["", f"![AUROC of each arm minus plain]({OUT_OF_FOLD})"]
    return lines


def square(report: schema.Report) -> list[str]:
    """The 2x2 and its budgets."""
    square = report.square
    assert square is not None
    header = (
        "backbone",
        "arm",
        "AUROC",
        "balanced accuracy",
        "epochs a fold",
        "epochs in all",
        "image passes",
        "seconds",
    )
    rows = [
        (
            one.backbone,
            one.arm,
            _estimate(one.auroc),
            _estimate(one.balanced_accuracy),
            one.budget.phases,
            str(one.budget.epochs),
            "not counted" if one.budget.image_passes is None else f"{one.budget.image_passes:,}",
            f"{one.budget.seconds:,.0f}",
        )
        for one in square.corners
    ]
    words = (
        f"Folds {', '.join(map(str, square.folds))}, within {report.larger_source}: "
        f"{_counts(square.counts)}, scored by all four. Balanced accuracy is the largest over all "
        "thresholds on these very images, and so flatters all four alike. The search that found "
        "the tuned recipe is in no budget."
    )
    passes = all(one.budget.image_passes is not None for one in square.corners)
    given = "epochs, input sizes and image passes" if passes else "epochs and input sizes"
    budget = [f"- Budgets are not equal, {line}." for line in square.unequal]
    return [words, "", *table(header, rows), "", *(budget or [f"Budgets are equal: {given}."])]


def leaks(report: schema.Report) -> list[str]:
    """Leaky beside grouped."""
    lines = [
        "Half of each test case's images scored by both runs of a recipe. The leaky run has "
        "learnt from the other half, in place of as many images of other cases; nothing else "
        f"differs. Within {report.larger_source}."
    ]
    for leak in report.leaks:
        rows = [
            (
                METRICS[name].words,
                _figure(name, leak.grouped),
                _figure(name, leak.leaky),
                _figure(name, leak.leaky_minus_grouped, sign=True),
            )
            for name in HEADLINE
        ]
        sizes = leak.grouped_train.images, leak.leaky_train.images
        learnt = (
            f"{sizes[0]:,} images each"
            if sizes[0] == sizes[1]
            else f"not equally many images: {sizes[0]:,} grouped, {sizes[1]:,} leaky"
        )
        lines += [
            "",
            f"{leak.backbone}, {leak.arm}: {_counts(leak.counts)}; learnt from {learnt}.",
            "",
            *table(("", "grouped", "leaky", "leaky minus grouped"), rows),
        ]
    return [*lines, "", f"![AUROC by split]({LEAKS})"]


def neighbours(report: schema.Report) -> list[str]:
    """Folds by case beside folds by runs of neighbouring case ids."""
    words = (
        "Case ids that follow one another may be of one patient: nobody says. Here such runs of "
        "ids were held out together, and everything else was as in the first column."
    )
    rows = [
        (
            one.backbone,
            one.arm,
            f"{one.counts.images:,}",
            _estimate(one.by_case),
            _estimate(one.by_run),
            _estimate(one.difference, sign=True),
        )
        for one in report.neighbours
    ]
    header = ("backbone", "arm", "images", "AUROC, folds by case", "by runs of ids", "difference")
    return [words, "", *table(header, rows)]


def leave_one_out(report: schema.Report) -> list[str]:
    """Counts of right calls."""
    rows = [
        (
            one.backbone,
            one.arm,
            str(one.counts.cases),
            f"{one.benign_right} of {one.counts.benign}",
            f"{one.malignant_right} of {one.counts.malignant}",
        )
        for one in report.leave_one_out
    ]
    header = ("backbone", "arm", "cases", "benign called right", "malignant called right")
    return ["A check that nothing is broken, too small for a figure.", "", *table(header, rows)]


def learning_curves(report: schema.Report) -> list[str]:
    """AUROC by share of the cases."""
    rows = [
        (
            curve.backbone,
            curve.arm,
            f"{point.learnt_share:.1%}",
            f"{len(point.folds)} ({', '.join(map(str, point.folds))})",
            f"{point.counts.images:,}",
            _estimate(point.auroc),
        )
        for curve in report.learning_curves
        for point in curve.points
    ]
    header = ("backbone", "arm", "share of the cases", "folds of five", "images", "AUROC")
    return [*table(header, rows), "", f"![AUROC by share of the cases]({SHARES})"]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def _figure(name: str, figures: Figures, sign: bool = False) -> str:
    if name not in figures:
        return "not measured"
    metric, estimate = METRICS[name], figures[name]
    if sign or not metric.in_percent:
        return _estimate(estimate, sign)
    ends = map(metric.text, (estimate.value, estimate.low, estimate.high))
    return "{} ({} to {})".format(*ends)


def _estimate(estimate: Estimate, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def _counts(counts: Counts) -> str:
    return card.counts(counts.model_dump())


def _share(value: float | None) -> str:
    return "not estimable" if value is None else f"{value:.1%}"


def _plain(value: float | None) -> str:
    return "not estimable" if value is None else f"{value:.3f}"
