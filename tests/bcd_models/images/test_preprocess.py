"""Our preprocessing against timm's own."""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from bcd_models import BCDClassifier
from bcd_models.decision import calibrate
from bcd_models.images.preprocess import normalise, turn
from tests.support import synthetic


def difference(model: BCDClassifier, images: Iterable[Image.Image]) -> float:
    """Largest difference of probability between timm's transform and ours."""
    config = model.config.preprocess
    transform = create_transform(
        input_size=(3, config.input_size, config.input_size),
        interpolation=config.interpolation,
        mean=config.mean,
        std=config.std,
        crop_pct=1.0,
        crop_mode="squash",
    )
    live = copy.deepcopy(model).network  # the model itself answers by its export
    worst = 0.0
    images = list(images)
    for start in range(0, len(images), 50):
        part = images[start : start + 50]
        with torch.inference_mode():
            theirs = live(torch.stack([transform(image) for image in part]))
        probability = calibrate((theirs[:, 1] - theirs[:, 0]).numpy(), model.config.decision)
        worst = max(worst, float(np.abs(probability - model.predict_proba(part)).max()))
    return worst


def test_agrees_with_timm(light_model: BCDClassifier, patches: list[Image.Image]) -> None:
    wide = Image.fromarray(synthetic.patch("benign", 9, pixels=(350, 230), width_um=175))
    assert difference(light_model, [*patches, wide]) < 0.01


@pytest.mark.real
@pytest.mark.slow
def test_agrees_with_timm_on_a_thousand_real_patches(
    model: BCDClassifier, real_sample: Path, two_threads: None
) -> None:
    with zipfile.ZipFile(real_sample / "idc-sample.zip") as archive:
        names = archive.namelist()[::9][:1000]
        images = [Image.open(io.BytesIO(archive.read(name))) for name in names]
        whole = [image for image in images if image.size == (50, 50)]
        assert len(whole) > 950
        worst = difference(model, whole)
    print(f"{model.config.name}: largest difference {worst:.5f} over {len(whole)} patches")
    assert worst < 0.01


def test_shape_range_and_independence_of_batch(patches: list[Image.Image], light_model) -> None:
    config = light_model.config.preprocess
    ready = [light_model.prepare(np.array(patch)) for patch in patches]
    together = normalise(ready, config)
    assert together.shape == (8, 3, config.input_size, config.input_size)
    assert together.dtype == np.float32
    assert together.flags.c_contiguous
    alone = np.concatenate([normalise([one], config) for one in ready])
    assert np.array_equal(together, alone)
    white = normalise([np.full((4, 4, 3), 255, np.uint8)], config)[0, :, 0, 0]
    assert white == pytest.approx((1 - np.array(config.mean)) / config.std, abs=1e-6)


def test_turns_are_the_square_s_eight(patches: list[Image.Image]) -> None:
    pixels = np.asarray(patches[0], np.float32).transpose(2, 0, 1)[None]
    turned = [turn(pixels, which) for which in range(8)]
    assert np.array_equal(turned[0], pixels)
    assert len({one.tobytes() for one in turned}) == 8
    assert all(one.flags.c_contiguous for one in turned)
