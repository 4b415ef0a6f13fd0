"""A slide's pixels: their size, the levels they are kept in, what their colours mean."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from bcd_models import BCDClassifier, ImageError
from bcd_models.slides.prediction import SlidePrediction
from tests.bcd_models.slides.conftest import MPP
from tests.support.colour_profiles import profile, swapped_primaries
from tests.support.slides import (
    GLASS,
    TUMOUR,
    draw_layout,
    leave_out_tile,
    write_slide,
)
from training.study.pyramid import reduce
from training.study.scanners import write_dicom, write_svs

LEVELS = (1, 2, 8)


@pytest.mark.parametrize("said", [8.0, 0.5, (8.0, 3.0)])
def test_a_wrong_pixel_size_is_overridden(
    model: BCDClassifier,
    picture: np.ndarray,
    found: SlidePrediction,
    tmp_path: Path,
    said: float | tuple[float, float],
) -> None:
    path = write_slide(tmp_path / "wrong.tif", picture, said, LEVELS)
    given = model.predict_slide(path, mpp=MPP)
    np.testing.assert_allclose(given.probabilities, found.probabilities, atol=1e-5)


@pytest.mark.parametrize("mpp", [5.0, (2.5, 5.0)])
def test_a_coarse_slide_is_enlarged_and_says_so(
    model: BCDClassifier, layout: np.ndarray, tmp_path: Path, mpp: float | tuple[float, float]
) -> None:
    drawn = draw_layout(layout, 2.5, seed=3)
    across = 2 if mpp == 5.0 else 1
    coarse = np.asarray(Image.fromarray(drawn).reduce((across, 2)))
    path = write_slide(tmp_path / "coarse.tif", coarse, mpp, (1, 4))
    found = model.predict_slide(path, out=tmp_path)
    assert (found.tissue == (layout != GLASS)).all()
    assert (found.labelled == (layout == TUMOUR))[found.tissue].mean() > 0.8
    assert found.words.endswith("tissue, enlarged from 5 um a pixel")
    assert json.loads((tmp_path / "coarse-telling.json").read_text())["tiles"]["enlarged"]


def test_levels_in_another_order(
    model: BCDClassifier, picture: np.ndarray, found: SlidePrediction, tmp_path: Path
) -> None:
    path = write_slide(tmp_path / "order.tif", picture, MPP, (1, 8, 2))
    other = model.predict_slide(path)
    np.testing.assert_allclose(other.probabilities, found.probabilities, atol=1e-5)


def test_a_picture_of_another_shape_is_no_level(
    model: BCDClassifier, picture: np.ndarray, found: SlidePrediction, tmp_path: Path
) -> None:
    """A macro image that is marked as a level, red all over, which would be tissue."""
    path = write_slide(tmp_path / "macro.tif", picture, MPP, (1, 2))
    macro = np.zeros((200, 200, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    with tifffile.TiffWriter(path, append=True) as file:
        file.write(macro, tile=(256, 256), photometric="rgb", metadata=None, subfiletype=1)
    other = model.predict_slide(path)
    assert other.facts.levels[-1] == (200, 200)
    assert (other.tissue == found.tissue).all()
    np.testing.assert_allclose(other.probabilities, found.probabilities, atol=1e-5)


def test_what_was_not_stored_is_no_benign_tissue(
    model: BCDClassifier, picture: np.ndarray, found: SlidePrediction, tmp_path: Path
) -> None:
    """Pixels 512 to 768 across, 256 to 512 down: tiles wholly inside are rows 3 to 4, 6 to 6."""
    path = write_slide(tmp_path / "sparse.tif", picture, MPP, LEVELS)
    leave_out_tile(path, 0, 600, 300)
    other = model.predict_slide(path)
    assert [(one.row, one.column) for one in other.failed] == [(3, 6), (4, 6)]
    assert {one.reason for one in other.failed} == {"the slide holds no pixels here"}
    away = np.ones(found.tissue.shape, bool)
    away[2:6, 5:8] = False
    np.testing.assert_allclose(other.probabilities[away], found.probabilities[away], atol=1e-5)
    for level in (1, 2):  # the thumbnail's: what is stored nowhere is no tissue
        leave_out_tile(path, level, 600 // LEVELS[level], 300 // LEVELS[level])
    assert not model.predict_slide(path).failed


def write_tiff(folder: Path, picture: np.ndarray, icc: bytes) -> Path:
    return write_slide(folder / "s.tif", picture, MPP, LEVELS, profile=icc)


def write_lossless_svs(folder: Path, picture: np.ndarray, icc: bytes) -> Path:
    return write_svs(folder / "s.svs", picture, MPP, LEVELS, icc)


def write_jpeg_svs(folder: Path, picture: np.ndarray, icc: bytes) -> Path:
    return write_svs(folder / "s.svs", picture, MPP, LEVELS, icc, quality=95)


def write_series(folder: Path, picture: np.ndarray, icc: bytes) -> Path:
    return write_dicom(folder / "series", picture, MPP, LEVELS, icc)


@pytest.mark.parametrize(
    ("write", "off"),
    [(write_tiff, 0.01), (write_lossless_svs, 0.01), (write_jpeg_svs, 0.15), (write_series, 0.01)],
)
def test_colours_are_converted_by_the_slide_s_profile(
    model: BCDClassifier,
    picture: np.ndarray,
    found: SlidePrediction,
    tmp_path: Path,
    write: Callable[[Path, np.ndarray, bytes], Path],
    off: float,
) -> None:
    """The same tissue in other colours, with the profile that says so."""
    path = write(tmp_path, picture[..., [1, 0, 2]], swapped_primaries())
    other = model.predict_slide(path)
    assert (other.tissue == found.tissue).all()
    assert other.probabilities == pytest.approx(found.probabilities, abs=off, nan_ok=True)
    assert np.abs(other.thumbnail.astype(int) - found.thumbnail).max() <= (1 if off < 0.1 else 8)
    said = [one.to_dict()["slide"]["colours"] for one in (found, other)]
    assert said == ["as stored", "converted to sRGB"]


def test_a_patch_with_the_slide_s_profile_is_answered_alike(
    model: BCDClassifier, picture: np.ndarray, found: SlidePrediction
) -> None:
    row, column = 4, 5
    at_4_um = Image.fromarray(reduce(picture, 2)[..., [1, 0, 2]])
    patch = io.BytesIO()
    box = (column * 50, row * 50, column * 50 + 50, row * 50 + 50)
    at_4_um.crop(box).save(patch, "PNG", icc_profile=swapped_primaries())
    answer = model.predict(patch.getvalue())
    assert answer.probability == pytest.approx(found.probabilities[row, column], abs=0.02)


@pytest.mark.parametrize("unusable", [b"no profile", profile("LAB")])
def test_an_unusable_profile_is_refused(
    model: BCDClassifier, picture: np.ndarray, tmp_path: Path, unusable: bytes
) -> None:
    path = write_slide(tmp_path / "s.tif", picture, MPP, profile=unusable)
    with pytest.raises(ImageError, match=r"s\.tif has a colour profile that can't be used"):
        model.predict_slide(path)
