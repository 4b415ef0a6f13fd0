"""The dashboard: how many, how often positive, how reads and answers agree, and drift."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

import gradio as gr

from bcd_models.config import DecisionConfig
from bcd_models.errors import InputError
from bcd_models.local.drift import MIN_RESULTS, Drift, measure_drift
from bcd_models.local.page import share as show_share
from bcd_models.local.page import show as show_estimate
from bcd_models.prediction import WORDS
from clinic.analysis.models import Models
from clinic.analysis.wording import capitalise
from clinic.dashboard import analytics, own_reads
from clinic.dashboard.agreement import Agreement, Kappa, Share
from clinic.dashboard.analytics import Overview, Period
from clinic.http.failures import user_message
from clinic.installation import Installation
from clinic.storage import clock
from clinic.storage.actor import Actor
from clinic.storage.tallies import AFTER, BEFORE, parse_model_key
from clinic.ui.frame import QUICK, alert, get_actor
from clinic.ui.shared import dashboard_figures as figures
from clinic.ui.tables import empty, facts, table

PATH = "/dashboard"
OWN = "own dates"
PERIODS = {"last 30 days": 30, "last 90 days": 90, "last 12 months": 365, "everything": 0}
DEFAULT = "last 90 days"
HEADS = ("Read", "Compared", "Sensitivity", "Specificity", "Kappa", "Indeterminate")
WHOSE = {
    "doctor": "Of your own patients, those put aside included.",
    "admin": "Of all doctors' patients together, as numbers alone.",
}
AGREEMENT = f"""
<h2>Answers and reads</h2>
<p class="bcd-quiet">An examination counts as positive where the model puts at least one of its
  images at or above the threshold; that is compared with its last read, “{WORDS["malignant"]}”
  being positive. A read is no ground truth, and one made after the answers were shown may have
  followed them: so the two stand apart. In brackets 95% intervals.</p>
"""
OWN_READS = f"""
<h2>Validation on your own reads</h2>
<p class="bcd-quiet">Whatever the period: examinations first read before the model’s answers were
  shown, as “{WORDS["malignant"]}” or none, against the largest probability of their images. A
  demonstration’s synthetic patients are left out, though the table above counts them. Intervals are
  95%, over patients. <code>python -m clinic export-reads FOLDER</code> writes the images as a list
  for <code>bcd validate</code> and <code>bcd calibrate</code>, which makes a new model folder.</p>
"""
POINT_HEADS = ("Operating point", "Sensitivity", "Specificity")
READ = {BEFORE: "before the answers were shown", AFTER: "after they were shown"}

Update = dict[Any, Any]  # by component


def add_dashboard_page(app: gr.Blocks, role: str, clinic: Installation, models: Models) -> None:
    """Add the page to the Blocks being built."""
    gr.HTML(f"<h1>Dashboard</h1><p class=bcd-quiet>{WHOSE[role]}</p>", elem_classes="bcd-heading")
    with gr.Row():
        model = gr.Dropdown([], label="Model", interactive=True, min_width=220)
        period = gr.Dropdown([*PERIODS, OWN], value=DEFAULT, label="Period", min_width=160)
        first, last = (
            gr.Textbox(label=label, placeholder="2026-01-31", max_length=10, visible=False)
            for label in ("First day", "Last day")
        )
    head = gr.HTML()
    volume = gr.Plot(label="Images by answer", visible=False)
    probabilities = gr.Plot(
        label=f"Estimated probability of an {WORDS['malignant']}", visible=False
    )
    below = gr.HTML(elem_classes="bcd-heading")
    asked = [model, period, first, last]

    def show(name: str, span: str, begin: str, end: str, request: gr.Request) -> Update:
        actor = get_actor(request)
        nothing = {volume: gr.update(visible=False), probabilities: gr.update(visible=False)}
        try:
            known = analytics.list_models_used(clinic, actor)
            if not known:
                return {**nothing, head: _empty(role), below: ""}
            chosen = name if name in known else _choose_model(known, models)
            wanted = _period(clinic, actor, span, begin, end)
            found = analytics.count_period(clinic, actor, chosen, wanted)
            name, _, sha256 = parse_model_key(chosen)
            offered = models.find(name, sha256)
            reference = offered.reference if offered else ()
        except Exception as error:
            return {**nothing, head: alert(user_message(error)), below: ""}
        moved = measure_drift(found.probabilities, reference)
        drawn = bool(found.answered)
        parts = [_drift(reference, moved), _reads(found), _export(role, chosen, wanted)]
        if role == "admin" and offered:
            parts.append(_validate(clinic, actor, chosen, offered.config.decision))
        return {
            model: gr.update(choices=[(_title(one, models), one) for one in known], value=chosen),
            head: _head(found, wanted),
            volume: gr.update(value=figures.volume(found) if drawn else None, visible=drawn),
            probabilities: gr.update(
                value=figures.probabilities(found, reference) if drawn else None, visible=drawn
            ),
            below: "".join(parts) if drawn else "",
        }

    def choose(span: str) -> list[Any]:
        """Show dates of one's own, beginning with those of the usual period."""
        if span != OWN:
            return [gr.update(visible=False)] * 2
        usual = _take_last_days(PERIODS[DEFAULT])
        return [gr.update(visible=True, value=str(day)) for day in (usual.first, usual.last)]

    outputs = [model, head, volume, probabilities, below]
    app.load(show, asked, outputs, **QUICK)
    chosen = period.input(choose, period, [first, last], trigger_mode="always_last", **QUICK)
    chosen.then(show, asked, outputs, **QUICK)
    typed = [event for day in (first, last) for event in (day.submit, day.blur)]
    gr.on([model.input, *typed], show, asked, outputs, trigger_mode="always_last", **QUICK)


def _choose_model(known: Sequence[str], models: Models) -> str:
    """Return the first model on offer that anything was answered by, or the last one there was."""
    offered = (one for name in models.names for one in known if parse_model_key(one)[0] == name)
    return next(offered, known[-1])


def _title(key: str, models: Models) -> str:
    """Return a model in words; its weights are told where they are not those on offer."""
    name, version, sha256 = parse_model_key(key)
    if offered := models.find(name, sha256):
        return f"{offered.title} {version}"
    return f"{name} {version}, earlier weights {sha256[:8]}"


def _period(clinic: Installation, actor: Actor | None, span: str, begin: str, end: str) -> Period:
    if span == OWN:
        return Period(_day(begin), _day(end))
    if days := PERIODS.get(span, PERIODS[DEFAULT]):
        return _take_last_days(days)
    today = clock.now().date()
    return Period(min(analytics.find_first_day(clinic, actor) or today, today), today)


def _take_last_days(count: int) -> Period:
    today = clock.now().date()
    return Period(today - timedelta(days=count - 1), today)


def _day(text: str | None) -> date:
    try:
        return date.fromisoformat((text or "").strip())
    except ValueError:
        raise InputError("type days such as 2026-01-31") from None


def _empty(role: str) -> str:
    if role == "admin":
        return empty("Nothing to count yet", "No doctor has saved an examination.")
    return empty("Nothing to count yet", "Figures appear here once you have saved an examination.")


def _head(found: Overview, period: Period) -> str:
    if not found.answered:
        return empty(
            "Nothing in this time",
            f"The model answered about no examination from {period.first} to {period.last}.",
        )
    answers = sum(found.decisions.values())
    left = found.positives - found.decisions.get("malignant", 0)
    positives = f"{_share(Share(found.positives, answers))}, {left:,} of them left to a pathologist"
    return f"""
<section class="bcd-card"><dl class="bcd-facts">{
        facts(
            {
                "Time": f"{period.first} to {period.last}",
                "Examinations saved": f"{found.examinations:,}, of {found.images:,} images",
                "This model answered about": f"{found.answered:,} examinations, {answers:,} images",
                "At or above the threshold": positives,
                "Left to a pathologist": _share(Share(found.decisions.get("refer", 0), answers)),
            }
        )
    }</dl></section>
"""


def _reads(found: Overview) -> str:
    if not any(one.compared + one.indeterminate for one in found.agreement.values()):
        words = "Agreement appears here once examinations have been read."
        return AGREEMENT + empty("No reads yet", words)
    rows = [(escape(name), *_agreement(found.agreement[shown])) for shown, name in READ.items()]
    return AGREEMENT + table(HEADS, rows, "Answers and reads")


def _validate(
    clinic: Installation, actor: Actor | None, model: str, decision: DecisionConfig
) -> str:
    """Return what the model is worth on the clinic's own reads, whenever they were made."""
    try:
        found = own_reads.measure_reads(clinic, actor, model, decision)
    except InputError as error:
        return OWN_READS + empty("Too few reads", f"{capitalise(str(error))}.")
    counts = found.counts
    known = {
        "Examinations": f"{counts.images:,} of {counts.cases:,} patients, {counts.malignant:,} of "
        f"them read as {WORDS['malignant']}",
        "AUROC": show_estimate(found.auroc),
        "Calibration slope (1 if perfect)": show_estimate(found.slope, 2),
        "Calibration in the large (0 if perfect)": show_estimate(found.in_the_large, 2),
    }
    rows = [
        (escape(name), *(show_share(one) for one in (point.sensitivity, point.specificity)))
        for name, point in found.points.items()
    ]
    needed = ", ".join(
        f"{one.figure} {f'{one.needed:,}' if one.needed else 'not known'} ({one.cases:,} now)"
        for one in found.needed
    )
    return f"""{OWN_READS}
<dl class="bcd-facts">{facts({name: escape(text) for name, text in known.items()})}</dl>
{table(POINT_HEADS, rows, "Operating points on own reads")}
<p class="bcd-quiet">Patients needed to detect a difference of {found.difference:g}: {needed}.</p>
"""


def _drift(reference: Sequence[int], moved: Drift | None) -> str:
    if not sum(reference):
        words = "These weights' card holds no distribution to compare with."
    elif moved is None:
        words = (
            f"Fewer than {MIN_RESULTS} answers: too few to say whether the distribution has moved."
        )
    else:
        words = (
            f"Distance from the model's test part (population stability index): {moved.index:.3f}. "
            f"Chance alone stays below {moved.by_chance:.3f} in 95 of 100 samples of this size"
            + (
                ", so the images differ from those the model was tested on: another mix of tissue, "
                "another stain or scanner, or a fault."
                if moved.is_beyond_chance
                else ": nothing speaks for a shift."
            )
        )
    return f'<p class="bcd-mind">{escape(words)}</p>'


def _agreement(one: Agreement) -> tuple[str, ...]:
    return (
        f"{one.compared:,}",
        _share(one.sensitivity),
        _share(one.specificity),
        _kappa(one.kappa),
        f"{one.indeterminate:,}",
    )


def _share(share: Share) -> str:
    """Return a share such as “12.0% (30 of 250; 8.5% to 16.6%)”."""
    if share.value is None:
        return "—"
    low, high = share.interval
    return f"{share.value:.1%} ({share.count:,} of {share.of:,}; {low:.1%} to {high:.1%})"


def _kappa(kappa: Kappa | None) -> str:
    return f"{kappa.value:.2f} ({kappa.low:.2f} to {kappa.high:.2f})" if kappa else "—"


def _export(role: str, model: str, period: Period) -> str:
    """Return the download for doctors alone: answers leave with their patients' ids."""
    if role != "doctor":
        return ""
    query = {"model": model, "first": str(period.first), "last": str(period.last)}
    href = escape(f"/files/answers.csv?{urlencode(query, quote_via=quote)}")
    return f'<p><a class="bcd-sign" href="{href}" download>Download the answers (CSV)</a></p>'
