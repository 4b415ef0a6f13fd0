"""What the environment says about this installation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bcd_models.errors import InputError

SPACE_CARD = Path(__file__).resolve().parents[1] / "README.md"
CARDS = Path(__file__).resolve().parents[2] / "cards"


@dataclass(frozen=True)
class Settings:
    """One installation's settings.

    Attributes:
        models: Model folders or Hub ids, the default model first.
    """

    models: tuple[str, ...]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read ``BCD_MODELS``: model folders or Hub ids, separated by commas.

        Where it is unset, the models of the checkout this file lies in are offered, and where
        there is no checkout, as on the Hub, those that the Space's card names.

        Raises:
            InputError: The card names none.
        """
        named = [part.strip() for part in environment.get("BCD_MODELS", "").split(",")]
        models = tuple(part for part in named if part)
        return cls(models or _checkout_models() or published_models())


def _checkout_models(cards: Path = CARDS) -> tuple[str, ...]:
    return tuple(str(config.parent) for config in sorted(cards.glob("bcd-*/config.json")))


def published_models(card: Path = SPACE_CARD) -> tuple[str, ...]:
    """The Hub ids that the Space's card names, the default model first."""
    from huggingface_hub import metadata_load

    try:
        named = (metadata_load(card) or {}).get("models")
    except (OSError, ValueError):
        named = None
    if not named:
        raise InputError(f"{card} names no models: set BCD_MODELS to model folders or Hub ids")
    return tuple(named)
