"""Images analysed: as the library does, with what their scale makes of it, or refused by number."""

from __future__ import annotations

import pytest

from bcd_models import BCDClassifier
from bcd_models.errors import ImageError, InputError
from clinic.analysis.analyse import HandedIn, analyse, field_width
from clinic.analysis.models import Models
from tests.support.clinic import NAMES, PATCHES


def test_scale_is_said(small_models: Models) -> None:
    data = PATCHES[0].read_bytes()
    widths = (200, 101, 399, None, 50, 2000)
    said = analyse(small_models, [HandedIn(data, width) for width in widths], NAMES[:1])
    assert [len(one.warnings) for one in said] == [0, 0, 0, 1, 1, 1]
    assert "not known" in said[3].warnings[0]
    assert "2000 µm" in said[5].warnings[0]
    assert field_width(50, um_per_pixel=4) == 200
    assert field_width(50, um=180) == 180
    assert field_width(50) is None
    for wrong in ({"um": 1, "um_per_pixel": 1}, {"um": 0}, {"um": float("nan")}, {"um": 1e9}):
        with pytest.raises(InputError):
            field_width(50, **wrong)


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
