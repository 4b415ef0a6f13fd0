"""Plots of a study: pictures for the page in Markdown, live ones for the page in HTML."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import optuna.visualization as live
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullFormatter
from optuna.trial import FrozenTrial, TrialState

from training.evaluate.figures import ACCENT, INK, PALE, encode
from training.recipes.schema import Range

MIN_TRIALS_FOR_IMPORTANCE = 4  # complete trials from which an importance can be computed at all
_SHADES = LinearSegmentedColormap.from_list("shades", ["#e4dcea", ACCENT, INK])


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with a value over all folds."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def draw_pictures(study: optuna.Study, space: Mapping[str, Range]) -> dict[str, bytes]:
    """Draw each plot that the study has enough trials for; returns PNG by plot."""
    trials = complete_trials(study)
    figures: dict[str, Figure] = {}
    if trials:
        pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
        figures["history"] = _history(trials, pruned)
        figures["slices"] = _slices(trials, space)
        figures["parallel"] = _parallel(trials, space)
    if len(trials) >= MIN_TRIALS_FOR_IMPORTANCE:
        figures["importance"] = _importance(study)
    return {name: encode(figure, dpi=150) for name, figure in figures.items()}


def live_plots(study: optuna.Study) -> dict[str, str]:
    """Each plot as a piece of HTML; the first carries plotly's script, so that none is fetched."""
    plots: dict[str, Callable[..., Any]] = {
        "history": live.plot_optimization_history,
        "slices": live.plot_slice,
        "parallel": live.plot_parallel_coordinate,
        "importance": live.plot_param_importances,
    }
    complete = len(complete_trials(study))
    if complete < MIN_TRIALS_FOR_IMPORTANCE:
        del plots["importance"]
    pieces: dict[str, str] = {}
    for name, plot in plots.items() if complete else ():
        with warnings.catch_warnings(action="ignore"):  # few trials for an importance: we say so
            figure = plot(study, target_name="AUROC")
        figure.update_layout(title_text="", template="simple_white", margin_t=40)
        pieces[name] = figure.to_html(
            full_html=False,
            include_plotlyjs=not pieces,
            div_id=name,
            config={"displaylogo": False},
        )
    return pieces


def _history(trials: list[FrozenTrial], pruned: list[FrozenTrial]) -> Figure:
    figure, (axes,) = _panels(1, 6)
    numbers, values = [t.number for t in trials], _values(trials)
    best = np.maximum.accumulate(values)
    axes.step(numbers, best, color=INK, where="post", linewidth=1, label="best so far")
    axes.scatter(numbers, values, color=ACCENT, s=24, zorder=2, label="complete")
    cut = [t for t in pruned if t.value is not None]
    if cut:
        at = [t.number for t in cut]
        axes.scatter(at, _values(cut), color=PALE, marker="x", s=24, label="pruned")
    axes.set(xlabel="Trial", ylabel="AUROC")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _slices(trials: list[FrozenTrial], space: Mapping[str, Range]) -> Figure:
    figure, panels = _panels(len(space), 2.6)
    for axes, (path, drawn) in zip(panels, space.items(), strict=True):
        axes.scatter(
            [t.params[path] for t in trials], _values(trials), color=ACCENT, s=24, clip_on=False
        )
        axes.set(xlabel=path, xscale="log" if drawn.log else "linear", xlim=(drawn.low, drawn.high))
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0].set(ylabel="AUROC")
    return figure


def _parallel(trials: list[FrozenTrial], space: Mapping[str, Range]) -> Figure:
    figure, (axes,) = _panels(1, 1.6 * (len(space) + 1))
    trials = sorted(trials, key=lambda trial: trial.value or 0)
    values = _values(trials)
    shades = ScalarMappable(Normalize(values[0], values[-1]), _SHADES)
    for trial, shade in zip(trials, shades.to_rgba(np.asarray(values)), strict=True):
        heights = [_height(trial.params[path], drawn) for path, drawn in space.items()]
        axes.plot(range(len(space)), heights, color=shade)
    for x, drawn in enumerate(space.values()):
        axes.vlines(x, 0, 1, color=INK, linewidth=0.8, zorder=3)
        axes.text(x, -0.03, f"{drawn.low:g}", ha="center", va="top", color=INK)
        axes.text(x, 1.03, f"{drawn.high:g}", ha="center", va="bottom", color=INK)
    names = [f"{path}{' (log)' if drawn.log else ''}" for path, drawn in space.items()]
    axes.set_xticks(range(len(space)), names)
    axes.set(ylim=(-0.12, 1.12), yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(shades, ax=axes, label="AUROC")
    return figure


def _importance(study: optuna.Study) -> Figure:
    figure, (axes,) = _panels(1, 6)
    with warnings.catch_warnings(action="ignore"):  # few trials make it inaccurate: we say so
        found = optuna.importance.get_param_importances(study)
    axes.barh(list(found), list(found.values()), color=ACCENT, height=0.6)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="Importance, their sum 1 (exploratory)")
    return figure


def _values(trials: list[FrozenTrial]) -> list[float]:
    return [trial.value for trial in trials if trial.value is not None]


def _height(value: float, drawn: Range) -> float:
    """Place of a value on its axis, 0 to 1."""
    low, high = drawn.low, drawn.high
    if drawn.log:
        low, high, value = np.log([low, high, value]).tolist()
    return (value - low) / (high - low)


def _panels(count: int, width: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * count, 3), layout=ConstrainedLayoutEngine(wspace=0.08))
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels
