"""Where an image states its scale, in each format, and what says nothing."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from bcd_models.errors import InputError
from bcd_models.images.open import open_image, open_scaled
from bcd_models.images.scale import (
    MAX_MPP,
    MIN_MPP,
    Scale,
    compute_scale,
    give_scale,
    read_scale,
)
from tests.support import synthetic

PIXELS = synthetic.patch("malignant", seed=5, pixels=(60, 40))
PATCH = Image.fromarray(PIXELS)
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, ORIENTATION = 282, 283, 296, 274


def encoded(format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PATCH.save(buffer, format=format, **options)
    return buffer.getvalue()


def tiff(**options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PIXELS, photometric="rgb", **options)
    return buffer.getvalue()


def described(description: str | bytes, **options: Any) -> bytes:
    return tiff(description=description, metadata=None, **options)


def ome(x: object, y: object, unit: str | None = None, **options: Any) -> bytes:
    size: dict[str, object] = {"axes": "YXS", "PhysicalSizeX": x, "PhysicalSizeY": y}
    if unit:
        size |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    return tiff(ome=True, metadata=size, **options)


def imagej(unit: str, x: float, y: float) -> bytes:
    return tiff(imagej=True, resolution=(x, y), metadata={"unit": unit})


def exif(x: object, y: object, unit: int | None, orientation: int | None = None) -> Image.Exif:
    made = Image.Exif()
    values = {X_RESOLUTION: x, Y_RESOLUTION: y, RESOLUTION_UNIT: unit, ORIENTATION: orientation}
    made.update({tag: value for tag, value in values.items() if value is not None})
    return made


def scale_of(data: bytes) -> Scale | None:
    """What the metadata says, asked both ways."""
    image, scale = open_scaled(data)
    with Image.open(io.BytesIO(data)) as opened:
        assert read_scale(opened) == scale
    assert image.tobytes() == open_image(data).tobytes()
    return scale


@pytest.mark.parametrize(
    ("data", "mpp_x", "mpp_y", "source"),
    [
        (tiff(resolution=(40000, 20000), resolutionunit=3), 0.25, 0.5, "TIFF resolution"),
        (tiff(resolution=(50800, 25400), resolutionunit=2), 0.5, 1.0, "TIFF resolution"),
        (encoded("TIFF", dpi=(50800, 50800)), 0.5, 0.5, "TIFF resolution"),
        (
            encoded("TIFF", x_resolution=40000, y_resolution=20000, resolution_unit="cm"),
            0.25,
            0.5,
            "TIFF resolution",
        ),
        (encoded("TIFF", tiffinfo={282: 50800.0, 283: 50800.0}), 0.5, 0.5, "TIFF resolution"),
        (ome(0.2521, 0.5042), 0.2521, 0.5042, "OME-XML"),
        (ome(0.2521, 0.5042, "µm"), 0.2521, 0.5042, "OME-XML"),
        (ome(252.1, 504.2, "nm"), 0.2521, 0.5042, "OME-XML"),
        (ome(0.0002521, 0.0005042, "mm"), 0.2521, 0.5042, "OME-XML"),
        (imagej("micron", 4, 2), 0.25, 0.5, "ImageJ"),
        (imagej("um", 4, 2), 0.25, 0.5, "ImageJ"),
        (imagej("\\u00B5m", 4, 2), 0.25, 0.5, "ImageJ"),
        (imagej("mm", 4000, 2000), 0.25, 0.5, "ImageJ"),
        (imagej("cm", 40000, 40000), 0.25, 0.25, "ImageJ"),
        (
            described(
                "Aperio Image Library v12\r\n60x40 (256x256)|AppMag = 40|MPP = 0.2521|Left = 1"
            ),
            0.2521,
            0.2521,
            "Aperio description",
        ),
        (encoded("PNG", dpi=(50800, 101600)), 0.5, 0.25, "PNG pHYs"),
        (encoded("PNG", exif=exif(50800, 25400, 2)), 0.5, 1.0, "EXIF resolution"),
        (encoded("JPEG", dpi=(50800, 25400)), 0.5, 1.0, "JFIF density"),
        (encoded("JPEG", exif=exif(40000, 20000, 3)), 0.25, 0.5, "EXIF resolution"),
        (encoded("JPEG", exif=exif(50800, 25400, 2)), 0.5, 1.0, "EXIF resolution"),
        (encoded("JPEG", exif=exif(50800, 50800, None)), 0.5, 0.5, "EXIF resolution"),
        (encoded("WEBP", exif=exif(40000, 20000, 3)), 0.25, 0.5, "EXIF resolution"),
        (encoded("BMP", dpi=(50800, 25400)), 0.5, 1.0, "BMP resolution"),
    ],
)
def test_each_format_states_its_scale(data: bytes, mpp_x: float, mpp_y: float, source: str) -> None:
    scale = scale_of(data)
    assert scale is not None
    assert (scale.mpp_x, scale.mpp_y) == pytest.approx((mpp_x, mpp_y), rel=1e-5)
    assert scale.source == source


def test_density_of_a_jpeg_in_centimetres() -> None:
    data = encoded("JPEG", dpi=(20000, 10000)).replace(b"JFIF\0\1\1\1", b"JFIF\0\1\1\2")
    assert scale_of(data) == Scale(0.5, 1.0, "JFIF density")


@pytest.mark.parametrize(
    "unit", [b"\xb5m", "µm".encode(), "μm".encode(), b"um", b"micron", b"\\u00B5m"]
)
def test_every_way_to_write_a_micrometre(unit: bytes) -> None:
    pixels = b'<OME><Image><Pixels SizeX="60" SizeY="40" %s></Pixels></Image></OME>'
    size = b'PhysicalSizeX="0.25" PhysicalSizeY="0.5" ' + b" ".join(
        b'PhysicalSize%sUnit="%s"' % (axis, unit) for axis in (b"X", b"Y")
    )
    assert scale_of(described(pixels % size)) == Scale(0.25, 0.5, "OME-XML")
    text = b"ImageJ=1.54f\nunit=%s\n" % unit
    found = scale_of(described(text, resolution=(4, 2), resolutionunit=1))
    assert found == Scale(0.25, 0.5, "ImageJ")


def test_a_character_reference_in_a_unit() -> None:
    said = 'SizeX="60" SizeY="40" PhysicalSizeX="0.25" PhysicalSizeY="0.25"'
    units = 'PhysicalSizeXUnit="&#181;m" PhysicalSizeYUnit="&#xB5;m"'
    data = described(f"<ome:OME><ome:Pixels {said} {units}/></ome:OME>")
    assert scale_of(data) == Scale(0.25, 0.25, "OME-XML")


def test_the_more_specific_statement_wins() -> None:
    resolution = {"resolution": (10000, 10000), "resolutionunit": 3}
    assert scale_of(ome(0.25, 0.25, "µm", **resolution)) == Scale(0.25, 0.25, "OME-XML")
    aperio = scale_of(described("Aperio|MPP = 0.25", **resolution))
    assert aperio == Scale(0.25, 0.25, "Aperio description")
    of_its_tags = Scale(1.0, 1.0, "TIFF resolution")
    assert scale_of(described("Aperio|OriginalMPP = 0.25", **resolution)) == of_its_tags
    assert scale_of(ome(353, 353, "µm", **resolution)) == of_its_tags


def test_xml_of_another_image_is_no_scale() -> None:
    """Programs keep a description while they resize; a plate's XML lists all its images."""
    small, own = (f'<Pixels SizeX="{width}" SizeY="40" %s/>' for width in (30, 60))
    size = 'PhysicalSizeX="{0}" PhysicalSizeY="{0}"'
    assert scale_of(described("<OME>" + small % size.format(2) + "</OME>")) is None
    both = small % size.format(2) + own % size.format(0.5)
    assert scale_of(described("<OME>" + both + "</OME>")) == Scale(0.5, 0.5, "OME-XML")


@pytest.mark.parametrize(
    "data",
    [
        *(encoded(format) for format in ("PNG", "TIFF", "JPEG", "BMP", "WEBP")),
        *(encoded(format, dpi=(72, 72)) for format in ("PNG", "TIFF", "JPEG", "BMP")),
        *(encoded(format, dpi=(96, 96)) for format in ("PNG", "TIFF", "JPEG", "BMP")),
        tiff(resolution=(4, 4), resolutionunit=1),
        tiff(resolution=(4, 4)),
        tiff(resolution=(4, 4), imagej=True),
        tiff(resolution=(4, 4), imagej=True, metadata={"unit": "pixel"}),
        tiff(resolution=(4, 4), imagej=True, metadata={"unit": "um", "yunit": "mm"}),
        tiff(resolution=(600_000, 600_000), resolutionunit=2),
        encoded("JPEG", exif=exif(300, 300, 2)),
        encoded("JPEG", exif=exif(40000, 40000, 1)),
        encoded("PNG", dpi=(50800, 96)),
    ],
)
def test_a_screen_s_or_no_resolution_is_no_scale(data: bytes) -> None:
    assert scale_of(data) is None


NOTHING = [0, -0.25, math.nan, math.inf, "", "a quarter", "1e999", "0x1", "9" * 3000]


@pytest.mark.parametrize("value", NOTHING)
def test_what_is_no_number_is_no_scale(value: object) -> None:
    assert scale_of(ome(value, value, "µm")) is None
    assert scale_of(described(f"Aperio|MPP = {value}|")) is None


def test_units_that_are_none() -> None:
    for unit in ("pixel", "furlong", "µ", "&um;"):
        size = f'PhysicalSizeX="1" PhysicalSizeXUnit="{unit}" PhysicalSizeY="1"'
        assert scale_of(described(f'<Pixels SizeX="60" SizeY="40" {size}/>'.encode())) is None


@pytest.mark.parametrize("numbers", [(1, 0), (0, 1), (0, 0), (2**32 - 1, 1), (1, 2**32 - 1)])
def test_rationals_that_are_no_number(numbers: tuple[int, int]) -> None:
    whole = tiff(resolution=((40001, 7), (40001, 7)), resolutionunit=3)
    good, bad = struct.pack("<II", 40001, 7), struct.pack("<II", *numbers)
    assert whole.count(good) == 2
    assert scale_of(whole) is not None
    assert scale_of(whole.replace(good, bad)) is None
    ratio = TiffImagePlugin.IFDRational(*numbers)
    made = exif(ratio, ratio, 3)
    assert scale_of(encoded("WEBP", exif=made)) is None


def test_metadata_of_other_types_is_none() -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, type, value in ((282, 2, "4"), (283, 2, "four"), (296, 2, "cm"), (270, 7, b"\xff")):
        info.tagtype[tag] = type
        info[tag] = value
    assert scale_of(encoded("TIFF", tiffinfo=info)) is None
    assert scale_of(encoded("WEBP", exif=b"Exif\0\0no directory")) is None


ENTITIES = """<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "{0}"><!ENTITY b SYSTEM
"file:///etc/hostname">]><OME><Pixels SizeX="60" SizeY="40" PhysicalSizeX="&a;"
PhysicalSizeY="&b;" PhysicalSizeXUnit="&a;"/></OME>"""


def test_entities_are_not_expanded() -> None:
    assert scale_of(described(ENTITIES.format("0.25"))) is None


@pytest.mark.parametrize(
    "piece",
    ["<Pixels ", "<Pixels SizeX='", "<OME:", "|MPP = ", "unit=pixel\n", "<Pixels " + "a=" * 9],
)
def test_long_descriptions_cost_little(piece: str) -> None:
    """Each is searched in time that grows with its length; a quadratic search takes minutes."""
    assert scale_of(described("ImageJ=1\n" + piece * (3_000_000 // len(piece)))) is None


@given(st.text(st.characters(max_codepoint=255), max_size=200), st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_descriptions_never_raise(text: str, at: int) -> None:
    size = 'SizeX="60" SizeY="40" PhysicalSizeX="0.25" PhysicalSizeY="0.25"'
    parts = ["<OME>", "<Pixels ", size, " PhysicalSizeXUnit", '="um"', "/>", "ImageJ=", "unit="]
    parts.insert(at, text.replace("\0", ""))
    scale = scale_of(described("".join(parts).encode("latin-1")))
    assert scale is None or MIN_MPP <= scale.mpp_x <= MAX_MPP


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["TIFF", "JPEG", "PNG", "WEBP"])
def test_the_scale_is_that_of_the_upright_image(format: str, orientation: int) -> None:
    options: dict[str, Any] = {"exif": exif(40000, 20000, 3, orientation)}
    if format == "TIFF":
        options = {"tiffinfo": dict(options["exif"])}
    data = encoded(format, **options)
    image, scale = open_scaled(data)
    sideways = orientation >= 5
    assert image.size == ((40, 60) if sideways else (60, 40))
    assert scale is not None
    assert (scale.mpp_x, scale.mpp_y) == ((0.5, 0.25) if sideways else (0.25, 0.5))
    assert scale_of(data) == scale


def test_exif_behind_the_pixels_of_a_png() -> None:
    whole = encoded("PNG", dpi=(50800, 101600), exif=exif(None, None, None, orientation=6))
    start = whole.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", whole[start : start + 4])[0]
    late = whole[:start] + whole[end:-12] + whole[start:end] + whole[-12:]
    assert zlib.crc32(late[-12 - (end - start) + 4 : -16]) == struct.unpack(">I", late[-16:-12])[0]
    image, scale = open_scaled(late)
    assert image.size == (40, 60)
    assert scale == scale_of(whole)
    assert scale is not None
    assert (scale.mpp_x, scale.mpp_y) == pytest.approx((0.25, 0.5))


def test_only_what_pillow_opened_has_a_scale(tmp_path: Path) -> None:
    path = tmp_path / "patch.png"
    path.write_bytes(encoded("PNG", dpi=(50800, 50800)))
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert open_scaled(source)[1] == Scale(pytest.approx(0.5), pytest.approx(0.5), "PNG pHYs")
    with Image.open(path) as opened:
        assert open_scaled(opened)[1] is not None
        assert "dpi" in opened.resize((30, 20)).info  # a copy of what is no longer true
        assert open_scaled(opened.resize((30, 20)))[1] is None
    assert open_scaled(PIXELS)[1] is None
    assert np.array_equal(np.asarray(open_scaled(PIXELS)[0]), PIXELS)


def test_given_scales() -> None:
    assert give_scale(0.25) == Scale(0.25, 0.25, "given")
    assert give_scale(MIN_MPP).mpp_x == MIN_MPP
    assert give_scale(MAX_MPP).mpp_x == MAX_MPP
    for mpp in (0, -1, 0.049, 20.1, 264.6, math.nan, math.inf):
        with pytest.raises(InputError, match=r"between 0\.05 and 20.*software") as refusal:
            give_scale(mpp)
        assert f"{mpp:g}" in str(refusal.value)


def test_scales_of_optics() -> None:
    assert compute_scale(20, 3.45).mpp_x == pytest.approx(0.1725)
    assert compute_scale(objective=20, camera_pixel_um=3.45, adapter=0.5).mpp_x == pytest.approx(
        0.345
    )
    for optics in ((0, 3.45), (-20, 3.45), (20, math.nan), (math.inf, 3), (20, 3.45, 0)):
        with pytest.raises(InputError, match="above 0"):
            compute_scale(*optics)
    for optics in ((100, 3.45), (1, 50), (1e300, 1e-300), (1e-300, 1e300)):
        with pytest.raises(InputError, match=r"not between 0\.05 and 20"):
            compute_scale(*optics)
