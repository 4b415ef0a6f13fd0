"""``report.json`` -> ``report.md``: every number of the page is one of the report."""

from __future__ import annotations

from collections.abc import Callable

from training.compare import schema, tables
from training.compare.tables import table

TITLES = {
    "on_same_terms": "The original's table, and ours on the same definitions",
    "tested": "Test figures",
    "pairs": "EfficientNet-B2 minus MobileNetV2",
    "out_of_fold": "Out-of-fold figures by arm",
    "square": "Backbone by plain and tuned",
    "leaks": "What a leak is worth",
    "neighbours": "Neighbouring case ids in one fold",
    "leave_one_out": "Cases held out one at a time",
    "learning_curves": "By the share of the cases learnt from",
}
_SECTIONS: dict[str, Callable[[schema.Report], list[str]]] = {
    "on_same_terms": tables.on_same_terms,
    "tested": tables.tested,
    "pairs": tables.pairs,
    "out_of_fold": tables.out_of_fold,
    "square": tables.square,
    "leaks": tables.leaks,
    "neighbours": tables.neighbours,
    "leave_one_out": tables.leave_one_out,
    "learning_curves": tables.learning_curves,
}


def page(report: schema.Report) -> str:
    """The report in Markdown."""
    lines = [
        "# Comparison of runs",
        "",
        f"**{report.notice}**",
        "",
        "Labels say whether a patch shows the pattern of invasive carcinoma (for IDC: invasive "
        'ductal carcinoma); "malignant" means that it does, "benign" that no such pattern was '
        "labelled. No figure here speaks of a diagnosis.",
        "",
        f"Corpus: {report.corpus} (images by source), fingerprint "
        f"`{report.corpus_fingerprint[:16]}`. Larger source: {report.larger_source}. "
        f"Intervals: {report.intervals}. A difference whose interval holds zero is no evidence of "
        "a difference.",
    ]
    if report.warnings:
        lines += ["", *(f"- Warning: {warning}." for warning in report.warnings)]
    for name, title in TITLES.items():
        reason = report.missing.get(name)
        body = [f"Not made: {reason}."] if reason else _SECTIONS[name](report)
        lines += ["", f"## {title}", "", *body]
    for title, body in (
        ("Cost", _cost(report)),
        ("Runs", _runs(report)),
        ("Limits", _limits(report)),
    ):
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _cost(report: schema.Report) -> list[str]:
    header = (
        "backbone",
        "input",
        "parameters",
        "multiply-adds a pass",
        "passes an image",
        "weights file",
        "one image",
        "in batches",
    )
    rows = [
        (
            line.backbone,
            f"{line.cost.input_size} px",
            f"{line.cost.parameters:,}",
            f"{line.cost.macs:,}",
            str(line.cost.views),
            f"{line.cost.file_bytes:,} bytes",
            f"{line.cost.latency_ms:.1f} ms",
            f"{line.cost.throughput:.1f} images a second",
        )
        for line in report.costs
    ]
    if not rows:
        return ["Not measured: the runs come from records, without weights."]
    first, machine = report.costs[0].cost, report.machine
    words = (
        f"Times are medians of {first.repeats}, from pixels in memory to calibrated probability, "
        f"in batches of {first.batch} where it says so, on {machine.processor}, "
        f"threads: {machine.threads}, torch {machine.torch}. What training took is in the table of "
        "runs."
    )
    return [words, "", *table(header, rows)]


def _runs(report: schema.Report) -> list[str]:
    header = ("run", "backbone", "arm", "split", "seed", "seconds of training", "commit")
    rows = [
        (
            run.name,
            run.backbone,
            run.arm,
            run.split,
            str(run.seed),
            f"{run.seconds:,.0f}",
            f"`{run.git_commit[:12]}`" if run.git_commit else "not known",
        )
        for run in report.runs
    ]
    words = f"Epochs of all runs together: {report.hours:.1f} hours. Tuning is not among them."
    return [words, "", *table(header, rows)]


def _limits(report: schema.Report) -> list[str]:
    return [
        "- What is grouped by is a case id; nothing links case ids to patients.",
        f"- Figures are of {report.larger_source} patches of the field and resolution trained on. "
        "Nothing here was measured on other scanners, stains, laboratories or organs.",
        "- An interval speaks of the draw of cases, not of the seed: a run made again moves too.",
        "- Arms are compared on the images they were chosen by: the best of several flatters.",
        "- A benign label says that no invasive carcinoma was labelled in the patch; in-situ "
        "disease may lie among them.",
        "",
        report.notice,
    ]
