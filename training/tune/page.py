"""The page of a study: what was compared, tried and decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from bcd_models.hub.atomic import write_files
from bcd_models.prediction import NOTICE
from training.recipes.schema import Range, Recipe
from training.tune import plots
from training.tune.confirm import DEFAULT, Decision

PAGE, LIVE_PAGE = "study.md", "study.html"
_PLOTS = {
    "history": ("History", "The best value of many trials flatters."),
    "slices": ("Slices", "Each number against the value, the others varying too."),
    "parallel": ("Parallel coordinates", "A line a trial, darker where the value is higher."),
    "importance": (
        "Importance (exploratory)",
        "Computed from few trials by PED-ANOVA (Watanabe et al. 2023), it changes from study to "
        "study and says nothing outside the ranges tried. Choose nothing by it.",
    ),
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;color:#33272a;max-width:70rem;margin:2rem auto;"
    "padding:0 1rem}"
)


def sentence(decision: Decision) -> str:
    """What was decided, in a sentence."""
    if not decision.comparisons:
        return "The default stays: no other trial was completed."
    best = decision.comparisons[0]
    numbers = (
        f"{best.difference:+.4f} AUROC ({best.low:+.4f} to {best.high:+.4f}) over "
        f"{decision.pairs} paired runs"
    )
    if decision.winner == DEFAULT:
        return f"The default stays: the best candidate, {best.name}, has {numbers}."
    return f"{best.name.capitalize()} replaces the default: {numbers}."


def write(
    study: optuna.Study,
    plan: Recipe,
    decision: Decision,
    runs: Sequence[dict[str, Any]],
    folder: Path,
) -> None:
    """Write ``study.md`` with its pictures, and ``study.html``, which needs no network.

    Args:
        study: With its trials, and what it is bound to.
        plan: The recipe that was tuned.
        decision: Of the confirmation.
        runs: That were decided by.
        folder: The study's.
    """
    title = f"Study of {plan.name}"
    lines = [f"# {title}", "", sentence(decision), "", NOTICE]
    lines += ["", "## What was compared", "", *_table(("", ""), _facts(study, plan))]
    lines += ["", "## Confirmation", "", *_confirmation(decision, runs)]
    contents = {}
    for name, picture in plots.draw_pictures(study, plan.tune.space).items():
        heading, words = _PLOTS[name]
        file = f"study-{name}.png"
        contents[folder / file] = picture
        lines += ["", f"## {heading}", "", words, "", f"![{heading}]({file})"]
    lines += ["", "## Trials", "", *_trials(study, plan)]
    contents[folder / PAGE] = ("\n".join(lines) + "\n").encode()
    contents[folder / LIVE_PAGE] = _live(study, title, sentence(decision)).encode()
    write_files(contents)


def _facts(study: optuna.Study, plan: Recipe) -> list[tuple[str, str]]:
    bound, trials = study.user_attrs, study.trials
    states = Counter(trial.state for trial in trials)
    diverged = sum("stopped" in trial.user_attrs for trial in trials)
    commits = {trial.user_attrs.get("git_commit", "")[:12] for trial in trials} - {""}
    space = (f"{path} {_range(drawn)}" for path, drawn in plan.tune.space.items())
    return [
        ("corpus", f"fingerprint {bound['corpus']}"),
        ("split", f"{plan.split}, manifest {bound['split']}; test is not read"),
        ("folds held out", ", ".join(map(str, plan.tune.folds))),
        ("start weights", bound["start"]),
        ("code", ", ".join(sorted(commits)) or "of no git commit"),
        ("a trial", f"{plan.tune.size} px, {plan.tune.epochs} epochs a fold, seed {plan.seed}"),
        ("value", "AUROC within the larger source, mean over the folds"),
        ("tuned", "; ".join(space)),
        ("sampler", f"TPE, the first {plan.tune.startup_trials} at random; the default first"),
        ("pruner", "median of the trials so far, from the end of the first fold"),
        ("complete", str(states[TrialState.COMPLETE])),
        ("pruned", f"{states[TrialState.PRUNED]}, of which {diverged} diverged"),
        ("failed", f"{states[TrialState.FAIL]} (stopped, killed or one too many)"),
    ]


def _range(drawn: Range) -> str:
    how = " (log)" if drawn.log else f" by {drawn.step:g}" if drawn.step else ""
    return f"{drawn.low:g} to {drawn.high:g}{how}"


def _confirmation(decision: Decision, runs: Sequence[dict[str, Any]]) -> list[str]:
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    words = (
        f"The best trials and the default were run again with seeds {seeds}, which no trial had, "
        "on the same folds, at the trials' resolution. A candidate replaces the default only where "
        "the Student t interval of its mean paired difference lies above zero; the intervals hold "
        "together at 95% (Bonferroni over the candidates). They speak of these folds alone, which "
        "share training images: the runs of one fold are not independent, so an interval is rather "
        "too narrow."
    )
    rows = [(DEFAULT, f"{decision.default:.4f}", "", "", _aurocs(runs, DEFAULT))]
    rows += [
        (
            one.name,
            f"{one.auroc:.4f}",
            f"{one.difference:+.4f}",
            f"{one.low:+.4f} to {one.high:+.4f}",
            _aurocs(runs, one.name),
        )
        for one in decision.comparisons
    ]
    header = ("", "mean AUROC", "difference", "interval", "each run (seed/fold)")
    return [words, "", *_table(header, rows)]


def _aurocs(runs: Sequence[dict[str, Any]], name: str) -> str:
    return ", ".join(
        f"{run['auroc']:.4f} ({run['seed']}/{run['fold']}{', diverged' if run['stopped'] else ''})"
        for run in runs
        if run["of"] == name
    )


def _trials(study: optuna.Study, plan: Recipe) -> list[str]:
    rows = (_trial(trial, list(plan.tune.space)) for trial in study.trials)
    header = ("trial", "state", "value", *plan.tune.space, "seconds")
    words = "A pruned trial's value is the last one it reported."
    return [words, "", *_table(header, rows)]


def _trial(trial: FrozenTrial, paths: list[str]) -> tuple[str, ...]:
    return (
        f"{trial.number}{' (default)' if trial.user_attrs.get('default') else ''}",
        "diverged" if "stopped" in trial.user_attrs else trial.state.name.lower(),
        "" if trial.value is None else f"{trial.value:.4f}",
        *(f"{trial.params[path]:.4g}" if path in trial.params else "" for path in paths),
        f"{trial.duration.total_seconds():.1f}" if trial.duration else "",
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _live(study: optuna.Study, title: str, decided: str) -> str:
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><p><strong>{escape(decided)}</strong></p>",
        f'<p>{escape(NOTICE)}</p><p>The tables are in <a href="{PAGE}">{PAGE}</a>.</p>',
    ]
    for name, plot in plots.live_plots(study).items():
        heading, words = _PLOTS[name]
        parts.append(f"<h2>{escape(heading)}</h2><p>{escape(words)}</p>{plot}")
    return "\n".join(parts) + "\n</html>\n"
