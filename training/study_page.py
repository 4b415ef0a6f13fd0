"""The page of a study: what was compared with what, every number, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from bcd_models.prediction import NOTICE
from training import study_plots
from training.confirm import Decision
from training.recipe import Range, Recipe

PAGE, LIVE_PAGE = "study.md", "study.html"
_WORDS = {
    "history": "Each trial's value, and the best so far. A best value of many flatters.",
    "slices": "Each number against the value, the others varying too.",
    "parallel": "A line a trial, darker where the value is higher.",
    "importance": "Exploratory: computed from few trials by PED-ANOVA, it changes from study to "
    "study and says nothing outside the ranges tried. Choose nothing by it.",
}
_TITLES = {
    "history": "History",
    "slices": "Slices",
    "parallel": "Parallel coordinates",
    "importance": "Importance (exploratory)",
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;color:#33272a;max-width:70rem;margin:2rem auto;"
    "padding:0 1rem}table{border-collapse:collapse;display:block;overflow-x:auto}"
    "td,th{border:1px solid #b9a9c9;padding:.2rem .6rem;text-align:left}"
)


@dataclass(frozen=True)
class _Section:
    """A heading, words under it, and a table or a plot."""

    title: str
    words: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    plot: str = ""


def sentence(decision: Decision) -> str:
    """What was decided, in a sentence."""
    if not decision.comparisons:
        return "The default stays: no other trial was completed."
    best = decision.comparisons[0]
    numbers = (
        f"{best.difference:+.4f} AUROC ({best.low:+.4f} to {best.high:+.4f}) over "
        f"{decision.pairs} paired runs"
    )
    if decision.winner is None:
        return f"The default stays: the best candidate, trial {best.trial}, has {numbers}."
    return f"Trial {best.trial} replaces the default: {numbers}."


def write(
    study: optuna.Study,
    plan: Recipe,
    bound: Mapping[str, Any],
    decision: Decision,
    runs: list[dict[str, Any]],
    folder: Path,
) -> None:
    """Write ``study.md`` with its pictures, and ``study.html``, which needs no network.

    Args:
        study: With its trials.
        plan: The recipe that was tuned.
        bound: Corpus, split and start weights by name.
        decision: Of the confirmation.
        runs: Of the confirmation, as in ``confirm.json``.
        folder: The study's.
    """
    sections = [
        _Section("What was compared", "", ("", ""), _facts(study, plan, bound)),
        _confirmation(decision, runs),
        *(_Section(_TITLES[n], _WORDS[n], plot=n) for n in study_plots.drawn(study)),
        _trials(study, plan),
    ]
    title, decided = f"Study of {plan.name}", sentence(decision)
    pictures = study_plots.write_pictures(study, plan.tune.space, folder)
    (folder / PAGE).write_text(_markdown(title, decided, sections, pictures), "utf-8")
    plots = study_plots.live_plots(study)
    (folder / LIVE_PAGE).write_text(_html(title, decided, sections, plots), "utf-8")


def _facts(
    study: optuna.Study, plan: Recipe, bound: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    space = (f"{path} {_range(drawn)}" for path, drawn in plan.tune.space.items())
    diverged = sum("stopped" in trial.user_attrs for trial in study.get_trials(deepcopy=False))
    return (
        ("corpus", f"fingerprint {bound['corpus']}"),
        ("split", f"{plan.split}, manifest {bound['split']}; test is not read"),
        ("folds held out", ", ".join(map(str, plan.tune.folds))),
        ("start weights", str(bound["start"])),
        ("a trial", f"{plan.tune.size} px, {plan.tune.epochs} epochs a fold, seed {plan.seed}"),
        ("value", "AUROC within the larger source, mean over the folds"),
        ("tuned", "; ".join(space)),
        ("sampler", f"TPE, the first {plan.tune.startup_trials} at random; the default first"),
        ("pruner", "median of the trials so far, from the end of the first fold"),
        ("complete", str(states.count(TrialState.COMPLETE))),
        ("pruned", f"{states.count(TrialState.PRUNED)}, of which {diverged} diverged"),
        ("failed", f"{states.count(TrialState.FAIL)} (killed, or one too many)"),
    )


def _range(drawn: Range) -> str:
    how = " (log)" if drawn.log else f" by {drawn.step:g}" if drawn.step else ""
    return f"{drawn.low:g} to {drawn.high:g}{how}"


def _confirmation(decision: Decision, runs: list[dict[str, Any]]) -> _Section:
    seeds = sorted({run["seed"] for run in runs})
    words = (
        f"The best trials and the default were run again with seeds {', '.join(map(str, seeds))}, "
        "which no trial had, on the same folds, at the trials' resolution. A candidate replaces "
        "the default only where the Student t interval of its mean paired difference lies above "
        "zero; the intervals hold together at 95% (Bonferroni over the candidates). They speak of "
        "these folds alone, which share training images: the runs of one fold are not "
        "independent, so an interval is rather too narrow."
    )
    rows = [("default", f"{decision.default:.4f}", "", "", _aurocs(runs, "default"))]
    rows += [
        (
            f"trial {one.trial}",
            f"{one.auroc:.4f}",
            f"{one.difference:+.4f}",
            f"{one.low:+.4f} to {one.high:+.4f}",
            _aurocs(runs, f"trial {one.trial}"),
        )
        for one in decision.comparisons
    ]
    header = ("", "mean AUROC", "difference", "interval", "each run (seed/fold)")
    return _Section("Confirmation", words, header, tuple(rows))


def _aurocs(runs: list[dict[str, Any]], name: str) -> str:
    return ", ".join(
        f"{run['auroc']:.4f} ({run['seed']}/{run['fold']}{', diverged' if run['stopped'] else ''})"
        for run in runs
        if run["of"] == name
    )


def _trials(study: optuna.Study, plan: Recipe) -> _Section:
    header = ("trial", "", "value", *plan.tune.space, "AUROC by fold", "seconds", "commit")
    rows = tuple(_trial(trial, list(plan.tune.space)) for trial in study.get_trials(deepcopy=False))
    words = "A pruned trial's value is the last one it reported."
    return _Section("Trials", words, header, rows)


def _trial(trial: FrozenTrial, paths: list[str]) -> tuple[str, ...]:
    about = trial.user_attrs
    value = "" if trial.value is None else f"{trial.value:.4f}"
    folds = ", ".join(f"{fold}: {auroc:.4f}" for fold, auroc in about.get("auroc", {}).items())
    name = f"{trial.number}{' (default)' if about.get('default') else ''}"
    return (
        name,
        trial.state.name.lower(),
        value,
        *(f"{trial.params[path]:.4g}" if path in trial.params else "" for path in paths),
        folds,
        str(about.get("seconds", "")),
        about.get("git_commit", "")[:12],
    )


def _markdown(
    title: str, decided: str, sections: list[_Section], pictures: Mapping[str, str]
) -> str:
    lines = [f"# {title}", "", decided, "", NOTICE]
    for section in sections:
        lines += ["", f"## {section.title}", ""]
        lines += [section.words, ""] if section.words else []
        if section.plot:
            lines.append(f"![{section.title}]({pictures[section.plot]})")
        if section.header:
            lines += [_line(section.header), _line(["---"] * len(section.header))]
            lines += map(_line, section.rows)
    return "\n".join(lines) + "\n"


def _line(cells: Any) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _html(title: str, decided: str, sections: list[_Section], plots: Mapping[str, str]) -> str:
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>",
        f"<p><strong>{escape(decided)}</strong></p><p>{escape(NOTICE)}</p>",
    ]
    for section in sections:
        parts.append(f"<h2>{escape(section.title)}</h2><p>{escape(section.words)}</p>")
        parts.append(plots.get(section.plot, ""))
        if section.header:
            rows = (section.header, *section.rows)
            parts.append(f"<table>{''.join(map(_row, rows))}</table>")
    return "\n".join(parts) + "\n</html>\n"


def _row(cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
