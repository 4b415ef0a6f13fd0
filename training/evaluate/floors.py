"""What a network has to earn its keep above: the source alone, and colour statistics alone.

python -m training.evaluate.floors --corpus CORPUS --out FOLDER

writes what colour statistics alone say of each fold's images, fitted on the other folds: what
``training.compare`` sets beside the runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from bcd_models.decision import log_odds
from bcd_models.images.colour_statistics import SIZE, measure_colour
from training import command
from training.corpus import predictions
from training.corpus.pixels import Pixels, Rows, select_rows
from training.corpus.selection import open_corpus
from training.run_folder import PREDICTIONS

CHUNK = 256


def predict_by_colour(train: Rows, scored: Rows) -> NDArray[np.float64]:
    """Return P(malignant) by gradient boosting on colour moments, fitted on ``train``.

    The features are mean, standard deviation, skewness and kurtosis of each channel in RGB and in
    HED (haematoxylin, eosin, DAB: Ruifrok and Johnston 2001): nothing of shape or texture.
    """
    learnt, asked = (_measure(rows.pixels) for rows in (train, scored))
    return _boost(learnt, train.truth, asked)


def predict_out_of_fold(corpus_folder: Path) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return the rows of all grouped folds, and the colour floor of each fitted on the others.

    Images that are only ever trained on go into every fit.
    """
    opened = open_corpus(corpus_folder, "grouped")
    usable = np.flatnonzero(opened.split.part != "test")
    known = select_rows(opened.rows, opened.table, usable, SIZE)
    fold = known.frame["fold"].to_numpy()
    moments = _measure(known.pixels)
    probability = np.full(len(fold), np.nan)
    for held in np.unique(fold[fold >= 0]):
        out = fold == held
        probability[out] = _boost(moments[~out], known.truth[~out], moments[out])
    placed = fold >= 0
    return known.frame[placed].reset_index(drop=True), probability[placed]


def _boost(
    learnt: NDArray[np.float64], truth: NDArray[np.bool_], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    model = HistGradientBoostingClassifier(random_state=0, class_weight="balanced")
    return np.asarray(model.fit(learnt, truth).predict_proba(asked)[:, 1])


def predict_by_source(train: pd.DataFrame, scored: pd.DataFrame) -> NDArray[np.float64]:
    """Return P(malignant) as the share of malignant images of the same source in ``train``."""
    malignant = (train["label"] == "malignant").groupby(train["source"]).mean()
    return np.asarray(scored["source"].map(malignant), np.float64)


def _measure(pixels: Pixels) -> NDArray[np.float64]:
    """Return the colour statistics, shape (N, 24), of images squashed to ``SIZE``."""
    import torch

    features = []
    for positions in torch.split(torch.arange(len(pixels)), CHUNK):
        batch = pixels.batch(positions, SIZE, torch.device("cpu"))
        features.append(measure_colour(batch.permute(0, 2, 3, 1).numpy()))
    return np.concatenate(features)


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions.parquet.")],
) -> None:
    """Predict every fold's images by colour statistics alone."""
    frame, probability = predict_out_of_fold(corpus)
    predictions.write(frame, log_odds(probability), probability, out / PREDICTIONS)
    typer.echo(f"colour floor: {out / PREDICTIONS}")


if __name__ == "__main__":
    command.run(main)
