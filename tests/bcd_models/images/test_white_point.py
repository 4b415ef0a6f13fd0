"""Glass is found by its look, tissue is never taken for it, and a lamp's tint is divided out."""

from __future__ import annotations

import numpy as np
import pytest

from bcd_models.errors import InputError
from bcd_models.images.white_point import divide_white, estimate_white
from tests.support import synthetic

FIELD = synthetic.tissue(seed=3, size=(480, 320), mpp=1.0, malignant=True, slide_background=0.3)
TINTS = {
    "none": (1.0, 1.0, 1.0),
    "warm": (1.0, 0.95, 0.86),
    "cool": (0.87, 0.95, 1.0),
    "green": (0.9, 1.0, 0.92),
    "dim": (0.8, 0.8, 0.8),
}


def tinted(pixels: np.ndarray, tint: tuple[float, float, float]) -> np.ndarray:
    return np.rint(pixels * np.array(tint)).astype(np.uint8)


@pytest.mark.parametrize("tint", TINTS.values(), ids=TINTS)
def test_a_tint_is_divided_out(tint: tuple[float, float, float]) -> None:
    white, plain = estimate_white(tinted(FIELD, tint)), estimate_white(FIELD)
    assert white is not None
    assert plain is not None
    assert white == pytest.approx(plain * tint, abs=1.5)
    corrected = divide_white(tinted(FIELD, tint), white).astype(int)
    assert np.abs(corrected - divide_white(FIELD, plain)).max() <= 4
    glass = FIELD.min(axis=2) > 235
    assert glass.mean() > 0.1
    assert np.median(corrected[glass], axis=0) == pytest.approx(255, abs=1.5)


@pytest.mark.parametrize("seed", range(4))
def test_a_patch_without_glass_has_no_white(seed: int) -> None:
    for pixels, width_um in ((50, 200), (100, 400), (200, 200), (320, 160)):
        size = (pixels, pixels)
        tumour = synthetic.patch("malignant", seed, pixels=size, width_um=width_um)
        assert estimate_white(tumour) is None


@pytest.mark.parametrize(
    "colour",
    [
        *[(190, 150, 115), (222, 190, 160), (150, 105, 70)],  # brown, as of DAB
        *[(235, 190, 215), (240, 214, 226), (232, 222, 228)],  # pink
        *[(175, 185, 225), (190, 180, 222), (205, 200, 225)],  # blue
        *[(90, 90, 90), (160, 160, 160), (0, 0, 0)],  # shadow, pigment, what no scanner saw
    ],
)
def test_no_tissue_s_colour_is_taken_for_glass(colour: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).normal(0, 1.6, (160, 160, 3))
    smooth = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    assert estimate_white(smooth) is None


def test_faint_tissue_does_not_darken_the_white() -> None:
    pixels = np.full((160, 160, 3), 245, np.uint8)
    pixels[:100] = (222, 221, 223)
    assert estimate_white(pixels) == pytest.approx([245, 245, 245])


def test_too_little_glass_is_none() -> None:
    tissue = synthetic.tissue(seed=1, size=(400, 400), mpp=1.0, malignant=True)
    tissue[:32, :24] = 245
    assert estimate_white(tissue) is None
    tissue[:96, :96] = 245
    assert estimate_white(tissue) == pytest.approx([245, 245, 245], abs=2)
    assert estimate_white(np.full((24, 24, 3), 245, np.uint8)) is None
    assert estimate_white(np.full((4, 4, 3), 245, np.uint8)) is None


def test_texture_is_no_glass() -> None:
    noise = np.random.default_rng(0).integers(200, 256, (160, 160, 1)).astype(np.uint8)
    assert estimate_white(np.repeat(noise, 3, axis=2)) is None


def test_division_is_clipped_and_leaves_its_input() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = np.dstack([every] * 3)
    kept = pixels.copy()
    divided = divide_white(pixels, np.array([255.0, 127.5, 200.0]))
    assert np.array_equal(divided[..., 0], every)
    assert np.array_equal(divided[..., 1], np.minimum(2 * every.astype(int), 255))
    assert np.abs(divided[..., 2] - np.minimum(every * 1.275, 255)).max() <= 0.501
    assert np.array_equal(pixels, kept)
    divided[:] = 0  # in memory of its own


@pytest.mark.parametrize("white", [[0.0, 255, 255], [255, -1, 255], [255, np.nan, 255], [255, 255]])
def test_a_white_that_is_none_is_refused(white: list[float]) -> None:
    with pytest.raises(InputError, match="three numbers above 0"):
        divide_white(FIELD, np.array(white))
