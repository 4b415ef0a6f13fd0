"""Our preprocessing against timm's own, and the properties training relies on."""

from __future__ import annotations

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
from bcd_models.images.preprocess import preprocess, resize, to_uint8
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
    worst = 0.0
    images = list(images)
    for start in range(0, len(images), 50):
        part = images[start : start + 50]
        with torch.inference_mode():
            theirs = model(torch.stack([transform(image) for image in part]))
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
    batch = to_uint8(np.stack([np.array(patch) for patch in patches]))
    together = preprocess(batch, config)
    assert together.shape == (8, 3, config.input_size, config.input_size)
    assert together.dtype == torch.float32
    alone = torch.cat([preprocess(batch[i : i + 1], config) for i in range(8)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("shape", [(50, 50), (460, 700), (16, 900), (224, 224)])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32], ids=["as on a CPU", "as on a GPU"])
def test_resize_is_pillows(shape: tuple[int, int], kind: torch.dtype) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    resized = resize(to_uint8(np.array(image)[None]).to(kind), 224)
    ours = resized[0].permute(1, 2, 0).numpy()
    theirs = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(ours - theirs).max() <= 2
    assert (ours != theirs).mean() < 0.01
