"""Plots of figures, each as the bytes of a PNG file."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn import metrics as sk

from bcd_models.config import LABELS

INK, ACCENT, PALE = "#33272a", "#b0346a", "#b9a9c9"


def draw_learning_curves(epochs: pd.DataFrame) -> bytes:
    """Draw loss and validation AUROC by epoch, with the input size where it changes."""
    figure, (losses, auroc) = _make_panels(2, 6.6, 3.2)
    losses.plot(epochs["epoch"], epochs["train_loss"], color=PALE, marker="o", label="train")
    losses.plot(
        epochs["epoch"], epochs["validation_loss"], color=ACCENT, marker="o", label="validation"
    )
    losses.set(xlabel="epoch", ylabel="cross entropy", title="Loss")
    losses.legend(frameon=False)
    auroc.plot(epochs["epoch"], epochs["validation_auroc"], color=ACCENT, marker="o")
    auroc.set(xlabel="epoch", ylabel="AUROC", title="Validation AUROC")
    for change in epochs.index[epochs["size"].diff().fillna(1) != 0]:
        row = epochs.loc[change]
        auroc.annotate(
            f"{int(row['size'])} px",
            (row["epoch"], row["validation_auroc"]),
            xytext=(4, -14),
            textcoords="offset points",
            color=INK,
        )
    return encode(figure)


def draw_evaluation(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], threshold: float
) -> bytes:
    """Draw ROC, precision-recall, reliability and confusion matrix of one set of images."""
    figure, (roc, recall, reliable, confusion) = _make_panels(4, 13.2, 3.2)
    falls, rises, _ = sk.roc_curve(truth, probability)
    roc.plot(falls, rises, color=ACCENT)
    roc.plot([0, 1], [0, 1], color=PALE, linestyle=":")
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    precisions, recalls, _ = sk.precision_recall_curve(truth, probability)
    recall.plot(recalls, precisions, color=ACCENT)
    recall.axhline(truth.mean(), color=PALE, linestyle=":")
    recall.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02), title="Precision and recall")
    bins = np.array_split(np.argsort(probability, kind="stable"), 10)
    predicted, observed = zip(
        *[(probability[b].mean(), truth[b].mean()) for b in bins], strict=True
    )
    reliable.plot([0, 1], [0, 1], color=PALE, linestyle=":")
    reliable.plot(predicted, observed, color=ACCENT, marker="o")
    reliable.set(xlabel="probability said", ylabel="share malignant", title="Reliability")
    counts = sk.confusion_matrix(truth, probability >= threshold)
    shown = sk.ConfusionMatrixDisplay(counts, display_labels=LABELS)
    shown.plot(ax=confusion, cmap="PuRd", colorbar=False, values_format=",d")
    confusion.set(xlabel="called", ylabel="labelled", title="At the threshold")
    return encode(figure)


def draw_risk_by_case(frame: pd.DataFrame, probability: NDArray[np.float64]) -> bytes:
    """Draw each case's mean probability beside its share of malignant patches, sorted by it."""
    cases = (
        frame.assign(predicted=probability, observed=frame["label"] == "malignant")
        .groupby("case_id")[["observed", "predicted"]]
        .mean()
        .sort_values(["observed", "predicted"])
    )
    figure, (axes,) = _make_panels(1)
    place = np.arange(1, len(cases) + 1)
    size = float(np.clip(1000 / len(cases), 6, 28))
    axes.vlines(
        place, cases["observed"], cases["predicted"], color=PALE, linewidth=size / 18, zorder=1
    )
    axes.scatter(
        place, cases["observed"], s=size, marker="D", color=INK, label="labelled malignant"
    )
    axes.scatter(place, cases["predicted"], s=size, color=ACCENT, label="mean probability said")
    axes.set(
        xlabel=f"{len(cases)} cases, by their share of malignant patches",
        ylabel="share of a case's patches",
        ylim=(-0.03, 1.03),
        title="Risk by case",
    )
    axes.margins(x=0.01)
    axes.legend(frameon=False, loc="upper left")
    return encode(figure)


def draw_forest(
    rows: list[tuple[str, float, float, float]], label: str, differences: bool = False
) -> bytes:
    """Draw estimates with their intervals, one a line from the top down.

    Args:
        rows: What it is of, value, low and high end.
        label: What is estimated.
        differences: Whether they are, so that signs and zero matter.
    """
    figure, (axes,) = _make_panels(1, height=0.9 + 0.32 * len(rows))
    names, values, lows, highs = zip(*rows, strict=True)
    place = -np.arange(len(rows))
    axes.hlines(place, lows, highs, color=PALE, linewidth=3)
    axes.scatter(values, place, color=ACCENT, zorder=2)
    for y, value, high in zip(place, values, highs, strict=True):
        axes.annotate(
            f"{value:{'+' if differences else ''}.3f}",
            (high, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    if differences:
        axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(place, names)
    axes.set(xlabel=f"{label}, 95% interval", ylim=(place[-1] - 0.6, 0.6))
    axes.margins(x=0.08)
    axes.grid(axis="x", color=PALE, alpha=0.4)
    return encode(figure)


def draw_risk_coverage(series: dict[str, list[tuple[float, float, float, float]]]) -> bytes:
    """Draw the error among the decided over the share that is decided, a panel a series.

    Args:
        series: By name, points of share, error, low and high end.
    """
    figure, panels = _make_panels(len(series), 4.2 * len(series), 3.4)
    for axes, (name, points) in zip(panels, series.items(), strict=True):
        shares, errors, lows, highs = (np.array(column) for column in zip(*points, strict=True))
        axes.fill_between(shares, lows, highs, color=PALE, alpha=0.5, linewidth=0)
        axes.plot(shares, errors, color=ACCENT, marker="o", markersize=3)
        axes.set(xlabel="share decided", ylabel="wrong, of the decided", title=name)
        axes.set(xlim=(0, 1.02), ylim=(0, None))
    return encode(figure)


def _make_panels(count: int, width: float = 9, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.title.set_color(INK)
    return figure, panels


def encode(figure: Figure, dpi: int = 110, **how: Any) -> bytes:
    """Return a figure as PNG, by options of ``savefig``; equal figures give equal bytes."""
    data = BytesIO()
    figure.savefig(data, dpi=dpi, metadata={"Software": None}, **how)
    return data.getvalue()
