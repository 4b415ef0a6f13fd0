"""The same tissue gives the same 8-bit sRGB pixels however a file stores it, or a refusal."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from bcd_models.errors import ImageError
from bcd_models.images.open import open_image
from tests.support import synthetic

PIXELS = synthetic.patch("malignant", seed=5, pixels=(64, 48), width_um=100)
PATCH = Image.fromarray(PIXELS)
GREY = np.array(PATCH.convert("L"))
AS_GREY = np.dstack([GREY] * 3)
BLACK_AND_WHITE = np.dstack([(GREY >= 180) * np.uint8(255)] * 3)
DEEP, DEEP_GREY = PIXELS.astype(np.uint16) * 257, GREY.astype(np.uint16) * 257
OPAQUE = np.full(GREY.shape, 65535, np.uint16)
MAX_SAMPLE_VALUE, S_MAX_SAMPLE_VALUE = 281, 341
THUMBNAIL, PANORAMA, DISPARITY, UNDEFINED = 0x010001, 0x020001, 0x020002, 0


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, photometric: str = "minisblack", **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric=photometric, metadata=None, **options)
    return buffer.getvalue()


def png(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16-bit values: no writer that the tests have makes one of colour."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def packed_to_12_bits(grey: np.ndarray) -> bytes:
    """A TIFF of 12 bits a value, two values in three bytes."""
    first, second = (grey.astype(np.uint16) << 4).reshape(-1, 2).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
    buffer = io.BytesIO(tiff(packed.astype(np.uint8).reshape(len(grey), -1)))
    with tifffile.TiffFile(buffer, mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(grey.shape[1])
        file.pages[0].tags["BitsPerSample"].overwrite(12)
    return buffer.getvalue()


def largest(value: int, tag: int = MAX_SAMPLE_VALUE) -> dict[str, Any]:
    return {"extratags": [(tag, "H", 1, value, True)]}


def difference(data: bytes | Image.Image, right: np.ndarray) -> int:
    opened = open_image(data)
    assert opened.mode == "RGB"
    return int(np.abs(np.asarray(opened, int) - right).max())


@pytest.mark.parametrize(
    ("data", "right"),
    [
        (tiff(DEEP, "rgb"), PIXELS),
        (tiff(DEEP, "rgb", byteorder=">"), PIXELS),
        (tiff(DEEP, "rgb", compression="zlib", predictor=True), PIXELS),
        (tiff(DEEP, "rgb", tile=(32, 32)), PIXELS),
        (tiff(np.dstack([DEEP, OPAQUE]), "rgb", extrasamples=["unassalpha"]), PIXELS),
        (tiff(np.moveaxis(DEEP, 2, 0), "rgb", planarconfig="separate", compression="zlib"), PIXELS),
        (tiff(np.moveaxis(PIXELS, 2, 0), "rgb", planarconfig="separate"), PIXELS),
        (png(DEEP), PIXELS),
        (png(np.dstack([DEEP, OPAQUE])), PIXELS),
        (tiff(DEEP_GREY), AS_GREY),
        (tiff(DEEP_GREY, byteorder=">", compression="zlib"), AS_GREY),
        (png(DEEP_GREY), AS_GREY),
        (png(np.dstack([DEEP_GREY, OPAQUE])), AS_GREY),
        (encoded(Image.fromarray(DEEP_GREY), "PNG"), AS_GREY),
        (encoded(Image.fromarray(DEEP_GREY), "TIFF", compression="tiff_lzw"), AS_GREY),
        (tiff(65535 - DEEP_GREY, "miniswhite"), AS_GREY),
        (tiff(65535 - DEEP_GREY, "miniswhite", compression="zlib"), AS_GREY),
        (tiff(255 - GREY, "miniswhite"), AS_GREY),
        (tiff(255 - GREY, "miniswhite", compression="zlib"), AS_GREY),
        (tiff(GREY < 180, "miniswhite"), BLACK_AND_WHITE),
        (tiff(GREY < 180, "miniswhite", byteorder=">"), BLACK_AND_WHITE),
        (tiff(GREY >= 180), BLACK_AND_WHITE),
        (tiff(DEEP_GREY >> 4, **largest(4095)), AS_GREY),
        (tiff(DEEP_GREY >> 4, **largest(4095, S_MAX_SAMPLE_VALUE)), AS_GREY),
        (tiff(DEEP_GREY >> 2, **largest(16383)), AS_GREY),
        (tiff(DEEP_GREY >> 8, **largest(255)), AS_GREY),
        (tiff(4095 - (DEEP_GREY >> 4), "miniswhite", **largest(4095)), AS_GREY),
        (packed_to_12_bits(GREY), AS_GREY),
        (tiff(np.dstack([255 - PIXELS, np.zeros_like(GREY)]), "separated"), PIXELS),
    ],
)
def test_every_depth_gives_the_same_pixels(data: bytes, right: np.ndarray) -> None:
    assert difference(data, right) <= 1
    with Image.open(io.BytesIO(data)) as opened:
        assert difference(opened, right) <= 1


@pytest.mark.parametrize(
    "data",
    [
        tiff(DEEP >> 4, "rgb"),
        tiff(DEEP >> 4, "rgb", extratags=[(MAX_SAMPLE_VALUE, "H", 3, (4095,) * 3, True)]),
        tiff(DEEP >> 2, "rgb", compression="zlib"),
        tiff(np.dstack([DEEP >> 4, OPAQUE]), "rgb", extrasamples=["unassalpha"]),
        png(DEEP >> 8),
        png(np.dstack([DEEP_GREY >> 4, OPAQUE])),
        tiff(DEEP_GREY >> 4),
        tiff(DEEP_GREY >> 8),
        tiff(4095 - (DEEP_GREY >> 4), "miniswhite"),
        tiff(DEEP_GREY >> 4, **largest(3000)),
        tiff(DEEP_GREY >> 3, **largest(255)),
        encoded(Image.fromarray(DEEP_GREY >> 4), "PNG"),
    ],
)
def test_bits_that_are_not_known_are_refused(data: bytes) -> None:
    for source in (data, Image.open(io.BytesIO(data))):
        with pytest.raises(ImageError, match="white is unknown: save it as 8-bit RGB"):
            open_image(source)


def test_a_dark_image_of_all_16_bits_opens_where_it_says_so() -> None:
    dark = DEEP_GREY // 5
    assert difference(tiff(dark, **largest(65535)), np.dstack([dark >> 8] * 3)) == 0
    with pytest.raises(ImageError, match="white is unknown"):
        open_image(tiff(dark))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff((GREY.astype(int) - 128).astype(np.int8)), "signed"),
        (tiff((DEEP_GREY.astype(int) - 32768).astype(np.int16)), "signed"),
        (tiff(np.moveaxis(DEEP, 2, 0), "rgb", planarconfig="separate"), "planes of 16 bits"),
        (encoded(PATCH.convert("YCbCr"), "TIFF"), "YCbCr"),
        (tiff(65535 - DEEP_GREY, "miniswhite", byteorder=">"), "TIFF of a kind"),
        (tiff(np.dstack([DEEP_GREY, OPAQUE]), extrasamples=["unassalpha"]), "TIFF of a kind"),
        (tiff(PIXELS.astype(np.float32) / 255, "rgb"), "TIFF of a kind"),
        (png(DEEP, (b"tRNS", struct.pack(">HHH", 0, 0, 0))), "16 bits and a transparent colour"),
        (png(DEEP_GREY, (b"tRNS", struct.pack(">H", 0))), "16 bits and a transparent colour"),
    ],
)
def test_what_pillow_misreads_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=rf"{reason}.*save it as 8-bit RGB"):
        open_image(data)


# Colour profiles


def icc(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A colour profile, which nothing among the tests' tools writes for grey or inks."""
    wanted = {b"desc": b"desc" + struct.pack(">II", 0, 2) + b"x\0" + bytes(78)}
    wanted |= {b"cprt": b"text" + bytes(8), b"wtpt": b"XYZ " + bytes(4) + white_point(), **tags}
    table, body = struct.pack(">I", len(wanted)), b""
    start = 128 + 4 + 12 * len(wanted)
    for name, data in wanted.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I", start + len(body)) + b"lcms\x02\x40\0\0prtr" + space + connection
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white_point()
    return header.ljust(128, b"\0") + table + body


def white_point() -> bytes:
    return struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))


def grey_profile(gamma: float) -> bytes:
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))
    return icc(b"GRAY", b"XYZ ", {b"kTRC": curve})


def inks_profile(colours: dict[tuple[int, int, int, int], tuple[int, int, int]]) -> bytes:
    """A profile of CMYK that gives chosen solid inks a CIELAB colour, and white to all others."""
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += struct.pack(">9i", *(65536 * one for one in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table += bytes(range(256)) * 4
    for inks in np.ndindex(2, 2, 2, 2):
        lightness, a, b = colours.get(inks, (100, 0, 0))
        table += bytes([round(lightness * 2.55), a + 128, b + 128])
    return icc(b"CMYK", b"Lab ", {b"A2B0": table + bytes(range(256)) * 3})


def stored(grey: np.ndarray, gamma: float) -> np.ndarray:
    """Values from 0 to 1 that a grey profile of some gamma shows as sRGB's."""
    value = grey / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light ** (1 / gamma)


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_grey_profiles_are_converted(gamma: float) -> None:
    profile = grey_profile(gamma)
    shallow = np.round(stored(GREY, gamma) * 255).astype(np.uint8)
    deep = np.round(stored(GREY, gamma) * 65535).astype(np.uint16)
    image = Image.fromarray(shallow)
    with_alpha = image.copy()
    with_alpha.putalpha(255)
    tag = (34675, "B", len(profile), profile, True)
    assert np.abs(shallow.astype(int) - GREY).max() >= 3
    for data in (
        encoded(image, "PNG", icc_profile=profile),
        encoded(with_alpha, "PNG", icc_profile=profile),
        encoded(image, "TIFF", icc_profile=profile),
        encoded(with_alpha, "TIFF", icc_profile=profile),
        tiff(255 - shallow, "miniswhite", extratags=[tag]),
    ):
        assert difference(data, AS_GREY) <= 2  # the stored value was rounded, too
    for data in (
        encoded(Image.fromarray(deep), "PNG", icc_profile=profile),
        tiff(deep, extratags=[tag]),
        tiff(65535 - deep, "miniswhite", extratags=[tag]),
    ):
        assert difference(data, AS_GREY) <= 1


def test_grey_behind_alpha_is_laid_on_white_before_its_profile() -> None:
    clear = Image.merge("LA", [Image.new("L", (32, 32), 100), Image.new("L", (32, 32), 0)])
    assert difference(encoded(clear, "PNG", icc_profile=grey_profile(1.8)), np.array(255)) == 0


def test_transparency_does_not_outlive_its_pixels() -> None:
    opened = open_image(encoded(PATCH, "PNG", transparency=(1, 2, 3)))
    assert not opened.has_transparency_data
    assert difference(encoded(opened, "PNG"), PIXELS) == 0


# Inks


def inks(*, profile: bytes | None = None, transform: int = 0) -> bytes:
    """A JPEG of CMYK as Adobe stores it, or of its YCCK."""
    colours = Image.fromarray(255 - PIXELS if transform == 0 else YCC)
    planes = [*colours.split(), Image.new("L", colours.size, 0)]
    options: dict[str, Any] = {"quality": 100, "subsampling": 0}
    if profile:
        options["icc_profile"] = profile
    data = encoded(Image.merge("CMYK", planes), "JPEG", **options)
    marker = data.index(b"Adobe") + 11
    assert data[marker] == 0
    return data[:marker] + bytes([transform]) + data[marker + 1 :]


# YCCK holds the YCbCr of what its inks leave. Adobe stores inks inverted, and so Pillow does.
YCC = 255 - np.array(Image.fromarray(255 - PIXELS).convert("YCbCr"))


def test_inks_without_a_profile() -> None:
    assert difference(inks(), PIXELS) <= 8
    assert difference(inks(transform=2), PIXELS) <= 8


def test_inks_with_a_profile() -> None:
    red, blue = (54, 80, 67), (30, 68, -112)
    profile = inks_profile({(1, 0, 0, 0): red, (0, 1, 0, 0): blue})
    for ink, right in (((255, 0, 0, 0), (255, 0, 0)), ((0, 255, 0, 0), (0, 0, 255))):
        solid = Image.new("CMYK", (32, 32), ink)
        for format in ("JPEG", "TIFF"):
            data = encoded(solid, format, icc_profile=profile)
            assert difference(data, np.array(right)) < 30


def test_inks_of_unknown_direction_are_refused() -> None:
    data = inks()
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    with pytest.raises(ImageError, match="which way its CMYK inks"):
        open_image(data[:start] + data[start + 2 + length :])


# Several images in one JPEG


def several(*images: tuple[int, bytes]) -> bytes:
    """A JPEG that a multi-picture index follows by further images, each of a kind."""
    first = encoded(PATCH, "JPEG", quality=95)
    size = 2 + 2 + 4 + 8 + 2 + 3 * 12 + 4 + 16 * (1 + len(images))
    entries = struct.pack("<IIIHH", 0x030000, len(first) + size, 0, 0, 0)
    place = len(first) + size - (2 + 2 + 2 + 4)  # from the index's own beginning
    for kind, data in images:
        entries += struct.pack("<IIIHH", kind, len(data), place, 0, 0)
        place += len(data)
    index = b"II*\0" + struct.pack("<IH", 8, 3)
    index += struct.pack("<HHI", 0xB000, 7, 4) + b"0100"
    index += struct.pack("<HHII", 0xB001, 4, 1, 1 + len(images))
    index += struct.pack("<HHIII", 0xB002, 7, len(entries), 8 + 2 + 36 + 4, 0) + entries
    segment = b"\xff\xe2" + struct.pack(">H", size - 2) + b"MPF\0" + index
    assert len(segment) == size
    return first[:2] + segment + first[2:] + b"".join(data for _, data in images)


PLAIN = encoded(PATCH, "JPEG", quality=95)
SMALL = Image.fromarray(GREY).resize((32, 24))
APPLE_S = b'<x apdi:AuxiliaryImageType="urn:com:apple:photo:2020:aux:hdrgainmap"/>'
GAIN_MAPS = {
    "Google's and Adobe's": encoded(SMALL, "JPEG", xmp=b'<x hdrgm:Version="1.0"/>'),
    "Apple's": encoded(SMALL, "JPEG", xmp=APPLE_S, icc_profile=grey_profile(1.0)),
    "ISO's": b"\xff\xd8\xff\xe2\0\x22urn:iso:std:iso:ts:21496:-1".ljust(38, b"\0")
    + encoded(SMALL, "JPEG")[2:],
}


@pytest.mark.parametrize("whose", GAIN_MAPS)
def test_a_gain_map_is_left_out(whose: str) -> None:
    right = np.asarray(open_image(PLAIN), int)
    data = several((UNDEFINED, GAIN_MAPS[whose]), (THUMBNAIL, encoded(SMALL, "JPEG")))
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == "MPO"
        assert opened.n_frames == 3
        assert difference(opened, right) == 0
    assert difference(data, right) == 0


@pytest.mark.parametrize(
    "images",
    [
        [(UNDEFINED, PLAIN)],
        [(PANORAMA, PLAIN)],
        [(DISPARITY, PLAIN)],
        [(UNDEFINED, GAIN_MAPS["Apple's"]), (DISPARITY, PLAIN)],
        [(DISPARITY, GAIN_MAPS["Apple's"])],
        [(THUMBNAIL, PLAIN)] * 9,
    ],
)
def test_several_pictures_in_a_jpeg_are_refused(images: list[tuple[int, bytes]]) -> None:
    with pytest.raises(ImageError, match="several frames"):
        open_image(several(*images))


def test_an_index_that_leads_nowhere_is_refused() -> None:
    whole = several((UNDEFINED, GAIN_MAPS["Apple's"]))
    with pytest.raises(ImageError, match="damaged or cut short"):
        open_image(whole[: -len(GAIN_MAPS["Apple's"])])


def test_sixty_thousand_pages_are_refused_at_once() -> None:
    """Counting them is quadratic: a minute and more."""
    first = tiff(PIXELS, "rgb")
    (directory,) = struct.unpack("<I", first[4:8])
    (entries,) = struct.unpack("<H", first[directory : directory + 2])
    end = directory + 2 + 12 * entries
    starts = [len(first) + 6 * page for page in range(60_000)]
    pages = b"".join(struct.pack("<HI", 0, start + 6) for start in starts)
    data = first[:end] + struct.pack("<I", starts[0]) + first[end + 4 :] + pages
    with pytest.raises(ImageError, match="several frames"):
        open_image(data)


def test_srgb_is_what_profiles_end_as() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert difference(encoded(PATCH, "TIFF", icc_profile=srgb), PIXELS) <= 1
