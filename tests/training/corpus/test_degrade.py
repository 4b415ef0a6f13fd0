"""Degradations in training: how many, how strong, and drawn alike whoever draws them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bcd_models.local import degradations as d
from tests.support import synthetic
from training.corpus import degrade as degrading
from training.corpus.degrade import OPERATIONS, degrade, degrade_rows, work_ahead
from training.corpus.device import to_uint8
from training.recipes.schema import MAX_STRENGTHS, Degrade

FULL = Degrade(
    scale=0.25,
    stain=0.2,
    hue=0.05,
    brightness=0.25,
    contrast=0.25,
    gamma=0.25,
    blur=1.2,
    resampling=0.5,
    noise=10,
    sharpening=1,
    jpeg=30,
)
PATCHES = np.stack([synthetic.patch("malignant", seed=i) for i in range(6)])


def seeds(epoch: int = 0) -> list[tuple[int, ...]]:
    return [(7, epoch, place) for place in range(len(PATCHES))]


def test_every_strength_of_a_recipe_is_an_operation() -> None:
    own = [name for name in Degrade.model_fields if name not in ("spared", "strength")]
    assert list(OPERATIONS) == own == list(FULL.list_strengths())
    assert not Degrade().is_on
    assert FULL.is_on


def test_strengths_are_multiplied_by_the_common_one() -> None:
    assert Degrade(blur=1.2, noise=10).list_strengths() == {"blur": 1.2, "noise": 10}
    assert Degrade(jpeg=30).list_strengths() == {"jpeg": 68}  # below the highest quality, 98
    half = FULL.model_copy(update={"strength": 0.5}).list_strengths()
    for name, value in FULL.list_strengths().items():
        assert half[name] == pytest.approx(value / 2), name
    assert not Degrade(strength=2).is_on
    for strength in (0, 2.5):
        with pytest.raises(ValidationError, match="strength"):
            Degrade(strength=strength)


def test_no_common_strength_takes_a_way_beyond_what_it_can_do() -> None:
    strongest = Degrade(
        strength=2, hue=0.4, stain=0.8, brightness=0.8, contrast=0.8, resampling=0.8, jpeg=20
    )
    assert strongest.list_strengths() == {
        "stain": 0.9,
        "hue": 0.5,
        "brightness": 0.9,
        "contrast": 0.9,
        "resampling": 0.9,
        "jpeg": 93,
    }
    assert strongest.list_strengths() == MAX_STRENGTHS
    own = Degrade(brightness=0.95, jpeg=2)  # what a recipe says itself is done as it says
    assert own.list_strengths() == {"brightness": 0.95, "jpeg": 96}
    twice = own.model_copy(update={"strength": 2.0})
    assert twice.list_strengths() == own.list_strengths()
    for seed in range(60):
        pixels = degrade(PATCHES[0], strongest, np.random.default_rng(seed))
        assert pixels.shape == PATCHES[0].shape


def test_a_common_strength_reaches_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(d, "blur", lambda pixels, sigma: asked.append(sigma) or pixels)
    for strength in (0.5, 1.6):
        asked.clear()
        blurring = Degrade(spared=0, blur=1.0, strength=strength)
        for seed in range(200):
            degrade(PATCHES[0], blurring, np.random.default_rng(seed))
        assert 0.9 * strength < max(asked) <= strength


def test_one_or_two_in_order_and_some_patches_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def note(name: str):
        return lambda pixels, *_: done.append(name) or pixels

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, note(name))
    drawn = []
    for seed in range(2000):
        done.clear()
        degrade(PATCHES[0], FULL, np.random.default_rng(seed))
        drawn.append(tuple(done))
        assert list(done) == [name for name in OPERATIONS if name in done]
    counts = np.bincount([len(names) for names in drawn])
    assert counts / 2000 == pytest.approx([0.2, 0.4, 0.4], abs=0.05)
    often = {name: sum(name in names for names in drawn) for name in OPERATIONS}
    jpeg = often.pop("jpeg")
    assert min(often.values()) > 100
    assert jpeg > 2 * max(often.values())


def test_strengths_stay_within_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {
        "zoom": (0.8, 1.25),
        "scale_stains": (0.8, 1.2),
        "shift_hue": (-0.05, 0.05),
        "scale_brightness": (0.75, 1.25),
        "scale_contrast": (0.75, 1.25),
        "apply_gamma": (0.8, 1.25),
        "blur": (0, 1.2),
        "resample": (0.5, 1),
        "add_noise": (0, 10),
        "sharpen": (0, 1),
        "compress_as_jpeg": (30, 98),
    }
    asked: dict[str, list[tuple]] = {}

    def note(name: str):
        return lambda pixels, *rest: asked.setdefault(name, []).append(rest) or pixels

    for name in ends:
        monkeypatch.setattr(d, name, note(name))
    for name, operation in OPERATIONS.items():
        for seed in range(300):
            operation(PATCHES[0], FULL.list_strengths()[name], np.random.default_rng(seed))
    first = {name: [call[0] for call in asked[name]] for name in ends}
    for name, (low, high) in ends.items():
        near = 0.1 * (high - low)
        assert low <= min(first[name]) < low + near
        assert high - near < max(first[name]) <= high
    assert {call[1] for call in asked["compress_as_jpeg"]} == {"4:4:4", "4:2:0"}
    assert {call[1] for call in asked["resample"]} == set(d.KERNELS)


def test_a_seed_decides_a_patch_wherever_it_lies() -> None:
    whole = degrade_rows([(slice(None), to_uint8(PATCHES))], FULL, seeds())[0][1]
    apart = degrade_rows(
        [(here, to_uint8(PATCHES[here])) for here in (np.array([4, 1]), np.array([0, 2, 3, 5]))],
        FULL,
        seeds(),
    )
    for here, pixels in apart:
        assert torch.equal(pixels, whole[torch.as_tensor(here)])
    other = degrade_rows([(slice(None), to_uint8(PATCHES))], FULL, seeds(epoch=1))[0][1]
    assert not torch.equal(whole, other)
    assert whole.shape == other.shape


@pytest.mark.parametrize("threads", [1, 4])
def test_work_ahead_keeps_the_order_and_does_not_run_away(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(degrading, "_THREADS", threads)
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield number

    def act(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    done = work_ahead(act, numbers())
    for number in range(40):
        assert next(done) == number * number
        assert taken <= number + 10


def test_what_fails_ahead_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(work_ahead(lambda number: 1 // number, [2, 1, 0]))
