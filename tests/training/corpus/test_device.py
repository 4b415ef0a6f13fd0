"""The preprocessing on a device, as training uses it, against the library's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.images.preprocess import turn
from training.corpus.device import normalise, resize, symmetry, to_uint8


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


def test_it_makes_what_the_library_makes(
    patches: list[Image.Image], light_model: BCDClassifier
) -> None:
    config = light_model.config.preprocess
    batch = to_uint8(np.stack([np.array(patch) for patch in patches]))
    resized = resize(batch, config.input_size)
    ours = normalise(resized.clone(), config)
    theirs = light_model.preprocess(patches)
    step = 1 / (255 * min(config.std))
    assert float((ours - theirs).abs().max()) <= 2.01 * step
    assert float(((ours - theirs).abs() > step / 2).float().mean()) < 0.005
    alone = torch.cat([resize(batch[i : i + 1], config.input_size) for i in range(8)])
    assert torch.equal(resized, alone)
    for which in range(8):
        assert np.array_equal(symmetry(ours, which).numpy(), turn(ours.numpy(), which))
