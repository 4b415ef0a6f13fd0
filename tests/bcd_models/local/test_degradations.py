"""Operations on pixels against values worked out by hand, and against the libraries'."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.color import hsv2rgb, rgb2hed, rgb2hsv
from torchvision.transforms.v2 import functional

from bcd_models.local import degradations as d
from bcd_models.local.degradations import Pixels
from bcd_models.local.ladder import LADDER
from tests.support import synthetic

PATCH = synthetic.patch("malignant", seed=1)


def furthest(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.name)
def test_a_rung_keeps_the_shape_and_the_original(rung) -> None:
    before = PATCH.copy()
    degraded = rung.apply(PATCH, np.random.default_rng(0))
    assert (degraded.shape, degraded.dtype) == (PATCH.shape, np.uint8)
    assert np.array_equal(PATCH, before)
    assert not np.array_equal(degraded, PATCH)


@pytest.mark.parametrize(
    "act",
    [
        lambda p: d.blur(p, 0.0),
        lambda p: d.sharpen(p, 0.0),
        lambda p: d.resample(p, 1.0),
        lambda p: d.zoom(p, 1.0),
        d.scale_stains,
        lambda p: d.shift_hue(p, 0.0),
        lambda p: d.scale_brightness(p, 1.0),
        lambda p: d.scale_contrast(p, 1.0),
        lambda p: d.scale_saturation(p, 1.0),
        lambda p: d.apply_gamma(p, 1.0),
        lambda p: d.shift_white_balance(p, 1.0, 1.0),
        lambda p: d.defocus(p, 0.25),
    ],
)
def test_no_strength_changes_nothing(act: Callable[[Pixels], Pixels]) -> None:
    assert furthest(act(PATCH), PATCH) == 0


def test_jpeg_loses_more_at_lower_quality_and_with_subsampled_colour() -> None:
    def lost(quality: int, subsampling: d.Subsampling) -> float:
        degraded = d.compress_as_jpeg(PATCH, quality, subsampling)
        return float(np.abs(degraded.astype(float) - PATCH).mean())

    assert 0 < lost(95, "4:4:4") < lost(60, "4:4:4") < lost(60, "4:2:0")


def test_noise_has_the_deviation_asked_for() -> None:
    grey = np.full((100, 100, 3), 128, np.uint8)
    noisy = d.add_noise(grey, 5, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(5, rel=0.03)
    assert np.array_equal(noisy, d.add_noise(grey, 5, np.random.default_rng(0)))


def test_blur_and_defocus_spread_a_point() -> None:
    point = np.zeros((21, 21, 3), np.uint8)
    point[10, 10] = 255
    disk = d.defocus(point, 2)[..., 0]
    assert disk[10, 9] == disk[10, 10] == disk[11, 10] > disk[10, 8] > 0
    assert disk[10, 13] == disk[8, 8] == 0
    away = np.arange(21) - 10
    width = (d.blur(point, 1.5)[10, :, 0] @ away**2) / d.blur(point, 1.5)[10, :, 0].sum()
    assert width**0.5 == pytest.approx(1.5, rel=0.1)


def test_sharpening_overshoots_at_an_edge() -> None:
    edge = np.full((20, 20, 3), 100, np.uint8)
    edge[:, 10:] = 150
    sharp = d.sharpen(edge, 1.0)
    assert sharp[10, 9, 0] < 100
    assert sharp[10, 10, 0] > 150
    assert sharp[10, 0, 0] == 100


def test_zoom_shows_the_middle_larger_and_mirrors_what_is_lacking() -> None:
    ramp = np.broadcast_to(np.arange(0, 200, 4, dtype=np.uint8)[None, :, None], (50, 50, 3))
    larger, smaller = d.zoom(ramp, 1.25), d.zoom(ramp, 0.8)
    assert larger[25, 25, 0] == pytest.approx(int(ramp[25, 25, 0]), abs=4)
    assert int(larger[25, 45, 0]) - larger[25, 5, 0] == pytest.approx(160 / 1.25, abs=3)
    assert int(smaller[25, 40, 0]) - smaller[25, 10, 0] == pytest.approx(120 / 0.8, abs=3)
    assert np.array_equal(smaller[:, :5], smaller[:, 5:10][:, ::-1])


def test_stains_change_by_their_factors() -> None:
    changed = d.scale_stains(PATCH, haematoxylin=1.2, eosin=0.8)
    inside = ((changed > 0) & (changed < 255)).all(-1)
    before, after = (rgb2hed(pixels)[inside] for pixels in (PATCH, changed))
    for stain, factor in ((0, 1.2), (1, 0.8)):
        # Where there is most of it, rounding to whole values counts for little.
        much = before[:, stain] > np.quantile(before[:, stain], 0.9)
        assert np.median(after[much, stain] / before[much, stain]) == pytest.approx(
            factor, rel=0.05
        )


def test_hue_turns_as_in_hsv() -> None:
    turned = rgb2hsv(PATCH)
    turned[..., 0] = (turned[..., 0] + 0.03) % 1
    assert furthest(d.shift_hue(PATCH, 0.03), np.rint(255 * hsv2rgb(turned)).astype(int)) <= 1


@pytest.mark.parametrize("turns", [-0.5, -0.05, -0.02, 0.03, 0.3])
def test_hue_is_torchvision_s(turns: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    noise[:8] = noise[:8, :, :1]  # grey, of which no hue is known
    for pixels in (PATCH, noise):
        theirs = functional.adjust_hue(torch.from_numpy(pixels).permute(2, 0, 1), turns)
        ours = d.shift_hue(pixels, turns)
        assert (ours == theirs.permute(1, 2, 0).numpy()).mean() > 0.999
        assert furthest(ours, theirs.permute(1, 2, 0).numpy()) <= 1


def test_light_and_colour_by_hand() -> None:
    two = np.array([[[100, 100, 100], [200, 200, 200]]], np.uint8)
    assert d.scale_brightness(two, 1.5)[0, :, 0].tolist() == [150, 255]
    assert d.scale_contrast(two, 0.5)[0, :, 0].tolist() == [125, 175]
    assert d.apply_gamma(two, 2.0)[0, :, 0].tolist() == [39, 157]
    assert d.shift_white_balance(two, 1.1, 0.9)[0, 0].tolist() == [110, 100, 90]
    red = np.array([[[200, 100, 100]]], np.uint8)  # of luma 129.9
    assert d.scale_saturation(red, 0.5)[0, 0].tolist() == [165, 115, 115]
