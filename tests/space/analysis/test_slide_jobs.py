"""Slides that a doctor tries in the app: what the library says of them, and nothing left."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bcd_models import BCDClassifier
from bcd_models.errors import ImageError, InputError
from bcd_models.prediction import NOTICE
from clinic.analysis import slide_jobs as slides
from clinic.storage.actor import Actor, NotAllowed, NotSignedIn
from tests.support.running_app import POINTS
from tests.support.slides import BENIGN, SMALL_MPP, draw_layout, small_slides, write_slide

DOCTOR = Actor(1, "ada", "doctor", "10.0.0.1")
ADMIN = Actor(2, "admin", "admin", "10.0.0.1")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return small_slides(tmp_path_factory.mktemp("slides"))


@pytest.fixture(scope="module")
def slide(drawn: dict[str, Path]) -> Path:
    return drawn["sized"]


@pytest.fixture(scope="module")
def unsized(drawn: dict[str, Path]) -> bytes:
    """A slide that doesn't say how large its pixels are."""
    return drawn["unsized"].read_bytes()


@pytest.fixture(scope="module")
def model(telling: Path) -> BCDClassifier:
    loaded = BCDClassifier.from_pretrained(telling)
    loaded.runtime = "torch"
    return loaded


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where slides lie for the moment: empty afterwards, whatever happened."""
    made = tmp_path / "own"
    made.mkdir()
    yield made
    assert list(made.iterdir()) == []


def test_what_it_says_of_itself(slide: Path, folder: Path) -> None:
    seen = slides.inspect_slide(DOCTOR, slide.read_bytes(), None, folder)
    assert (seen.width, seen.height) == (18 * 50, 14 * 50)
    assert (seen.mpp_x, seen.mpp_given) == (pytest.approx(SMALL_MPP), False)
    assert slides.inspect_slide(DOCTOR, slide.read_bytes(), 2.0, folder).mpp_given


def test_the_map_is_the_library_s(slide: Path, model: BCDClassifier, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    found = slides.map_slide(
        DOCTOR, model, slide.read_bytes(), None, folder, lambda *done: told.append(done)
    )
    expected = model.predict_slide(slide)
    assert np.array_equal(found.prediction.probabilities, expected.probabilities, equal_nan=True)
    assert told[0] == (0, told[-1][1])
    assert told[-1][0] == told[-1][1] == expected.predicted
    with zipfile.ZipFile(io.BytesIO(found.files)) as archive:
        assert sorted(archive.namelist()) == [
            f"slide-telling{kind}" for kind in (".geojson", ".json", ".parquet", ".png")
        ]
        summary = json.loads(archive.read("slide-telling.json"))
    assert summary["words"] == expected.words
    assert summary["notice"] == NOTICE
    assert summary["slide"]["name"] == "slide"  # the user's name for it is not known here


def test_a_small_slide_is_a_picture_too(model: BCDClassifier, folder: Path, tmp_path: Path) -> None:
    """Which a doctor could examine, and would have seen answers about."""
    pixels = draw_layout(np.full((2, 2), BENIGN), 4.0)
    slide = write_slide(tmp_path / "small.tif", pixels, 4.0, (1, 4))
    found = slides.map_slide(DOCTOR, model, slide.read_bytes(), None, folder)
    assert found.picture
    assert np.array_equal(np.asarray(found.picture), pixels)


def test_the_operating_point_decides_on_its_tiles_too(
    telling: Path, folder: Path, tmp_path: Path
) -> None:
    model = BCDClassifier.from_pretrained(telling)
    rule = model.config.for_tiles.model_copy(update={"points": POINTS})
    model.config = model.config.model_copy(update={"decision": rule, "tile_decision": None})
    drawn = draw_layout(np.full((2, 2), BENIGN), 4.0)
    data = write_slide(tmp_path / "small.tif", drawn, 4.0, (1, 4)).read_bytes()
    found = slides.map_slide(DOCTOR, model, data, None, folder, point="none").prediction
    assert (found.point, found.tiles("benign")) == ("none", found.predicted)
    assert "(none) the model missed 75 of 100 carcinoma patches" in found.missed_words
    assert found.to_dict()["model"]["point"] == "none"
    found = slides.map_slide(DOCTOR, model, data, None, folder, point="all").prediction
    assert (found.point, found.rule.threshold) == ("all", 0.001)
    with pytest.raises(InputError, match="no operating point 'screening'"):
        slides.map_slide(DOCTOR, model, data, None, folder, point="screening")


def test_it_is_a_doctor_s(slide: Path, model: BCDClassifier, folder: Path) -> None:
    data = slide.read_bytes()
    for who, error in ((None, NotSignedIn), (ADMIN, NotAllowed)):
        with pytest.raises(error):
            slides.inspect_slide(who, data, None, folder)
        with pytest.raises(error):
            slides.map_slide(who, model, data, None, folder)


def text(_: bytes) -> bytes:
    return b"no slide"


def cut_short(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def list_of_files(_: bytes) -> bytes:
    return b"[Virtual Microscope Specimen]\nImageFile=/etc/passwd\nMapFile=/etc/shadow\n"


def database(_: bytes) -> bytes:
    return b"SQLite format 3\0" + bytes(4096)


@pytest.mark.parametrize("spoilt", [text, cut_short, list_of_files, database])
def test_what_is_no_slide_is_refused_without_a_path(
    slide: Path, folder: Path, spoilt: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(ImageError, match=r"^the file is ") as told:
        slides.inspect_slide(DOCTOR, spoilt(slide.read_bytes()), None, folder)
    assert str(folder) not in str(told.value)


def test_the_pixel_size_is_asked_for(unsized: bytes, model: BCDClassifier, folder: Path) -> None:
    with pytest.raises(ImageError, match="type the micrometres of a pixel"):
        slides.map_slide(DOCTOR, model, unsized, None, folder)
    assert slides.inspect_slide(DOCTOR, unsized, SMALL_MPP, folder).mpp_x == SMALL_MPP
    for absurd in (0.01, 21.0, float("nan")):
        with pytest.raises(InputError, match=r"must be between 0\.05 and 20"):
            slides.inspect_slide(DOCTOR, unsized, absurd, folder)


def test_large_ones_are_for_the_command(
    slide: Path, unsized: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as smaller:
        smaller.setattr(slides, "MAX_MM2", 80)  # it shows 64 mm² at 10 µm, 10 at 4 µm
        assert slides.inspect_slide(DOCTOR, unsized, 10.0, folder)
        smaller.setattr(slides, "MAX_MM2", 60)
        with pytest.raises(ImageError, match=r"63 mm², more than the 60 .* bcd slide"):
            slides.inspect_slide(DOCTOR, unsized, 10.0, folder)
    monkeypatch.setattr(slides, "MAX_PIXELS", 900 * 700 - 1)
    with pytest.raises(ImageError, match=r"900 x 700 pixels, more than .* bcd slide"):
        slides.inspect_slide(DOCTOR, slide.read_bytes(), None, folder)
