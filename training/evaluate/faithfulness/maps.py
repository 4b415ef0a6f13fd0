"""The maps that are measured: each explainer's, and two that no model makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from bcd_models.config import DecisionConfig, PreprocessConfig
from bcd_models.explain.cells import GRID
from bcd_models.explain.draw import average_cells
from bcd_models.explain.methods import METHODS
from bcd_models.images.colour_statistics import DARKEST, STAINS

Inputs = NDArray[np.float32]
"""N x 3 x S x S, as a network takes them."""
Cells = NDArray[np.float32]
MapOf = Callable[[Inputs], Cells]
"""Of one input, 1 x 3 x S x S, the cells of its map, h x w: the higher, the more malignant."""

BLUR = 1 / 8  # of the side: the standard deviation that leaves the colour and takes the form


@dataclass(frozen=True)
class Way:
    """A method, and over how many views its maps are averaged.

    Attributes:
        method: One of ``METHODS``.
        views: As in ``explain``.
        patches: How many patches it is measured on at most, where it takes seconds; None: all.
    """

    method: str
    views: int = 1
    patches: int | None = None

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.method if self.views == 1 else f"{self.method}, {self.views} views"


WAYS = (
    Way("gradcam"),
    Way("gradcam", 8),
    Way("hirescam"),
    Way("hirescam", 4),
    Way("hirescam", 8),
    Way("layercam"),
    Way("layercam", 8),
    Way("gradcam++"),
    Way("xgradcam"),
    Way("eigencam"),
    Way("scorecam", patches=20),
    Way("occlusion"),
    Way("occlusion", 4),
    Way("shap", patches=60),
    Way("integrated_gradients"),
)
HAEMATOXYLIN, RANDOM = "haematoxylin", "random"


def by_method(way: Way, forward: Any, decision: DecisionConfig) -> MapOf:
    """Return what computes the maps of a way, for the label malignant."""

    def compute(inputs: Inputs) -> Cells:
        return average_cells(METHODS[way.method], forward, inputs, decision, "malignant", way.views)

    return compute


def by_haematoxylin(preprocess: PreprocessConfig) -> MapOf:
    """Return what maps the density of haematoxylin: no model, but what a model should beat."""
    mean, std = (np.array(values)[:, None, None] for values in (preprocess.mean, preprocess.std))

    def compute(inputs: Inputs) -> Cells:
        rgb = np.clip(inputs[0] * std + mean, DARKEST, 1)
        stains = np.moveaxis(np.log(rgb) / np.log(DARKEST), 0, -1) @ np.linalg.inv(STAINS)
        return to_size(np.maximum(stains[..., 0], 0).astype(np.float32), GRID, Image.Resampling.BOX)

    return compute


def by_chance(seed: int) -> MapOf:
    """Return what maps nothing at all."""
    rng = np.random.default_rng(seed)
    return lambda _inputs: rng.random((GRID, GRID), np.float32)


def to_size(cells: Cells, side: int, kernel: Image.Resampling = Image.Resampling.BILINEAR) -> Cells:
    """Return cells as so many a side, by default as a heat map is drawn."""
    if cells.shape == (side, side):
        return cells
    return np.asarray(Image.fromarray(cells).resize((side, side), kernel))


def blur(one: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a 3 x S x S input without its form."""
    blurred: NDArray[np.float32] = gaussian_filter(one, (0, *[BLUR * one.shape[-1]] * 2))
    return blurred
