"""The dashboard's figures, to be read on light and on dark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from bcd_models.decision import PROBABILITY_BINS
from bcd_models.prediction import WORDS
from clinic.dashboard.analytics import Overview

DECISIONS = {
    "benign": (WORDS["benign"], "#0f766e"),
    "malignant": (WORDS["malignant"], "#86198f"),
    "refer": ("left to a pathologist", "#b45309"),
}
HEIGHT = 200  # pixels, of what is drawn
TITLE, LEGEND = 40, 100  # pixels above it: Gradio's label, on a phone three lines of a legend too
GREY, INK, LINE = "#64748b", "#7c8798", "rgba(124,135,152,.3)"


def volume(found: Overview) -> go.Figure:
    """Draw images by decision over time."""
    bars = [
        go.Bar(
            x=list(found.volume),
            y=[n[decision] for n in found.volume.values()],
            name=name,
            marker_color=colour,
        )
        for decision, (name, colour) in DECISIONS.items()
    ]
    figure = go.Figure(bars)
    figure.update_layout(barmode="stack", bargap=0.15, **_look(LEGEND))
    return figure.update_xaxes(type="category", nticks=3, tickangle=0).update_yaxes(
        rangemode="tozero"
    )


def probabilities(found: Overview, reference: Sequence[int]) -> go.Figure:
    """Draw images by probability, beside the model's test part where that is known."""
    middles = [(i + 0.5) / PROBABILITY_BINS for i in range(PROBABILITY_BINS)]
    figure = go.Figure(
        go.Bar(x=middles, y=_shares(found.probabilities), name="these images", marker_color=GREY)
    )
    if sum(reference):
        figure.add_scatter(
            x=middles,
            y=_shares(reference),
            name="the model's test part",
            mode="lines+markers",
            line={"color": "#7c3aed", "shape": "hvh"},
        )
    figure.update_layout(bargap=0.05, **_look(LEGEND if sum(reference) else TITLE))
    return figure.update_xaxes(range=[0, 1]).update_yaxes(tickformat=".0%", title="share of images")


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / sum(counts) for count in counts]


def _look(above: int) -> dict[str, Any]:
    """Return the look of all figures, light and dark, with so many pixels of room above."""
    clear, axis = "rgba(0,0,0,0)", {"gridcolor": LINE, "zerolinecolor": LINE, "automargin": True}
    return {
        "height": HEIGHT + above,
        "margin": {"l": 50, "r": 10, "t": above, "b": 10},
        "font": {"color": INK},
        "paper_bgcolor": clear,
        "plot_bgcolor": clear,
        "xaxis": axis,
        "yaxis": axis,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
