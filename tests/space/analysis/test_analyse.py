"""Images analysed: as the library does, with what their scale makes of it, or refused by number."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.errors import ImageError, InputError
from clinic.analysis.analyse import HandedIn, analyse, explain, hand_in, predict
from clinic.analysis.models import Models
from tests.support.clinic import NAMES, PATCHES


def drawn(width: int, height: int, **options: object) -> bytes:
    """A PNG of drawn tissue, side by side."""
    with Image.open(PATCHES[0]) as patch:
        times = (-(-height // patch.height), -(-width // patch.width), 1)
        pixels = np.tile(np.asarray(patch.convert("RGB")), times)[:height, :width]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_an_image_s_own_scale_unless_another_is_given(small_models: Models) -> None:
    data = drawn(200, 100, dpi=(12_700, 12_700))  # 2 micrometres a pixel
    handed_in = [HandedIn(data), HandedIn(data, 4), HandedIn(drawn(200, 100))]
    said = analyse(small_models, handed_in, NAMES)
    assert [one.field_width_um for one in said] == [pytest.approx(400, rel=0.01), 800, None]
    for name in NAMES:
        answers = [one.explanations[name].prediction for one in said]
        assert [one.scale for one in answers] == ["PNG pHYs", "given", "unknown"]
        assert [one.tiles for one in answers] == [2, 8, 1]
        assert [one.decision == "refer" for one in answers][1:] == [False, True]
        assert [one.warnings for one in said] == [(), (), answers[2].reasons[:1]]


def test_what_is_too_small_or_too_coarse_is_said(small_models: Models) -> None:
    handed_in = [HandedIn(PATCHES[0].read_bytes(), mpp) for mpp in (None, 4, 2.9, 7)]
    said = analyse(small_models, handed_in, NAMES[:1])
    assert [len(one.warnings) for one in said] == [0, 0, 1, 1]
    assert "larger field" in said[2].warnings[0]
    assert "too coarse" in said[3].warnings[0]


def test_a_scale_is_given_once_and_is_a_microscope_s() -> None:
    data = PATCHES[0].read_bytes()
    assert hand_in(data) == HandedIn(data)
    assert hand_in(data, 0.5).mpp == 0.5
    assert hand_in(data, field_width_um=180).mpp == 3.6
    for wrong in ((4, 200), (0,), (float("nan"),), (21,), (None, 1e9), (None, -1)):
        with pytest.raises(InputError):
            hand_in(data, *wrong)


def test_a_large_field_s_map_is_no_larger_than_it_is_shown(small_models: Models) -> None:
    (one,) = analyse(small_models, [HandedIn(drawn(1600, 1000), 0.5)], NAMES[:1])
    said = one.explanations[NAMES[0]]
    assert said.prediction.tiles == 12
    assert said.image.size == (1600, 1000)
    assert said.heatmap.shape == (500, 800)
    assert 0 <= said.heatmap.min() < said.heatmap.max() <= 1


@pytest.mark.parametrize(("size", "mpp"), [((2300, 2300), 4), ((4600, 4600), 2)])
def test_more_tiles_than_are_analysed_here_are_refused(
    small_models: Models, size: tuple[int, int], mpp: float | None
) -> None:
    one, model = HandedIn(drawn(*size), mpp), small_models.load(NAMES[0])
    for call in (predict, explain):
        with pytest.raises(ImageError, match="cut out the region of interest"):
            call(model, one)
    with pytest.raises(ImageError, match=r"image 1: .*at most 2,000"):
        analyse(small_models, [one], NAMES)


def test_what_can_not_be_analysed(small_models: Models) -> None:
    good = HandedIn(PATCHES[0].read_bytes())
    with pytest.raises(ImageError, match="image 2: "):
        analyse(small_models, [good, HandedIn(b"no image")], NAMES)
    for images, names in (
        ([], NAMES),
        ([good] * 17, NAMES),
        ([good], []),
        ([good], ["a", "a"]),
        ([good], ["x"]),
    ):
        with pytest.raises(InputError):
            analyse(small_models, images, names)


def test_the_models_are_the_library_s(small_models: Models) -> None:
    assert all(isinstance(small_models.load(name), BCDClassifier) for name in NAMES)
