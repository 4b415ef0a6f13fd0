"""How far the probabilities of one's own images lie from those of the model's test part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bcd_models.config import Strict

MIN_RESULTS = 50  # results; of fewer nothing is said
RESAMPLES, SEED = 1000, 0


class Drift(Strict):
    """Population stability index: 0 where both distributions are alike.

    Attributes:
        index: Its value.
        by_chance: What 95 in 100 samples of this size from the reference itself stay below.
    """

    index: float
    by_chance: float

    @property
    def is_beyond_chance(self) -> bool:
        """Whether chance alone hardly explains it."""
        return self.index > self.by_chance


def measure_drift(seen: Sequence[int], reference: Sequence[int]) -> Drift | None:
    """Compare two histograms over the same bins; None where there is too little to compare.

    ``reference``, of the model's test part, is empty where that is not known.
    """
    if len(seen) != len(reference) or min(sum(seen), sum(reference)) < MIN_RESULTS:
        return None
    base = np.asarray(reference, float)
    drawn = np.random.default_rng(SEED).multinomial(sum(seen), base / base.sum(), RESAMPLES)
    (index,) = _indices(np.asarray(seen, float)[None], base)
    by_chance = float(np.quantile(_indices(drawn, base), 0.95))
    return Drift(index=float(index), by_chance=by_chance)


def _indices(seen: NDArray[Any], base: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the index of each row; half an image is added to each bin, so that none is empty."""
    shares, usual = (
        (counts + 0.5) / (counts + 0.5).sum(-1, keepdims=True) for counts in (seen, base)
    )
    index: NDArray[np.float64] = ((shares - usual) * np.log(shares / usual)).sum(-1)
    return index
