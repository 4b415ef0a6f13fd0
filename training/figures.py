"""Plots of figures, as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn import metrics as sk

INK, ACCENT, PALE = "#33272a", "#b0346a", "#b9a9c9"


def learning_curves(epochs: pd.DataFrame, path: Path) -> None:
    """Loss and validation AUROC by epoch, with the input size where it changes."""
    figure, (losses, auroc) = _panels(2)
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
    _save(figure, path)


def evaluation(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], threshold: float, path: Path
) -> None:
    """ROC, precision-recall, reliability and confusion matrix of one set of images."""
    figure, (roc, recall, reliable, confusion) = _panels(4)
    falls, rises, _ = sk.roc_curve(truth, probability)
    roc.plot(falls, rises, color=ACCENT)
    roc.plot([0, 1], [0, 1], color=PALE, linestyle=":")
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    precisions, recalls, _ = sk.precision_recall_curve(truth, probability)
    recall.plot(recalls, precisions, color=ACCENT)
    recall.axhline(truth.mean(), color=PALE, linestyle=":")
    recall.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02), title="Precision and recall")
    bins = np.array_split(np.argsort(probability, kind="stable"), 10)
    said, seen = zip(*[(probability[b].mean(), truth[b].mean()) for b in bins], strict=True)
    reliable.plot([0, 1], [0, 1], color=PALE, linestyle=":")
    reliable.plot(said, seen, color=ACCENT, marker="o")
    reliable.set(xlabel="probability said", ylabel="share malignant", title="Reliability")
    _confusion(confusion, sk.confusion_matrix(truth, probability >= threshold))
    _save(figure, path)


def _confusion(axes: Axes, table: NDArray[np.int64]) -> None:
    shares = table / table.sum(1, keepdims=True)
    axes.imshow(shares, cmap="PuRd", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        colour = "white" if shares[row, column] > 0.6 else INK
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour)
    names = ["benign", "malignant"]
    axes.set_xticks([0, 1], names)
    axes.set_yticks([0, 1], names, rotation=90, va="center")
    axes.set(xlabel="called", ylabel="labelled", title="At the threshold")


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(3.3 * count, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, count))
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.title.set_color(INK)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
