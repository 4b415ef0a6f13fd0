"""Plots of a study, all Optuna's own: pictures for the page in Markdown, live ones for HTML."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import optuna
import optuna.visualization as live
import optuna.visualization.matplotlib as still
from matplotlib import pyplot
from matplotlib.ticker import NullFormatter
from optuna.trial import FrozenTrial, TrialState

from training.evaluate.figures import encode

MIN_TRIALS_FOR_IMPORTANCE = 4  # complete trials from which an importance can be computed at all
_PLOTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "history": (still.plot_optimization_history, live.plot_optimization_history),
    "slices": (still.plot_slice, live.plot_slice),
    "parallel": (still.plot_parallel_coordinate, live.plot_parallel_coordinate),
    "importance": (still.plot_param_importances, live.plot_param_importances),
}


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials with a value over all folds."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def draw_plots(study: optuna.Study) -> dict[str, tuple[bytes, str]]:
    """Draw each plot that the study has enough trials for.

    Returns:
        By plot, a PNG file and a piece of HTML; the first piece carries plotly's script, so that
        none is fetched.
    """
    complete, drawn = len(complete_trials(study)), dict[str, tuple[bytes, str]]()
    for name, (draw_still, draw_live) in _PLOTS.items() if complete else ():
        if name == "importance" and complete < MIN_TRIALS_FOR_IMPORTANCE:
            continue
        # Optuna warns of few trials, which the page says too; its pictures set a style for all.
        with warnings.catch_warnings(action="ignore"), matplotlib.rc_context():
            picture = _encode_picture(draw_still(study, target_name="AUROC"))
            figure = draw_live(study, target_name="AUROC")
        figure.update_layout(title_text="", template="simple_white", margin_t=40)
        piece = figure.to_html(
            full_html=False,
            include_plotlyjs=not drawn,
            div_id=name,
            config={"displaylogo": False},
        )
        drawn[name] = picture, piece
    return drawn


def _encode_picture(drawn: Any) -> bytes:
    """Return a plot of pyplot's, axes or an array of them, as PNG without its title."""
    figure = np.ravel(drawn)[0].figure
    figure.suptitle("")
    for axes in figure.axes:
        axes.set_title("")
        axes.set_title("", loc="left")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
    data = encode(figure, dpi=150, bbox_inches="tight")
    pyplot.close(figure)
    return data
