"""What tests of slides share: a drawn slide of known layout, and what a model finds in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bcd_models import BCDClassifier
from bcd_models.slides.prediction import SlidePrediction
from tests.support.slides import draw_layout, drawn_layout, write_slide

MPP = 2.0
SIDE = 100  # pixels of a tile at that size


@pytest.fixture(scope="session")
def layout() -> np.ndarray:
    return drawn_layout()


@pytest.fixture(scope="session")
def picture(layout: np.ndarray) -> np.ndarray:
    return draw_layout(layout, MPP, seed=3)


@pytest.fixture(scope="session")
def model(telling: Path) -> BCDClassifier:
    loaded = BCDClassifier.from_pretrained(telling)
    loaded.runtime = "torch"
    return loaded


@pytest.fixture(scope="session")
def slide(picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "drawn.tif", picture, MPP, (1, 2, 8))


@pytest.fixture(scope="session")
def found(model: BCDClassifier, slide: Path) -> SlidePrediction:
    return model.predict_slide(slide)


@pytest.fixture(autouse=True)
def _by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an export of each model."""
    monkeypatch.setenv("BCD_RUNTIME", "torch")
