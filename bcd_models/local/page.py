"""The report of ``bcd validate`` as a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from bcd_models.config import Estimate
from bcd_models.images.suitability import WORDS
from bcd_models.local.figures import LINE_RESAMPLES, PointHere
from bcd_models.local.metrics import RESAMPLES
from bcd_models.local.robustness import MAX_RECALL_LOSS, MAX_SPECIFICITY_LOSS, KeyFigures
from bcd_models.local.validation import COLOURS, Validation
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
Row = Sequence[str]


def render(found: Validation) -> str:
    """Return the report as HTML."""
    figures, counts = found.figures, found.figures.counts
    title = f"{found.model.name} {found.model.version} on your images"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><strong>{escape(found.notice)}</strong></p>",
        _paragraph(*summarise(found)),
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
        _table(
            ("point", "threshold", "sensitivity", "stated", "specificity", "stated", "referred"),
            [_describe_point(name, one) for name, one in figures.points.items()],
        ),
        _paragraph("Predictive values hold for the share of malignant images in this list alone."),
        _table(
            ("point", "positive predictive value", "negative predictive value"),
            [
                (name, share(one.positive_predictive_value), share(one.negative_predictive_value))
                for name, one in figures.points.items()
            ],
        ),
        "<h2>How many cases it takes</h2>",
        _table(
            ("figure", "cases here", f"cases to detect {figures.difference:g}"),
            [
                (
                    one.figure + ("" if one.kind == "any" else f", cases with {one.kind} images"),
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
        "<h2>What the gate refers</h2>",
        _describe_gate(found),
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
        f"Calibration: slope {show(figures.slope, 2)}, in the large "
        f"{show(figures.in_the_large, 2)}.",
    ]
    if found.worse:
        lines.append(f"Worse here than stated: {', '.join(found.worse)}.")
    else:
        lines.append("No figure is shown to be worse here than stated.")
    if found.ladder:
        stops = [kind for kind, rung in found.ladder.stops_at.items() if rung]
        lines.append(f"Stops being usable under: {', '.join(stops) or 'nothing on the ladder'}.")
    return lines


def describe_after(found: Calibration) -> list[str]:
    """Return the sentences that say what calibration makes of a model."""
    before, after = found.before, found.after
    points = (
        f"{name}: threshold {one.threshold:.3f}, sensitivity {share(one.sensitivity)}, "
        f"specificity {share(one.specificity)}, {one.referred:.1%} referred."
        for name, one in after.points.items()
    )
    return [
        f"Slope {show(after.slope, 2)}, before {show(before.slope, 2)}.",
        f"In the large {show(after.in_the_large, 2)}, before {show(before.in_the_large, 2)}.",
        *points,
        "Each figure is of cases that line and thresholds were not fitted on.",
    ]


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
        f"{one.referred:.1%}",
    )


def _describe_gate(found: Validation) -> str:
    if not found.unsuitable:
        return _paragraph("Nothing: no image looks unsuitable.")
    words = {**WORDS, CAMERA: CAMERA_WORDS}
    rows = [(words[name], f"{images:,}") for name, images in found.unsuitable.items()]
    return _table(("finding", "images"), rows)


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
        "In brackets: the 95% interval of the difference to the same images as they are. Bold: "
        f"sensitivity falls by more than {100 * MAX_RECALL_LOSS:.0f} points or specificity by more "
        f"than {100 * MAX_SPECIFICITY_LOSS:.0f}."
    )
    rows = [("as they are", *_describe_rung(climb.clean, None))]
    rows += [
        (f"{rung.kind}, {rung.words}", *_describe_rung(rung.figures, rung.minus_clean))
        for rung in climb.rungs
    ]
    worse = [place for place, rung in enumerate(climb.rungs, 1) if not rung.is_usable]
    yield _table(("images", "AUROC", "sensitivity", "specificity"), rows, worse)


def _describe_rung(figures: KeyFigures, gained: KeyFigures | None) -> Row:
    cells = []
    for name in KeyFigures.model_fields:
        value = getattr(figures, name).value
        text = f"{value:.3f}" if name == "auroc" else f"{value:.1%}"
        if gained:
            within: Estimate = getattr(gained, name)
            text += f" ({within.low:+.3f} to {within.high:+.3f})"
        cells.append(text)
    return cells


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
