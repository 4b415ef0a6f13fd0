"""What a microscope's camera took is referred where the model is not validated for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bcd_models import BCDClassifier, BCDEnsemble
from bcd_models.config import CameraValidation, Estimate
from bcd_models.images.scale import OPTICS, compute_scale
from bcd_models.models.ensemble import EnsembleConfig
from bcd_models.prediction import CAMERA, CAMERA_WORDS, describe_unsuitable
from tests.support import synthetic
from tests.support.slides import BENIGN, draw_layout, write_slide

POOR = CameraValidation(
    source="breakhis", images=209, cases=17, auroc=Estimate(value=0.46, low=0.22, high=0.83)
)
GOOD = POOR.model_copy(update={"auroc": Estimate(value=0.9, low=0.8, high=0.95)})


@pytest.fixture
def of_camera(light_model: BCDClassifier) -> Callable[[CameraValidation | None], BCDClassifier]:
    """The model with another figure on microscope cameras' fields."""

    def made(cameras: CameraValidation | None) -> BCDClassifier:
        model = copy.copy(light_model)
        model.config = model.config.model_copy(update={"cameras": cameras})
        return model

    return made


@pytest.fixture
def field() -> Image.Image:
    """Three fields of tissue by two, at 1 micrometre a pixel."""
    layout = np.full((2, 3), BENIGN)
    return Image.fromarray(draw_layout(layout, 1.0, seed=4))


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_a_camera_s_image_is_referred_where_the_model_is_not_validated(
    of_camera, field: Image.Image, tmp_path: Path
) -> None:
    model = of_camera(POOR)
    png = save(field, tmp_path / "field.png", dpi=(25_400, 25_400))
    tiff = save(field, tmp_path / "field.tif", dpi=(25_400, 25_400))
    declared = model.predict(np.asarray(field), mpp=compute_scale(10, 10))
    patch = synthetic.patch("benign", 3)
    single = model.predict(patch, mpp=compute_scale(2.5, 10))
    for answer in (declared, single, model.predict(png), model.predict(tiff)):
        assert (answer.decision, answer.is_unsuitable) == ("refer", True)
        assert answer.reasons[0] == "not validated for microscope cameras"
        assert answer.findings[0].name == CAMERA
        assert answer.findings[0].value == 0.22
    assert declared.scale == OPTICS
    assert declared.tiles == 6  # which are told all the same
    ignored = model.predict(png, suitability="ignore")
    assert CAMERA_WORDS not in ignored.reasons
    assert [one.name for one in ignored.ignored] == [CAMERA]
    assert ignored.probability == model.predict(png).probability
    assert "not validated" in describe_unsuitable(ignored.ignored, ignored.judged_tiles)


def test_what_may_be_a_scanner_s_is_answered(of_camera, field: Image.Image, tmp_path: Path) -> None:
    model = of_camera(POOR)
    tiled = write_slide(tmp_path / "slide.tif", np.asarray(field), 1.0, downsamples=(1,))
    patch = save(
        Image.fromarray(synthetic.patch("benign", 3)), tmp_path / "p.png", dpi=(6350, 6350)
    )
    answers = [model.predict(np.asarray(field), mpp=1.0), model.predict(tiled)]
    answers.append(model.predict(patch))
    for answer in answers:
        assert answer.mpp is not None
        assert CAMERA not in [one.name for one in answer.findings]
        assert CAMERA_WORDS not in answer.reasons


@pytest.mark.parametrize("cameras", [None, GOOD])
def test_a_model_that_was_not_measured_refuses_no_camera(
    of_camera, field: Image.Image, cameras: CameraValidation | None
) -> None:
    answer = of_camera(cameras).predict(np.asarray(field), mpp=compute_scale(10, 10))
    assert CAMERA_WORDS not in answer.reasons


def test_an_ensemble_is_validated_where_each_member_is(of_camera) -> None:
    config = EnsembleConfig(name="both", version="1", members=("a", "b"))
    members = of_camera(GOOD), of_camera(POOR)
    assert BCDEnsemble(config, members).cameras == POOR
    assert BCDEnsemble(config, [of_camera(GOOD), of_camera(None)]).cameras is None
