"""How far a model's answers and the reads of the same examinations agree, and how sure that is.

The read is no ground truth, so none of this is an accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Z = NormalDist().inv_cdf(0.975)
RESAMPLES, SEED = 2000, 0


@dataclass(frozen=True)
class Share:
    """So many of so many, with its 95% interval (Wilson's)."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float]:
        """Its ends; 0 and 1 of nothing."""
        if not self.of:
            return 0.0, 1.0
        share, weight = self.count / self.of, Z**2 / self.of
        middle = share + weight / 2
        half = Z * math.sqrt(share * (1 - share) / self.of + weight / (4 * self.of))
        low, high = (middle - half) / (1 + weight), (middle + half) / (1 + weight)
        return (0.0 if self.count == 0 else low, 1.0 if self.count == self.of else high)


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa with its 95% interval over resampled examinations."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """Examinations by read and by what a model said of them."""

    both: int = 0  # read as invasive, and at least one image at or above the threshold
    missed: int = 0  # read as invasive, and no image
    raised: int = 0  # read as none, and at least one image
    neither: int = 0  # read as none, and no image
    indeterminate: int = 0  # read as indeterminate; in none of the figures

    @property
    def compared(self) -> int:
        """How many examinations the figures are of."""
        return self.both + self.missed + self.raised + self.neither

    @property
    def sensitivity(self) -> Share:
        """Of those read as invasive, the model's share."""
        return Share(self.both, self.both + self.missed)

    @property
    def specificity(self) -> Share:
        """Of those read as none, the share the model left alone."""
        return Share(self.neither, self.neither + self.raised)

    @property
    def kappa(self) -> Kappa | None:
        """Agreement beyond chance; None where all reads, or all answers, are alike."""
        table = np.array([self.both, self.missed, self.raised, self.neither])
        (value,) = _kappas(table[None])
        if math.isnan(value):
            return None
        drawn = np.random.default_rng(SEED).multinomial(table.sum(), table / table.sum(), RESAMPLES)
        low, high = np.nanquantile(_kappas(drawn), [0.025, 0.975])
        return Kappa(float(value), float(low), float(high))


def _kappas(tables: np.ndarray) -> np.ndarray:
    """Return kappa of each row of both, missed, raised, neither; NaN where chance explains all."""
    total = tables.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        both, missed, raised, neither = (tables / total).T
        read, said = both + missed, both + raised
        chance = read * said + (1 - read) * (1 - said)
        return np.where(chance < 1, (both + neither - chance) / (1 - chance), np.nan)
