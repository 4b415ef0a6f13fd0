"""What colours alone say: the same numbers as scikit-image and scikit-learn give."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2hed

from bcd_models.images.colour_statistics import measure_colour, score_by_colour
from bcd_models.local.metrics import auroc


def draw(number: int, redness: np.ndarray) -> np.ndarray:
    """Draw noise whose red is as told, and its statistics."""
    rgb = np.random.default_rng(number).random((len(redness), 12, 12, 3), np.float32)
    rgb[..., 0] *= redness[:, None, None].astype(np.float32)
    return measure_colour(rgb * np.float32(255))


def test_the_stains_are_those_of_scikit_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 9, 7, 3)).astype(np.float32)
    pixels[0], pixels[1] = 0, 255
    rgb = pixels / np.float32(255)
    channels = np.concatenate([rgb, rgb2hed(rgb)], axis=3).reshape(4, -1, 6)
    found = measure_colour(pixels)
    assert found.shape == (4, 24)
    assert found[:, :6] == pytest.approx(channels.mean(1, dtype=np.float64), abs=1e-12)
    assert found[:, 6:12] == pytest.approx(channels.std(1, dtype=np.float64), abs=1e-12)


def test_flat_images_have_finite_statistics() -> None:
    assert np.isfinite(measure_colour(np.full((1, 5, 5, 3), 128, np.float32))).all()


def test_a_colour_that_tells_the_label_is_found_and_one_that_does_not_is_not() -> None:
    truth = np.arange(400) % 2 == 1
    learnt = draw(2, np.where(truth, 0.8, 1.0))
    asked = draw(3, np.where(truth, 0.8, 1.0))
    assert auroc(truth, score_by_colour(learnt, truth, asked)) > 0.99
    shuffled = np.random.default_rng(4).permutation(truth)
    chance = auroc(truth, score_by_colour(learnt, shuffled, asked))
    assert 0.2 < chance < 0.8
