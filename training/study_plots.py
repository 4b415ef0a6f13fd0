"""Plots of a study: pictures for the page in Markdown, live ones for the page in HTML."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import optuna.visualization as live
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from training.figures import ACCENT, INK, PALE
from training.recipe import Range

Space = dict[str, Range]
NAMES = ("history", "slices", "parallel", "importance")
ENOUGH = 4  # complete trials from which an importance can be computed at all


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with a value over all folds."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def importance_of(study: optuna.Study) -> dict[str, float]:
    """Importance of each parameter by PED-ANOVA (Watanabe et al. 2023), their sum 1; or nothing."""
    if len(complete_trials(study)) < ENOUGH:
        return {}
    with warnings.catch_warnings(action="ignore"):  # that few trials make it inaccurate: we say so
        return optuna.importance.get_param_importances(study)


def write_pictures(study: optuna.Study, space: Space, folder: Path) -> dict[str, str]:
    """Write a PNG of each plot that the study has enough trials for; returns file by plot."""
    drawers: dict[str, Callable[[optuna.Study, Space], Figure]] = {
        "history": _history,
        "slices": _slices,
        "parallel": _parallel,
        "importance": _importance,
    }
    files = {}
    for name in drawn(study):
        files[name] = f"study-{name}.png"
        drawers[name](study, space).savefig(
            folder / files[name], dpi=110, metadata={"Software": None}
        )
    return files


def live_plots(study: optuna.Study) -> dict[str, str]:
    """Each plot as a piece of HTML; the first carries plotly's script, so that none is fetched."""
    plots: dict[str, Callable[[optuna.Study], Any]] = {
        "history": live.plot_optimization_history,
        "slices": live.plot_slice,
        "parallel": live.plot_parallel_coordinate,
        "importance": live.plot_param_importances,
    }
    pieces: dict[str, str] = {}
    with warnings.catch_warnings(action="ignore"):
        for name in drawn(study):
            figure = plots[name](study)
            pieces[name] = figure.to_html(
                full_html=False,
                include_plotlyjs=not pieces,
                div_id=name,
                config={"displaylogo": False},
            )
    return pieces


def drawn(study: optuna.Study) -> tuple[str, ...]:
    """The plots that the study has enough trials for."""
    count = len(complete_trials(study))
    return NAMES if count >= ENOUGH else NAMES[: 3 if count else 0]


def _history(study: optuna.Study, _: Space) -> Figure:
    figure, (axes,) = _panels(1, 5.5)
    trials = complete_trials(study)
    numbers, values = [t.number for t in trials], _values(trials)
    axes.plot(numbers, np.maximum.accumulate(values), color=PALE, drawstyle="steps-post")
    axes.scatter(numbers, values, color=ACCENT, zorder=2, label="complete")
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    cut = [t for t in pruned if t.value is not None]
    axes.scatter([t.number for t in cut], _values(cut), color=PALE, label="pruned")
    axes.set(xlabel="trial", ylabel="AUROC", title="History")
    axes.legend(frameon=False)
    return figure


def _slices(study: optuna.Study, space: Space) -> Figure:
    figure, panels = _panels(len(space), 2.8)
    trials = complete_trials(study)
    for axes, (path, drawn_from) in zip(panels, space.items(), strict=True):
        axes.scatter([t.params[path] for t in trials], _values(trials), color=ACCENT)
        axes.set(xlabel=path, xscale="log" if drawn_from.log else "linear")
    panels[0].set(ylabel="AUROC", title="Slices")
    return figure


def _parallel(study: optuna.Study, space: Space) -> Figure:
    figure, (axes,) = _panels(1, 1.6 * (len(space) + 2))
    trials = sorted(complete_trials(study), key=lambda t: t.value or 0.0)
    values = np.asarray(_values(trials))
    colours = ScalarMappable(Normalize(values[0], values[-1]), "PuRd")
    for trial, colour in zip(trials, colours.to_rgba(values), strict=True):
        heights = [_place(trial.params[path], drawn_from) for path, drawn_from in space.items()]
        axes.plot(range(len(space)), heights, color=colour)
    for x, drawn_from in enumerate(space.values()):
        axes.axvline(x, color=INK, linewidth=0.8)
        for y, end in ((-0.03, drawn_from.low), (1.03, drawn_from.high)):
            side = "top" if y < 0 else "bottom"
            axes.text(x, y, f"{end:g}", ha="center", va=side, color=INK, fontsize=8)
    axes.set(ylim=(-0.12, 1.12), yticks=[])
    axes.set_xticks(range(len(space)), list(space), fontsize=8)
    axes.spines[:].set_visible(False)
    axes.set_title("Parallel coordinates", pad=12)
    figure.colorbar(colours, ax=axes, label="AUROC")
    return figure


def _importance(study: optuna.Study, _: Space) -> Figure:
    figure, (axes,) = _panels(1, 5.5)
    found = dict(reversed(importance_of(study).items()))
    axes.barh(list(found), list(found.values()), color=ACCENT)
    axes.set(xlabel="share of what is explained", title="Importance (exploratory)")
    return figure


def _values(trials: list[FrozenTrial]) -> list[float]:
    return [trial.value for trial in trials if trial.value is not None]


def _place(value: float, drawn_from: Range) -> float:
    """Height of a value on its axis, 0 to 1."""
    low, high = drawn_from.low, drawn_from.high
    if drawn_from.log:
        low, high, value = np.log([low, high, value]).tolist()
    return (value - low) / (high - low)


def _panels(count: int, width: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * count, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_color(INK)
    return figure, panels
