"""What a slide asks of a model: any object with these members is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bcd_models.config import DecisionConfig


class TileModelConfig(Protocol):
    """What a model says of itself."""

    @property
    def name(self) -> str:
        """The model's name; files are named after it."""

    @property
    def version(self) -> str:
        """The model's version."""

    @property
    def for_tiles(self) -> DecisionConfig:
        """The rule that turns a tile's margin into a probability, a label and a referral."""


class TileModel(Protocol):
    """A model that answers about tiles."""

    @property
    def config(self) -> TileModelConfig:
        """Name, version and decision rule."""

    @property
    def field_um(self) -> float:
        """Side in micrometres of the field that the training patches show, and so of a tile."""

    @property
    def mpp(self) -> float:
        """Micrometres a pixel of the training patches, and so of a tile as the model gets it."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights: an unfinished run goes on with the same ones only."""

    def margins_of(self, tiles: NDArray[np.uint8]) -> NDArray[np.floating]:
        """Return the margins of N x H x W x 3 RGB tiles, shape (N,).

        A margin is what the decision rule calibrates: malignant logit minus benign logit. NaN says
        that there is none. Called in threads, for two batches at a time.
        """
