"""Augmentation and MixUp against values worked out by hand, stains against scikit-image's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2hed

from tests.support import synthetic
from training.recipes.schema import Augment
from training.train.augment import augment, mix_up, to_hed, to_rgb

EVERY = Augment(brightness=0.1, contrast=0.1, saturation=0.1, stain=0.1)


def tissue(count: int = 4) -> torch.Tensor:
    patches = [synthetic.patch("malignant", seed=i) for i in range(count)]
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).double()


def test_mixup_by_hand() -> None:
    torch.manual_seed(0)
    share = float(torch.distributions.Beta(torch.tensor([0.4]), torch.tensor([0.4])).sample())
    torch.manual_seed(0)
    targets = torch.tensor([[1.0, 0], [0, 1], [0.25, 0.75]])  # an odd batch
    inputs = targets[:, 1].view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    out, soft = mix_up(inputs, targets, alpha=0.4)
    assert torch.allclose(soft, share * targets + (1 - share) * targets[[2, 0, 1]], atol=1e-6)
    assert torch.allclose(out[:, 0, 0, 0], soft[:, 1], atol=1e-6)
    assert all(torch.equal(*pair) for pair in zip(mix_up(inputs, targets, 0), (inputs, targets)))  # noqa: B905


def test_no_strength_changes_nothing() -> None:
    pixels = tissue()
    assert torch.equal(augment(pixels, Augment(flips=False)), pixels)


def test_one_seed_decides_everything() -> None:
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(augment(tissue(5), EVERY))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_turns_are_the_squares_eight() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(64, 3, 8, 8) * 255
    turned = augment(pixels, Augment())
    assert torch.equal(turned.flatten(1).sort(1).values, pixels.flatten(1).sort(1).values)
    same = augment(pixels[:1].repeat(64, 1, 1, 1), Augment())
    assert len({tuple(image.flatten()[:4].tolist()) for image in same}) == 8


@pytest.mark.parametrize("strength", ["brightness", "contrast", "saturation", "stain"])
def test_jitter_stays_in_range_and_differs_by_image(strength: str) -> None:
    torch.manual_seed(0)
    pixels = tissue(1).repeat(6, 1, 1, 1)
    wild = augment(pixels, Augment(flips=False, **{strength: 0.9}))
    assert wild.min() >= 0
    assert wild.max() <= 255
    assert len({round(float(image.mean()), 4) for image in wild}) == 6


def test_stains_are_scikit_images() -> None:
    pixels = tissue()
    theirs = rgb2hed(pixels.permute(0, 2, 3, 1).numpy() / 255)
    ours = to_hed(pixels).permute(0, 2, 3, 1).numpy()
    assert np.abs(np.maximum(ours, 0) - theirs).max() < 1e-9
    assert torch.allclose(to_rgb(to_hed(pixels)), pixels, atol=1e-6)


def test_stain_jitter_changes_each_stains_amount() -> None:
    torch.manual_seed(1)
    pixels = tissue(1)
    changed = augment(pixels, Augment(flips=False, stain=0.2))
    before, after = to_hed(pixels), to_hed(changed)
    inside = (changed.amin(1) > 0) & (changed.amax(1) < 255)  # not cut off at black or white
    assert inside.double().mean() > 0.5
    for stain in range(3):
        ratio = (after[:, stain] / before[:, stain])[inside]
        assert ratio.std() < 1e-3
        assert 0.8 <= float(ratio.mean()) <= 1.2
        assert abs(float(ratio.mean()) - 1) > 0.01
