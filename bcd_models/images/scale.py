"""How much tissue a pixel shows: read from an image's metadata, computed from optics, or given.

Metadata comes from untrusted files. It is searched by bounded patterns, never parsed as XML, and
what isn't a plausible number says nothing.
"""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image, TiffImagePlugin

from bcd_models.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_MPP, MAX_MPP = 0.05, 20.0  # micrometres a pixel that a microscope's image can have
MAX_DESCRIPTION = 1_000_000  # characters of a TIFF's description that are looked at

INCH, CENTIMETRE = 25_400.0, 10_000.0  # in micrometres
EXIF_UNITS = {2: INCH, 3: CENTIMETRE}  # of TIFF, too; 1 is no unit
JFIF_UNITS = {1: INCH, 2: CENTIMETRE}  # 0 is no unit
MICROMETRE_NAMES = (
    *("um", "micron", "microns", "micrometer", "micrometre"),
    *("µm", "μm"),  # the micro sign, and the Greek letter
    *("Âµm", "Î¼m"),  # each in UTF-8, which Pillow reads as Latin-1
    *("\\u00B5m", "\\u00b5m"),  # as ImageJ escapes it
)
NAMED_UNITS = {
    "nm": 0.001,
    **dict.fromkeys(MICROMETRE_NAMES, 1.0),
    "mm": 1000.0,
    "cm": CENTIMETRE,
    "inch": INCH,
}

OPTICS = "objective and camera"  # the source of what is computed from these
APERIO = "Aperio description"
TILE_WIDTH = 322  # a TIFF's tag; of all programs, those of slide scanners write tiles

SIDEWAYS = (5, 6, 7, 8)  # orientations of EXIF that swap an image's sides

OME_PIXELS = re.compile(r"<(?:\w{1,20}:)?Pixels\s([^<>]{1,4000})")
XML_ATTRIBUTE = re.compile(r"""(\w+)=(?:"([^"]*)"|'([^']*)')""")
IMAGEJ_LINE = re.compile(r"^(\w{1,40})=(.{1,100})$", re.MULTILINE)
APERIO_MPP = re.compile(r"(?:^|[|\s])MPP ?= ?([^|\s]{1,40})")


@dataclass(frozen=True)
class Scale:
    """How much tissue a pixel shows.

    Attributes:
        mpp_x: Micrometres a pixel across.
        mpp_y: Micrometres a pixel down.
        source: Where it comes from, in words such as "given", "TIFF resolution", "OME-XML" or
            "PNG pHYs".
        by_camera: Whether the image is a microscope camera's, as far as is known: its optics are
            given, or the scale stands in a file that is no slide scanner's.
    """

    mpp_x: float
    mpp_y: float
    source: str
    by_camera: bool = field(default=False, compare=False)


def give_scale(mpp: float | Scale) -> Scale:
    """Return the scale that somebody states.

    Args:
        mpp: Micrometres a pixel, across and down; or a scale, such as ``compute_scale``'s.

    Raises:
        InputError: No microscope's image has it.
    """
    if isinstance(mpp, Scale):
        return mpp
    if isinstance(mpp, bool) or not isinstance(mpp, Real):
        raise InputError(f"mpp must be a number of micrometres a pixel, not {mpp!r}")
    if not MIN_MPP <= mpp <= MAX_MPP:
        raise InputError(
            f"{mpp:g} micrometres a pixel is no microscope's: it must be between {MIN_MPP:g} and "
            f"{MAX_MPP:g}; look for the pixel size or calibration in the scanner's or camera's "
            "software, or divide the camera's pixel in micrometres by the objective's magnification"
        )
    return Scale(float(mpp), float(mpp), "given")


def parse_number(text: str) -> float:
    """Read a decimal number; InputError says how it is written."""
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{text!r} is no number: write decimals with a point, as in 0.5") from None


def compute_scale(objective: float, camera_pixel_um: float, adapter: float = 1.0) -> Scale:
    """Return the scale of what a camera on a microscope takes.

    Args:
        objective: Magnification of the objective, such as 20.
        camera_pixel_um: Side of one pixel of the camera's sensor in micrometres; twice that where
            the camera bins 2 x 2.
        adapter: Magnification of the camera's adapter, such as 0.5.

    Raises:
        InputError: One of them is no positive number, or no microscope's image has the result.

    Example:
        >>> compute_scale(objective=20, camera_pixel_um=3.45, adapter=0.5).mpp_x
        0.345
    """
    optics = {
        "the objective's magnification": objective,
        "the camera's pixel size": camera_pixel_um,
        "the adapter's magnification": adapter,
    }
    for name, value in optics.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value:g}: it must be a number above 0")
    mpp = camera_pixel_um / objective / adapter
    if not MIN_MPP <= mpp <= MAX_MPP:
        raise InputError(
            f"an objective of {objective:g}x, an adapter of {adapter:g}x and camera pixels of "
            f"{camera_pixel_um:g} micrometres give {mpp:g} micrometres a pixel, which is not "
            f"between {MIN_MPP:g} and {MAX_MPP:g}: check all three numbers"
        )
    return Scale(mpp, mpp, OPTICS, by_camera=True)


def read_scale(image: Image.Image) -> Scale | None:
    """Return what an image's metadata says of its scale, as it is once upright.

    Call it before a TIFF's pixels are loaded: Pillow turns it upright then and forgets that it did.
    An image that Pillow has resized, cropped or converted since isn't the file's any more, and has
    no scale; one reduced in place by ``thumbnail`` or ``draft`` can't be told from the file's.

    Args:
        image: As Pillow opened it, not converted.

    Returns:
        The most specific plausible statement: OME-XML, ImageJ's or Aperio's description, else the
        format's resolution. None where there is none, or where the metadata is damaged.
    """
    try:
        return _read_upright(image)
    except Exception:  # Pillow's parsers of metadata raise nearly anything at damaged bytes
        return None


def _read_upright(image: Image.Image) -> Scale | None:
    scale = _read_stored(image)
    if scale is None or scale.mpp_x == scale.mpp_y:
        return scale
    if image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS:
        return replace(scale, mpp_x=scale.mpp_y, mpp_y=scale.mpp_x)
    return scale


def _read_stored(image: Image.Image) -> Scale | None:
    if image.format is None:  # its `info` is a copy of the file's, whatever became of the pixels
        return None
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        found = _read_tiff(image)
        is_scanned = TILE_WIDTH in image.tag_v2 or (found and found.source == APERIO)
        return replace(found, by_camera=False) if found and is_scanned else found
    info = image.info
    if image.format in ("JPEG", "MPO"):  # its "dpi" may be 72 for want of any, or EXIF's
        unit = JFIF_UNITS.get(info.get("jfif_unit", 0))
        found = _per_unit(info.get("jfif_density"), unit, "JFIF density")
    else:
        source = "PNG pHYs" if image.format == "PNG" else f"{image.format} resolution"
        found = _per_unit(info.get("dpi"), INCH, source)
    if found or "exif" not in info:
        return found
    return _read_resolution(image.getexif(), "EXIF resolution")


def _read_tiff(image: TiffImagePlugin.TiffImageFile) -> Scale | None:
    tags = image.tag_v2
    description = tags.get(ExifTags.Base.ImageDescription)
    if isinstance(description, str) and description:
        text = description[:MAX_DESCRIPTION]
        found = _read_ome(text, tags) or _read_imagej(text, tags) or _read_aperio(text)
        if found:
            return found
    return _read_resolution(tags, "TIFF resolution")


def _read_ome(description: str, tags: Mapping[int, Any]) -> Scale | None:
    stored = [str(tags.get(side)) for side in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength)]
    for element in OME_PIXELS.finditer(description):
        said = {
            name: html.unescape(double or single)
            for name, double, single in XML_ATTRIBUTE.findall(element[1])
        }
        # A description outlives a resize in some programs, and may list a whole plate's images.
        if [said.get("SizeX"), said.get("SizeY")] == stored:
            x, y = (
                _number(said.get(f"PhysicalSize{axis}"))
                * NAMED_UNITS.get(said.get(f"PhysicalSize{axis}Unit", "um"), math.nan)
                for axis in "XY"
            )
            return _plausible(x, y, "OME-XML")
    return None


def _read_imagej(description: str, tags: Mapping[int, Any]) -> Scale | None:
    if not description.startswith("ImageJ="):
        return None
    said = {name: value.strip() for name, value in IMAGEJ_LINE.findall(description)}
    unit = NAMED_UNITS.get(said.get("unit", ""))
    if "yunit" in said and said["yunit"] != said.get("unit"):
        return None
    return _per_unit(_resolution(tags), unit, "ImageJ")


def _read_aperio(description: str) -> Scale | None:
    if "->" in description:  # reduced since: the number is that of what it was made of
        return None
    match = APERIO_MPP.search(description)
    mpp = _number(match[1]) if match else math.nan
    return _plausible(mpp, mpp, APERIO)


def _read_resolution(tags: Mapping[int, Any], source: str) -> Scale | None:
    unit = EXIF_UNITS.get(tags.get(ExifTags.Base.ResolutionUnit, 2))
    return _per_unit(_resolution(tags), unit, source)


def _resolution(tags: Mapping[int, Any]) -> tuple[Any, Any]:
    return tags.get(ExifTags.Base.XResolution), tags.get(ExifTags.Base.YResolution)


def _per_unit(density: tuple[Any, Any] | None, unit: float | None, source: str) -> Scale | None:
    """Make a scale of pixels a unit, where both are known; the unit is in micrometres."""
    if density is None or unit is None:
        return None
    across, down = map(_number, density)
    if across == 0 or down == 0:
        return None
    return _plausible(unit / across, unit / down, source)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, ArithmeticError):
        return math.nan


def _plausible(mpp_x: float, mpp_y: float, source: str) -> Scale | None:
    if MIN_MPP <= mpp_x <= MAX_MPP and MIN_MPP <= mpp_y <= MAX_MPP:
        return Scale(mpp_x, mpp_y, source, by_camera=True)
    return None
