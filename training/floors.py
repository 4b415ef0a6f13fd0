"""What a network has to earn its keep above: the source alone, and colour statistics alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage.color import rgb2hed
from sklearn.ensemble import HistGradientBoostingClassifier

from training.loader import Pixels
from training.scoring import Rows

CHUNK = 256


def colour_floor(train: Rows, scored: Rows, size: int, seed: int = 0) -> NDArray[np.float64]:
    """P(malignant) by gradient boosting on colour moments, fitted on ``train``.

    The features are mean, standard deviation, skewness and kurtosis of each channel in RGB and in
    HED (haematoxylin, eosin, DAB: Ruifrok and Johnston 2001): nothing of shape or texture.
    """
    model = HistGradientBoostingClassifier(random_state=seed, class_weight="balanced")
    model.fit(colour_moments(train.pixels, size), train.truth)
    probability: NDArray[np.float64] = model.predict_proba(colour_moments(scored.pixels, size))
    return probability[:, 1]


def source_floor(train: pd.DataFrame, scored: pd.DataFrame) -> NDArray[np.float64]:
    """P(malignant) as the share of malignant images of the same source in ``train``."""
    malignant = (train["label"] == "malignant").groupby(train["source"]).mean()
    return scored["source"].map(malignant).to_numpy(np.float64)


def colour_moments(pixels: Pixels, size: int) -> NDArray[np.float64]:
    """Four moments of six channels, shape (N, 24), of images squashed to ``size``."""
    import torch

    features = []
    for positions in torch.arange(len(pixels)).split(CHUNK):
        batch = pixels.batch(positions, size, torch.device("cpu"))
        rgb = batch.permute(0, 2, 3, 1).numpy() / 255
        channels = np.concatenate([rgb, rgb2hed(rgb)], axis=3).reshape(len(batch), -1, 6)
        features.append(_moments(channels.astype(np.float64)))
    return np.concatenate(features)


def _moments(values: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = values.mean(1)
    spread = values.std(1)
    standard = (values - mean[:, None]) / (spread[:, None] + 1e-9)
    return np.concatenate([mean, spread, (standard**3).mean(1), (standard**4).mean(1)], axis=1)
