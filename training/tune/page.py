"""The pages of a study: what was compared, tried and found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from bcd_models.hub.atomic import write_files
from bcd_models.prediction import NOTICE
from training import pages
from training.recipes.schema import Range, Recipe
from training.run_folder import short_commit
from training.tune import plots

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


def state_decision(best: FrozenTrial | None, study: optuna.Study) -> str:
    """Say in a sentence which trial is the best one.

    Args:
        best: The complete trial of the highest value; None where none was completed.
        study: With all its trials.
    """
    if best is None:
        return "The default stays: no trial was completed."
    complete = plots.complete_trials(study)
    default = [trial.value for trial in complete if trial.user_attrs.get("default")]
    beside = f" (the default's is {default[0]:.4f})" if default else ""
    if best.user_attrs.get("default"):
        return f"The default has the highest AUROC of {len(complete)} trials, {best.value:.4f}."
    return (
        f"Trial {best.number} has the highest AUROC of {len(complete)} trials, "
        f"{best.value:.4f}{beside}. The highest of many flatters: compare the recipe with the "
        "plain one on all folds before it is taken."
    )


def write(study: optuna.Study, plan: Recipe, decision: str, folder: Path) -> None:
    """Write ``study.md`` with its pictures, and ``study.html``, which needs no network.

    Args:
        study: With its trials, and what it is bound to.
        plan: The recipe that was tuned.
        decision: What was found, in a sentence.
        folder: The study's.
    """
    drawn = plots.draw_plots(study)
    shown = [
        {"heading": heading, "words": words, "file": f"study-{name}.png", "html": drawn[name][1]}
        for name, (heading, words) in _PLOTS.items()
        if name in drawn
    ]
    texts = {
        name: pages.render(
            Path(__file__).with_name(name),
            plan=plan,
            decision=decision,
            notice=NOTICE,
            page=PAGE,
            facts=_list_facts(study, plan),
            plots=shown,
            trials=study.trials,
        ).encode()
        for name in (PAGE, LIVE_PAGE)
    }
    texts |= {f"study-{name}.png": picture for name, (picture, _) in drawn.items()}
    write_files({folder / name: data for name, data in texts.items()})


def _list_facts(study: optuna.Study, plan: Recipe) -> list[tuple[str, str]]:
    bound, trials = study.user_attrs, study.trials
    states = Counter(trial.state for trial in trials)
    diverged = sum("stopped" in trial.user_attrs for trial in trials)
    commits = {short_commit(trial.user_attrs.get("git_commit", "")) for trial in trials} - {""}
    space = (f"{path} {_describe_range(drawn)}" for path, drawn in plan.tune.space.items())
    return [
        ("corpus", f"fingerprint {bound['corpus']}"),
        ("split", f"{plan.split}, manifest {bound['split']}; test is not read"),
        ("folds held out", ", ".join(map(str, plan.tune.folds))),
        ("start weights", bound["start"]),
        ("code", ", ".join(sorted(commits)) or "of no git commit"),
        ("a trial", f"{plan.tune.size} px, {plan.tune.epochs} epochs a fold, seed {plan.seed}"),
        ("value", f"AUROC within the larger source, mean over the folds{_describe_halves(plan)}"),
        ("tuned", "; ".join(space)),
        ("sampler", f"TPE, the first {plan.tune.startup_trials} at random; the default first"),
        ("pruner", "median of the trials so far, from the end of the first fold"),
        ("complete", str(states[TrialState.COMPLETE])),
        ("pruned", f"{states[TrialState.PRUNED]}, of which {diverged} diverged"),
        ("failed", f"{states[TrialState.FAIL]} (stopped, killed or one too many)"),
    ]


def _describe_halves(plan: Recipe) -> str:
    return " and over patches as they are and degraded" if plan.degrade.is_on else ""


def _describe_range(drawn: Range) -> str:
    how = " (log)" if drawn.log else f" by {drawn.step:g}" if drawn.step else ""
    return f"{drawn.low:g} to {drawn.high:g}{how}"
