"""The report of ``bcd validate`` as a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from bcd_models.config import Estimate
from bcd_models.images.suitability import WORDS
from bcd_models.local.figures import LINE_RESAMPLES, OWN, PointHere
from bcd_models.local.metrics import RESAMPLES
from bcd_models.local.referral import HEADLINE
from bcd_models.local.robustness import MAX_RECALL_LOSS, MAX_SPECIFICITY_LOSS, Climb, KeyFigures
from bcd_models.local.validation import COLOURS, Sample, Validation
from bcd_models.prediction import CAMERA, CAMERA_WORDS

if TYPE_CHECKING:
    from bcd_models.local.recalibration import Calibration

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.worse { font-weight: bold; }
.quiet { color: #555; }
"""
REFERRAL = ("wrong of a case", "wrong of the decided")
MEANINGS = {
    "balanced": "the default: malignant where carcinoma is likelier than among all the images that "
    "the point was fitted on",
    "screening": "finds at least 95% of the malignant images it was fitted on, with more alarms",
    "confirm": "leaves at least 95% of the benign images it was fitted on alone, and misses more",
    OWN: "the model's own threshold",
}
COUNTED = (
    "Referred images, unsuitable ones and those without a scale too, count in the share referred, "
    "as not wrong in wrong of a case, and not in wrong of the decided. In every other figure of "
    "this report they count like the others, by their probability."
)
MIN_MALIGNANT = 30  # images on the ladder: of fewer, three images are the loss that ends it
COMPARED = (
    *("point", "calibration", "threshold", "sensitivity", "specificity", "referred"),
    *REFERRAL,
    "cases above 20%",
)
Row = Sequence[str]


def render(found: Validation) -> str:
    """Return the report as HTML."""
    figures, counts = found.figures, found.figures.counts
    points = figures.points.items()
    title = f"{found.model.name} {found.model.version} on your images"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><strong>{escape(found.notice)}</strong></p>",
        *(f"<p class=worse>Warning: {escape(warning)}.</p>" for warning in found.warnings),
        _paragraph(*summarise(found)),
        "<h2>What was measured</h2>",
        _table(
            ("", ""),
            [
                ("model", f"{found.model.name} {found.model.version}"),
                ("SHA-256 of its weights", found.model.weights_sha256),
                *(("calibrated locally", words) for words in found.model.calibrated),
                ("list", found.list_name or "none"),
                ("date", found.date),
                ("software", f"bcd-models {found.software}"),
            ],
        ),
        "<h2>Images</h2>",
        _table(
            ("", "images", "cases that hold some"),
            [
                ("benign", f"{counts.benign:,}", f"{counts.benign_cases:,}"),
                ("malignant", f"{counts.malignant:,}", f"{counts.malignant_cases:,}"),
                ("all", f"{counts.images:,}", f"{counts.cases:,}"),
            ],
        ),
        _paragraph(*_describe_images(found)),
        "<h2>Figures</h2>",
        _table(
            ("figure", "here", "stated"),
            [
                ("AUROC", show(figures.auroc), show(found.stated) if found.stated else "unknown"),
                ("Brier score (0 is best)", show(figures.brier), ""),
                ("calibration slope (1 is best)", show(figures.slope), ""),
                ("calibration in the large, log-odds (0 is best)", show(figures.in_the_large), ""),
            ],
        ),
        _paragraph(
            f"In brackets: 95% intervals, by bootstrap over whole cases ({RESAMPLES:,} resamples, "
            f"{LINE_RESAMPLES} of calibration). Stated: "
            "on the test part, from the model's metrics.json. A slope below 1 means "
            "overconfident probabilities; in the large above 0 means probabilities too low."
        ),
        "<h2>Operating points</h2>",
        _list(f"{name}: {MEANINGS[name]}." for name in figures.points if name in MEANINGS),
        _table(
            ("point", "threshold", "sensitivity", "stated", "specificity", "stated"),
            [_describe_point(name, one) for name, one in points],
        ),
        _table(
            ("point", "referred", *REFERRAL, f"of {counts.cases:,} cases above 20%"),
            [(name, f"{one.referred:.1%}", *describe_referral(one)) for name, one in points],
        ),
        _paragraph(
            "Wrong of a case: the share of a case's images that are decided, and wrongly, on "
            "average over the cases; it is what a referral band promises (see the model's card), "
            "and what to hold that promise against here. Above 20% lie cases of which more than a "
            "fifth of the decided is wrong.",
            COUNTED,
        ),
        _paragraph("Predictive values hold for the share of malignant images in this list alone."),
        _table(
            ("point", "positive predictive value", "negative predictive value"),
            [
                (name, share(one.positive_predictive_value), share(one.negative_predictive_value))
                for name, one in points
            ],
        ),
        "<h2>How many cases it takes</h2>",
        _table(
            ("figure", "cases here", f"cases to detect {figures.difference:g}"),
            [
                (
                    name_figure(one.figure)
                    + ("" if one.kind == "any" else f", cases with {one.kind} images"),
                    f"{one.cases:,}",
                    "not estimable" if one.needed is None else f"{one.needed:,}",
                )
                for one in figures.needed
            ],
        ),
        _paragraph(
            f"To detect a difference of {figures.difference:g} from a fixed value at the 5% "
            "level with 80% power: the standard error over these cases falls with the "
            "root of their number, so it takes cases × (2.8 × standard error ÷ difference)². "
            f"Sensitivity and specificity at {figures.point}."
        ),
        "<h2>What is referred, and why</h2>",
        *_describe_referred(found),
        "<h2>Drift</h2>",
        *_describe_drift(found),
        "<h2>Robustness ladder</h2>",
        *_describe_ladder(found),
    ]
    if found.not_used:
        parts += ["<h2>Not used</h2>", _list(found.not_used)]
    head = f"<meta charset='utf-8'><title>{escape(title)}</title><style>{STYLE}</style>"
    return (
        f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"
    )


def summarise(found: Validation) -> list[str]:
    """Return the sentences that say what was found."""
    figures = found.figures
    here = figures.points[figures.point]
    lines = [
        f"AUROC {show(figures.auroc)} on {figures.counts.images:,} images of "
        f"{figures.counts.cases:,} cases"
        + (f"; {found.stated.value:.3f} is stated of the test part." if found.stated else "."),
        f"At {figures.point} (threshold {here.threshold:.3f}): sensitivity "
        f"{share(here.sensitivity)}, specificity {share(here.specificity)}, "
        f"{here.referred:.1%} referred.",
        f"Wrong of a case: {share(here.loss)} on average; more than a fifth of the decided in "
        f"{here.cases_of_large_error:,} of {figures.counts.cases:,} cases.",
        f"Calibration: slope {show(figures.slope, 2)}, in the large "
        f"{show(figures.in_the_large, 2)}.",
    ]
    if found.worse:
        lines.append(f"Worse here than stated: {', '.join(map(name_figure, found.worse))}.")
    else:
        lines.append("No figure is shown to be worse here than stated.")
    if found.ladder:
        lines.append(_describe_stops(found.sample, found.ladder))
    return lines


def _describe_stops(sample: Sample, climb: Climb) -> str:
    """Say what the model stops being usable under, where enough of the images are malignant."""
    malignant = f"{sample.malignant:,} malignant of {sample.images:,} images"
    if sample.malignant < MIN_MALIGNANT:
        return (
            f"Robustness: the ladder's {malignant} are too few to say where the model stops being "
            f"usable, which takes {MIN_MALIGNANT}."
        )
    stops = [kind for kind, rung in climb.stops_at.items() if rung]
    named = "; ".join(stops) or "nothing on the ladder"
    return f"Stops being usable under ({malignant}): {named}."


def describe_referral(one: PointHere) -> Row:
    """Return what referral leaves of the errors, by ``REFERRAL``, and how many cases lie above."""
    of_decided = one.error_among_decided
    wrong = share(of_decided) if of_decided else "nothing is decided"
    return (share(one.loss), wrong, f"{one.cases_of_large_error:,}")


def describe_after(found: Calibration) -> list[str]:
    """Return the sentences that say what calibration makes of a model."""
    before, after = found.before, found.after
    points = (
        f"{name}, {when}: "
        + ", ".join(f"{what} {cell}" for what, cell in zip(COMPARED[2:], cells, strict=True))
        + "."
        for name, when, *cells in compare_points(found)
    )
    return [
        f"Slope {show(after.slope, 2)}, before {show(before.slope, 2)}.",
        f"In the large {show(after.in_the_large, 2)}, before {show(before.in_the_large, 2)}.",
        *points,
        describe_promise(found),
        *(f"{line}." for line in describe_left_out(found)),
        "Each figure after is of cases that line, thresholds and bands were not fitted on.",
    ]


def compare_points(found: Calibration) -> list[Row]:
    """Return each operating point before and after calibration, by ``COMPARED``."""
    before, after = found.before.points, found.after.points
    return [
        (
            *(name, when, f"{one.threshold:.3f}", share(one.sensitivity), share(one.specificity)),
            *(f"{one.referred:.1%}", *describe_referral(one)),
        )
        for name in dict.fromkeys((*before, *after))
        for when, points in (("before", before), ("after", after))
        if (one := points.get(name))
    ]


def describe_left_out(found: Calibration) -> list[str]:
    """Say which images calibration left out, and why; nothing where it took all."""
    if not found.left_out:
        return []
    left_out = f"{found.left_out:,} images were left out of the fit and of each figure"
    return [left_out, *found.warnings]


def describe_promise(found: Calibration) -> str:
    """Say what the new referral bands promise, or that they promise nothing and what it takes."""
    cases = found.before.counts.cases
    if found.promise is None:
        return (
            "No promise holds of referral any more: the bands refer the tenth of the images "
            f"nearest a threshold, as {cases} cases are too few to promise "
            f"{HEADLINE:.0%}, which takes {found.cases_for_promise}."
        )
    return (
        f"Referral bands promise that of a further case like these {found.promise:.0%} of the "
        "images at most are decided wrongly on average (conformal risk control over "
        f"{cases} cases)."
    )


def show(estimate: Estimate, digits: int = 3) -> str:
    """Return a figure with its interval in brackets."""
    value, low, high = (
        f"{end:.{digits}f}" for end in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} ({low} to {high})"


def share(estimate: Estimate) -> str:
    """Return a share and its interval in percent."""
    low, value, high = (100 * end for end in (estimate.low, estimate.value, estimate.high))
    return f"{value:.1f}% ({low:.1f} to {high:.1f})"


def _describe_images(found: Validation) -> list[str]:
    lines = [f"Fingerprint of images and labels: {found.fingerprint[:16]}."]
    if found.larger_fields:
        lines.append(
            f"{found.larger_fields:,} images show more than one field of the model's: each counts "
            "by its most suspicious tile, while what is stated is of single fields. The more tiles "
            "an image has, the more often one of them reaches the threshold."
        )
    return lines


def _describe_point(name: str, one: PointHere) -> Row:
    stated = [
        share(said) if said else "unknown"
        for said in (one.sensitivity_stated, one.specificity_stated)
    ]
    return (
        name,
        f"{one.threshold:.3f}",
        share(one.sensitivity),
        stated[0],
        share(one.specificity),
        stated[1],
    )


def _describe_referred(found: Validation) -> Iterable[str]:
    yield _paragraph(
        "A pathologist decides on what is referred: images whose probability lies in the band "
        "round a point's threshold (the first table says how many in all), and images of which no "
        "answer should be relied on, at any point:"
    )
    rows = [("unknown scale", f"{found.unscaled:,}")] if found.unscaled else []
    words = {**WORDS, CAMERA: CAMERA_WORDS}
    rows += [(words[name], f"{images:,}") for name, images in found.unsuitable.items()]
    if rows:
        yield _table(("reason", "images"), rows)
    else:
        yield _paragraph("None: every scale is known, and no image looks unsuitable.")


def _describe_drift(found: Validation) -> Iterable[str]:
    drift, sample = found.probabilities, found.sample
    if drift:
        beyond = "more than" if drift.is_beyond_chance else "no more than"
        yield _paragraph(
            f"Probabilities: population stability index {drift.index:.3f} against the model's test "
            f"part, {beyond} chance explains ({drift.by_chance:.3f})."
        )
    else:
        yield _paragraph("Probabilities: not compared, for lack of images or of the test part's.")
    if found.colours:
        yield _paragraph(
            f"Colours and texture of {sample.tiles:,} tiles ({sample.images:,} images of "
            f"{sample.cases:,} cases): how far their mean lies from the training tissue's, in its "
            "standard deviations. Beyond 1 most tiles look unlike the usual training tile."
        )
        rows = [(COLOURS[name], f"{away:+.2f}") for name, away in found.colours.items()]
        yield _table(("number", "deviations"), rows)


def _describe_ladder(found: Validation) -> Iterable[str]:
    climb, sample = found.ladder, found.sample
    if climb is None:
        yield _paragraph("Left out.")
        return
    yield _paragraph(
        f"{sample.images:,} images of {sample.cases:,} cases, drawn evenly from the cases (seed "
        f"{sample.seed}), each tile degraded at the model's own scale, at {found.figures.point}. "
        "Difference: the 95% interval of the figure less that of the same images as they are. "
        f"Bold: sensitivity falls by more than {100 * MAX_RECALL_LOSS:.0f} points or specificity "
        f"by more than {100 * MAX_SPECIFICITY_LOSS:.0f}."
    )
    rows = [("as they are", *_describe_rung(climb.clean, None))]
    rows += [
        (f"{rung.kind}, {rung.words}", *_describe_rung(rung.figures, rung.minus_clean))
        for rung in climb.rungs
    ]
    yield _paragraph(_describe_stops(sample, climb))
    worse = [place for place, rung in enumerate(climb.rungs, 1) if not rung.is_usable]
    yield _table(("images", "AUROC", "sensitivity", "specificity"), rows, worse)


def _describe_rung(figures: KeyFigures, gained: KeyFigures | None) -> Row:
    cells = []
    for name in KeyFigures.model_fields:
        value = getattr(figures, name).value
        text = f"{value:.3f}" if name == "auroc" else f"{value:.1%}"
        if gained:
            within: Estimate = getattr(gained, name)
            text += (
                f" (difference {within.low:+.3f} to {within.high:+.3f})"
                if name == "auroc"
                else f" (difference {100 * within.low:+.1f} to {100 * within.high:+.1f} points)"
            )
        cells.append(text)
    return cells


def name_figure(figure: str) -> str:
    """Return what people call a figure."""
    return "AUROC" if figure == "auroc" else figure


def _table(head: Row, rows: Iterable[Row], bold: Iterable[int] = ()) -> str:
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    marked = set(bold)
    lines = (
        f"<tr{' class=worse' if place in marked else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for place, row in enumerate(rows)
    )
    return f"<table><tr>{heads}</tr>{''.join(lines)}</table>"


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _paragraph(*lines: str) -> str:
    return f"<p>{'<br>'.join(map(escape, lines))}</p>"
