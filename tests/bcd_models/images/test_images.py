"""Every format is opened alike; whatever can't be used is refused with its reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from bcd_models.errors import ImageError
from bcd_models.images.open import FORMATS, ImageLimits, image_paths, open_image, open_pixels
from tests.support import synthetic

PIXELS = synthetic.patch("malignant", seed=5)
PATCH = Image.fromarray(PIXELS)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: str) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_give_the_very_pixels(format: str, options: dict[str, object]) -> None:
    assert np.array_equal(np.asarray(open_image(encoded(PATCH, format, **options))), PIXELS)


def test_jpeg_is_close() -> None:
    opened = np.asarray(open_image(encoded(PATCH, "JPEG", quality=95)), dtype=int)
    assert np.abs(opened - PIXELS).mean() < 6


def test_planar_tiff_gives_the_very_pixels() -> None:
    planes = np.ascontiguousarray(np.moveaxis(PIXELS, 2, 0))
    data = tiff(planes, photometric="rgb", planarconfig="separate")
    assert np.array_equal(np.asarray(open_image(data)), PIXELS)


def test_every_way_in_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "patch.png"
    PATCH.save(path)
    data = path.read_bytes()
    with path.open("rb") as file:
        ways = [path, str(path), data, bytearray(data), file, PATCH, PIXELS]
        for way in ways:
            assert np.array_equal(np.asarray(open_image(way)), PIXELS)
            file.seek(0)
            assert np.array_equal(open_pixels(way), PIXELS)


@pytest.mark.parametrize("kind", [Image.fromarray, np.array], ids=["a PIL image", "an array"])
def test_what_is_opened_is_no_longer_the_caller_s(kind: Callable[..., Any]) -> None:
    theirs = kind(PIXELS)
    image, pixels = open_image(theirs), open_pixels(theirs)
    if isinstance(theirs, Image.Image):
        theirs.paste(0, (0, 0, *theirs.size))
    else:
        theirs[:] = 0
    assert np.array_equal(np.asarray(image), PIXELS)
    assert np.array_equal(pixels, PIXELS)


def test_16_bit_grey_keeps_its_upper_bits() -> None:
    grey = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    for data in (encoded(Image.fromarray(grey), "PNG"), tiff(grey), tiff(grey, byteorder=">")):
        assert np.array_equal(np.asarray(open_image(data))[..., 0], grey >> 8)


def test_16_bit_colour_keeps_its_upper_bits() -> None:
    deep = tiff(PIXELS.astype(np.uint16) * 256 + 255, photometric="rgb")
    assert np.array_equal(np.asarray(open_image(deep)), PIXELS)


def test_32_bit_values_are_refused() -> None:
    values = Image.fromarray(np.ones((40, 40), np.float32))
    with pytest.raises(ImageError, match="32-bit"):
        open_image(encoded(values, "TIFF"))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode: str) -> None:
    opened = open_image(PATCH.convert(mode))
    assert opened.mode == "RGB"
    assert opened.size == PATCH.size


def test_transparency_is_laid_on_white() -> None:
    clear = PATCH.convert("RGBA")
    clear.putalpha(0)
    assert np.asarray(open_image(encoded(clear, "PNG"))).min() == 255


def test_palette_transparency_is_laid_on_white() -> None:
    flat = Image.new("P", (32, 32), 0)
    flat.putpalette([10, 20, 30] * 256)
    assert np.asarray(open_image(encoded(flat, "PNG", transparency=0))).min() == 255


def test_cmyk_jpeg_keeps_its_colours() -> None:
    opened = np.asarray(open_image(encoded(PATCH.convert("CMYK"), "JPEG", quality=95)), dtype=int)
    assert np.abs(opened - PIXELS).mean() < 8


def test_exif_orientation_is_applied() -> None:
    wide = PATCH.resize((60, 30))
    exif = wide.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    assert open_image(encoded(wide, "JPEG", exif=exif)).size == (30, 60)


def profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_embedded_profile_is_converted(mode: str) -> None:
    image = PATCH.convert(mode)
    plain = np.asarray(image.convert("RGB"), dtype=int)
    same = np.asarray(open_image(encoded(image, "PNG", icc_profile=profile("sRGB"))), dtype=int)
    assert np.abs(same - plain).max() <= 1
    opened = open_image(encoded(image, "PNG", icc_profile=swapped_primaries()))
    assert np.abs(np.asarray(opened, dtype=int) - plain[..., [1, 0, 2]]).max() <= 1


def swapped_primaries() -> bytes:
    """A profile whose red is sRGB's green, and the other way round."""
    srgb = profile("sRGB")
    return srgb.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")


@pytest.mark.parametrize(
    ("mode", "unusable"), [("RGB", profile("LAB")), ("L", profile("sRGB")), ("RGB", b"no profile")]
)
def test_unusable_profile_is_refused(mode: str, unusable: bytes) -> None:
    with pytest.raises(ImageError, match="colour profile"):
        open_image(encoded(PATCH.convert(mode), "PNG", icc_profile=unusable))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"I am no picture.\n" * 40, "is not a PNG"),
        (b"%PDF-1.7\n" + bytes(400), "is not a PNG"),
        (encoded(PATCH, "GIF"), "is not a PNG"),
    ],
)
def test_unusable_bytes_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        open_image(data)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(format: str, kept: float) -> None:
    whole = encoded(PATCH, format)
    data = whole[: int(kept * len(whole))]
    with pytest.raises(ImageError, match="damaged or cut short"):
        open_image(data)
    with suppress(OSError):  # as a PIL image, where Pillow gets that far
        image = Image.open(io.BytesIO(data))
        with pytest.raises(ImageError, match="damaged or cut short"):
            open_image(image)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(format: str) -> None:
    data = encoded(PATCH, format, save_all=True, append_images=[PATCH.rotate(90)])
    with pytest.raises(ImageError, match="several frames"):
        open_image(data)


def test_size_is_checked_before_decoding() -> None:
    header_only = encoded(Image.new("1", (3000, 3000)), "PNG")[:60]
    with pytest.raises(ImageError, match="too large: 3000x3000"):
        open_image(header_only, ImageLimits(max_pixels=1_000_000))


def test_decompression_bomb_is_refused() -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 200_000
    with pytest.raises(ImageError, match="too large"):
        open_image(bomb)


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (15, 400)])
def test_slivers_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="too small"):
        open_image(Image.new("RGB", size))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((50, 50)), "shape"),
        (np.zeros((50, 50, 4), np.uint8), "shape"),
        (np.full((50, 50, 3), np.nan), "NaN"),
        (np.full((50, 50, 3), 0.5), "float64 with values from 0.5 to 0.5"),
        (np.full((50, 50, 3), 300), "values from 300 to 300"),
        (np.zeros((0, 50, 3), np.uint8), "too small"),
        (np.full((50, 50, 3), "x"), "must be uint8"),
        (None, "NoneType is no image"),
    ],
)
def test_unusable_arrays_are_refused(array: object, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        open_image(array)  # type: ignore[arg-type]


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="can't be read"):
        open_image("nul\0byte.png")
    with pytest.raises(ImageError, match="mode 'rb'"):
        open_image(io.StringIO("text"))  # type: ignore[arg-type]


def test_image_paths_finds_images_in_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", "deep/c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in image_paths(tmp_path)] == ["a.jpg", "b.PNG", "c.tif"]


WHOLE = [encoded(PATCH, f) for f in FORMATS]


def opens_or_refuses(data: bytes) -> None:
    with suppress(ImageError):
        assert open_image(data).mode == "RGB"


def mutated(whole: bytes, edits: list[tuple[float, int]], keep: float) -> bytes:
    data = bytearray(whole[: max(1, int(len(whole) * keep))])
    for where, value in edits:
        data[int(where * (len(data) - 1))] = value
    return bytes(data)


EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12)


@given(st.sampled_from(WHOLE), EDITS, st.floats(0.02, 1))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_open_or_are_refused(
    whole: bytes, edits: list[tuple[float, int]], keep: float
) -> None:
    opens_or_refuses(mutated(whole, edits, keep))


@pytest.mark.slow
@given(st.sampled_from(WHOLE), EDITS, st.floats(0.02, 1))
@settings(max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.filterwarnings("ignore")
def test_thousands_of_damaged_files(
    whole: bytes, edits: list[tuple[float, int]], keep: float
) -> None:
    opens_or_refuses(mutated(whole, edits, keep))
