"""Each way to store a slide: that it opens as what it says, at its scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bcd_models.slides.slide_file import open_slide
from training.study.slides import list_ways

WAYS = list(list_ways())


def test_every_storage_that_scanners_use_is_measured() -> None:
    words = [words for words, _, _ in WAYS]
    assert len(set(zip(words, [levels for _, levels, _ in WAYS], strict=True))) == len(WAYS)
    for kind in ("TIFF, lossless", "TIFF, JPEG 70, 4:2:0", "SVS-like", "DICOM"):
        assert any(one.startswith(kind) for one in words)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way[0]} {way[1]}")
def test_a_slide_opens_as_it_was_written(way, tmp_path: Path) -> None:
    _, levels, write = way
    picture = np.full((512, 768, 3), (200, 150, 190), np.uint8)
    slide = open_slide(write(tmp_path, picture, 1.0, levels))
    assert slide.level_downsamples == pytest.approx(levels)
    assert slide.dimensions == (768, 512)
    shown = np.asarray(slide.read_region((128, 128), 0, (64, 64)).convert("RGB"))
    assert np.abs(shown.astype(int) - picture[:64, :64]).max() <= 8  # JPEG's, of one colour
