"""A slide's file: what it says of itself, and areas of its pixels, or a clear error."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image, ImageCms

from bcd_models.errors import ImageError, InputError
from bcd_models.images.colour import build_srgb_transform
from bcd_models.images.scale import MAX_MPP, MIN_MPP, give_scale
from bcd_models.slides.slide_format import refuse_unsafe_slide, suggest_predict

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from openslide import OpenSlide

# Pillow shrinks by whole numbers first (a plain mean) and by its filter for the rest. Hamming's
# window is a mean too, without the box's jumps where the ratio is no whole number.
FILTER, REDUCING_GAP = Image.Resampling.HAMMING, 3.0
ENLARGING_FILTER = Image.Resampling.BICUBIC
FILTER_PIXELS = 2  # that they look at, beside each


class PixelSizeError(ImageError):
    """A slide does not say how large its pixels are, or says what can't be."""


@dataclass(frozen=True)
class SlideFacts:
    """What a slide's file says of itself.

    Attributes:
        path: The file.
        bytes: The file's size.
        modified_ns: When it was last changed, in nanoseconds.
        quickhash: OpenSlide's hash of the slide's headers and smallest level; empty where none.
        vendor: As OpenSlide calls the format.
        width: Of level 0, in pixels.
        height: Of level 0, in pixels.
        mpp_x: Micrometres a pixel of level 0, across.
        mpp_y: The same, down.
        mpp_given: Whether they were handed in rather than read from the slide.
        bounds: Left, top, width, height in level-0 pixels of what was scanned; all of level 0
            unless the slide says less.
        levels: Width and height of each level in pixels.
        downsamples: How many level-0 pixels a pixel of each level spans.
        background: RGB of what was not scanned.
        has_profile: Whether an embedded profile says what its colours mean.
    """

    path: Path
    bytes: int
    modified_ns: int
    quickhash: str
    vendor: str
    width: int
    height: int
    mpp_x: float
    mpp_y: float
    mpp_given: bool
    bounds: tuple[int, int, int, int]
    levels: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    background: tuple[int, int, int]
    has_profile: bool


@dataclass(frozen=True)
class Area:
    """A rectangle of a slide in level-0 pixels, fractions allowed."""

    left: float
    top: float
    width: float
    height: float


def read_facts(path: Path, mpp: float | None = None) -> SlideFacts:
    """Read what a slide says of itself; no pixel is decoded.

    Args:
        path: The slide's file; of a DICOM slide any of its files.
        mpp: Micrometres a level-0 pixel, both ways, in place of what the slide says.

    Raises:
        PixelSizeError: Without a usable pixel size.
        ImageError: No slide, damaged, or of an unusable colour profile.
        InputError: ``mpp`` is not a pixel's, or OpenSlide is not installed.
    """
    given = None if mpp is None else give_scale(mpp).mpp_x
    with open_slide(path) as slide:
        properties = dict(slide.properties)
        mpp_x, mpp_y = (given, given) if given else _read_pixel_size(properties, path)
        status = path.stat()
        return SlideFacts(
            path=path,
            bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            quickhash=properties.get("openslide.quickhash-1", ""),
            vendor=properties.get("openslide.vendor", "unknown"),
            width=slide.dimensions[0],
            height=slide.dimensions[1],
            mpp_x=mpp_x,
            mpp_y=mpp_y,
            mpp_given=given is not None,
            bounds=_read_bounds(properties, slide.dimensions),
            levels=tuple(slide.level_dimensions),
            downsamples=tuple(slide.level_downsamples),
            background=_read_background(properties),
            has_profile=_read_srgb_transform(slide, path) is not None,
        )


def open_slide(path: Path) -> OpenSlide:
    """Open a slide with OpenSlide.

    Raises:
        InputError: OpenSlide is not installed.
        ImageError: The file is missing, no slide, or damaged.
    """
    try:
        import openslide
    except ImportError as error:
        raise InputError(
            f"slides need OpenSlide ({error}): pip install 'bcd-models[slides]'"
        ) from None
    if path.is_dir():
        raise ImageError(f"{path} is a folder: of a DICOM slide, name one of the folder's files")
    try:
        refuse_unsafe_slide(path)
    except FileNotFoundError:
        raise ImageError(f"no such file: {path}") from None
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} can't be read: {said}") from None
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        raise ImageError(
            f"{path} is no slide that OpenSlide reads (SVS, NDPI, MRXS, tiled TIFF, DICOM, ...), "
            "or cut short: copy it again; an untiled TIFF must be saved tiled, with a pyramid"
            f"{suggest_predict(path)}"
        ) from None
    except openslide.OpenSlideError as error:
        raise ImageError(
            f"{path} is damaged or cut short ({_decoder_words(error)}): copy it again"
        ) from None


def _decoder_words(error: Exception) -> str:
    """Return what a decoder says up to the first path in it, which may be another file's."""
    return re.split(r"\S*[/\\]", str(error))[0].strip(" :") or "unreadable"


def _read_srgb_transform(slide: OpenSlide, path: Path) -> ImageCms.ImageCmsTransform | None:
    """Return what converts a slide's colours to sRGB; None where no profile says what they mean.

    Raises:
        ImageError: The profile can't be used.
    """
    if "openslide.icc-size" not in slide.properties:
        return None
    return build_srgb_transform(
        lambda: cast(ImageCms.ImageCmsProfile, slide.color_profile), "RGB", str(path)
    )


class SlideReader:
    """One thread's way to a slide's pixels.

    OpenSlide refuses a handle everything after one failure, so the next read opens a new one.
    """

    def __init__(self, facts: SlideFacts) -> None:
        self._facts = facts
        self._slide: OpenSlide | None = None
        self._to_srgb: ImageCms.ImageCmsTransform | None = None

    def read(self, area: Area, level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read an area's pixels at another size.

        Args:
            area: Within level 0.
            level: The level to read from; about as sharp as ``size`` needs, or sharper.
            size: Width and height of the result in pixels.

        Returns:
            Height x width x 3: sRGB by the slide's profile, or RGB as stored where it has none.
            What was not scanned has the slide's background colour.

        Raises:
            ImageError: The file could not be read or decoded here.
        """
        import openslide

        corner, shape, box = _locate(area, self._facts, level, size)
        slide = self._open()
        try:
            region = slide.read_region(corner, level, shape)
        except openslide.OpenSlideError as error:
            self.close()
            raise ImageError(_decoder_words(error)) from None
        rgb = _lay_on(self._facts.background, region)
        if self._to_srgb:
            rgb = self._to_srgb.apply(rgb)
        if rgb.size != size or box != (0, 0, *size):
            is_smaller = rgb.width < size[0] or rgb.height < size[1]
            chosen = ENLARGING_FILTER if is_smaller else FILTER
            rgb = rgb.resize(size, chosen, box=box, reducing_gap=REDUCING_GAP)
        return np.asarray(rgb)

    def _open(self) -> OpenSlide:
        if self._slide is None:
            self._slide = open_slide(self._facts.path)
            self._to_srgb = _read_srgb_transform(self._slide, self._facts.path)
        return self._slide

    def close(self) -> None:
        """Close the file, until the next area is read."""
        if self._slide:
            self._slide.close()
        self._slide = None


def _locate(
    area: Area, facts: SlideFacts, level: int, size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int], tuple[float, float, float, float]]:
    """Return what to ask for: corner in level-0 pixels, size in the level's, and the area there.

    The area is cut at the level's edges, which rounding may leave a pixel short. Round it are the
    pixels that filters look at, so that a tile is the same whatever is read with it.
    """
    downsample = facts.downsamples[level]
    width, height = facts.levels[level]
    left, top = area.left / downsample, area.top / downsample
    right = min(left + area.width / downsample, width)
    bottom = min(top + area.height / downsample, height)
    across, down = (right - left) / size[0], (bottom - top) / size[1]
    beside, above = (max(FILTER_PIXELS, FILTER_PIXELS * one) for one in (across, down))
    x, y = max(math.floor(left - beside), 0), max(math.floor(top - above), 0)
    shape = min(math.ceil(right + beside), width) - x, min(math.ceil(bottom + above), height) - y
    box = left - x, top - y, right - x, bottom - y
    return (round(x * downsample), round(y * downsample)), shape, box


def _lay_on(background: tuple[int, int, int], region: Image.Image) -> Image.Image:
    """Return RGBA as RGB, with the background where nothing was scanned."""
    alpha = region.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return region.convert("RGB")
    rgb = Image.new("RGB", region.size, background)
    rgb.paste(region, mask=alpha)
    return rgb


def _read_pixel_size(properties: dict[str, str], path: Path) -> tuple[float, float]:
    sizes = []
    for name in ("openslide.mpp-x", "openslide.mpp-y"):
        text = properties.get(name)
        if text is None:
            raise PixelSizeError(
                f"{path} does not say how large its pixels are: hand in the micrometres a pixel "
                "with --mpp, such as --mpp 0.25 for a 40x scan"
            )
        try:
            size = float(text)
        except ValueError:
            size = math.nan
        if not MIN_MPP <= size <= MAX_MPP:
            raise PixelSizeError(
                f"{path} says {name} = {text}, no size of a slide's pixel ({MIN_MPP:g} to "
                f"{MAX_MPP:g} micrometres): hand in the true one with --mpp, such as --mpp 0.25 "
                "for a 40x scan"
            )
        sizes.append(size)
    return sizes[0], sizes[1]


def _read_bounds(properties: dict[str, str], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return what was scanned, where the slide says so and it lies within level 0."""
    try:
        left, top, width, height = (
            int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return 0, 0, *size
    inside = min(left, top) >= 0 and left + width <= size[0] and top + height <= size[1]
    return (left, top, width, height) if inside and min(width, height) > 0 else (0, 0, *size)


def _read_background(properties: dict[str, str]) -> tuple[int, int, int]:
    try:
        red, green, blue = bytes.fromhex(properties["openslide.background-color"])
    except (KeyError, ValueError):
        return 255, 255, 255
    return red, green, blue
