"""What the methods ask of a model's forward, whichever runtime computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Asked = Literal["logits", "cells", "contributions", "network"]


class ExplainedForward(Protocol):
    """What a map is made of; a forward has what its ``gives`` names."""

    gives: frozenset[str]

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits N x 2 of N x 3 x S x S inputs."""

    def cells(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the margin that each cell speaks for, N x h x w."""

    def contributions(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how much of the margin each cell contributes, N x h x w."""
