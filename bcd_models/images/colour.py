"""Pixels as files store them -> 8-bit sRGB, or a refusal where their colours can't be known."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image, ImageCms, MpoImagePlugin, TiffImagePlugin
from PIL.ExifTags import Base

from bcd_models.errors import ImageError

# Cameras give 10, 12 or 14 bits, often stored in 16 as they are. No value of theirs reaches this,
# and in a picture of all 16 bits it is a quarter of white, darker than any that shows tissue.
MIN_LARGEST = 1 << 14
AS_RGB = "save it as 8-bit RGB"

WHITE_IS_ZERO, YCBCR = 0, 6  # of TIFF's photometric interpretations
PLANES = 2  # of TIFF's planar configurations
SIGNED = 2  # of TIFF's sample formats
MAX_SAMPLE_VALUES = Base.MaxSampleValue, Base.SMaxSampleValue

MPF_ENTRIES = 0xB002
MAX_ATTACHED = 8  # images beside a JPEG's own that are looked at
# What a gain map, depth map or matte says of itself: Adobe's and Google's, ISO's, Apple's.
ATTACHED_MARKS = (b"hdrgm:", b"iso:ts:21496", b"apdi:AuxiliaryImageType")


def check_encoding(image: Image.Image, name: str) -> None:
    """Refuse several pictures in one, and pixels that Pillow would misread, before decoding.

    Args:
        image: As Pillow opened it.
        name: What messages call it.

    Raises:
        ImageError: It holds several frames or pages, or pixels of a kind that isn't known.
    """
    if getattr(image, "is_animated", False) and not _is_one_picture(image):
        raise ImageError(f"{name} holds several frames or pages: hand in a single image")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(image, name)
    # Adobe stores no ink as 255, others as 0, and Pillow takes every one for Adobe's.
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        raise ImageError(f"{name} doesn't say which way its CMYK inks are stored: {AS_RGB}")


def has_deep_colour(image: Image.Image) -> bool:
    """Return whether colours have 16 bits, of which Pillow will keep the upper eight.

    Only an image that isn't decoded yet still tells.
    """
    tile: Any = getattr(image, "tile", None)
    return bool(tile) and image.mode in ("RGB", "RGBA") and ";16" in str(tile[0][3])


def to_srgb(image: Image.Image, name: str, *, is_deep: bool) -> Image.Image:
    """Bring a decoded image to 8-bit sRGB.

    Args:
        image: As Pillow decoded it.
        name: What messages call it.
        is_deep: Whether its colours had 16 bits in the file.

    Returns:
        A PIL image of mode RGB.

    Raises:
        ImageError: Its black, its white or its colours can't be known.
    """
    is_grey = image.mode.startswith("I;16")
    if (is_grey or is_deep) and "transparency" in image.info:
        raise ImageError(f"{name} has 16 bits and a transparent colour: {AS_RGB}")
    if is_grey:
        image = _fill_16_bits(image, name)
    elif image.mode in ("I", "F"):
        raise ImageError(f"{name} holds 32-bit values, whose black and white are unknown: {AS_RGB}")
    elif is_deep:
        extrema: Any = image.getextrema()
        if max(high for _, high in extrema[:3]) < MIN_LARGEST >> 8:
            raise _unknown_white(name)
    return _as_srgb(_on_white(image), name)


def build_srgb_transform(
    open_profile: Callable[[], ImageCms.ImageCmsProfile], mode: str, name: str
) -> ImageCms.ImageCmsTransform:
    """Build what converts images by an embedded profile to sRGB, of mode RGB.

    Args:
        open_profile: Opens the profile.
        mode: Of the images, as Pillow calls it.
        name: Of the file that the profile is embedded in.

    Raises:
        ImageError: The profile is damaged, or for other images.
    """
    try:
        return ImageCms.buildTransform(open_profile(), ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise ImageError(
            f"{name} has a colour profile that can't be used ({error}): remove or replace it"
        ) from None


def _is_one_picture(image: Image.Image) -> bool:
    """Return whether all but the first are gain maps and thumbnails, as phones attach them."""
    if not isinstance(image, MpoImagePlugin.MpoImageFile) or image.n_frames > 1 + MAX_ATTACHED:
        return False
    index: Any = image.mpinfo
    info = image.info.copy()  # seeking mixes the images' own into it
    try:
        attached = enumerate(index[MPF_ENTRIES][1:], start=1)
        return all(_is_attached(image, frame, entry) for frame, entry in attached)
    finally:
        image.seek(0)
        image.info = info


def _is_attached(image: MpoImagePlugin.MpoImageFile, frame: int, entry: Any) -> bool:
    kind = entry["Attribute"]["MPType"]
    if kind != "Undefined":
        return str(kind).startswith("Large Thumbnail")
    image.seek(frame)
    return any(mark in content for _, content in image.applist for mark in ATTACHED_MARKS)


def _check_tiff(image: TiffImagePlugin.TiffImageFile, name: str) -> None:
    tags = image.tag_v2
    if SIGNED in tags.get(Base.SampleFormat, ()):
        raise ImageError(f"{name} holds signed values, whose black and white are unknown: {AS_RGB}")
    if image.info.get("compression") != "raw":  # libtiff reads these well
        return
    if tags.get(Base.PlanarConfiguration) == PLANES and max(tags.get(Base.BitsPerSample, (1,))) > 8:
        raise ImageError(f"{name} holds uncompressed planes of 16 bits, which isn't read: {AS_RGB}")
    if tags.get(Base.PhotometricInterpretation) == YCBCR:
        raise ImageError(f"{name} holds uncompressed YCbCr, which isn't read: {AS_RGB}")


def _fill_16_bits(image: Image.Image, name: str) -> Image.Image:
    """Bring grey to all of 16 bits, with black at 0."""
    import numpy as np

    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image).astype(np.uint16)
    bits = _bits_used(tags, int(values.max()), name)
    if tags.get(Base.PhotometricInterpretation) == WHITE_IS_ZERO:
        values = (1 << bits) - 1 - values
    filled = Image.fromarray(values << (16 - bits))
    filled.info = image.info
    return filled


def _bits_used(tags: Mapping[int, Any], largest: int, name: str) -> int:
    """Return how many bits a TIFF says that its values have, or 16 where they show it.

    The largest sample value is a statistic in some files: what is no power of two says nothing.
    """
    if 12 in tags.get(Base.BitsPerSample, ()):
        return 12
    stated = {value for tag in MAX_SAMPLE_VALUES for value in tags.get(tag, ())}
    for bits in range(8, 17):
        if (1 << bits) - 1 in stated and largest < 1 << bits:
            return bits
    if largest < MIN_LARGEST:
        raise _unknown_white(name)
    return 16


def _unknown_white(name: str) -> ImageError:
    return ImageError(
        f"{name} has 16 bits a value, but none reaches {MIN_LARGEST}, so that its white is "
        f"unknown: {AS_RGB}"
    )


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    is_grey = image.mode in ("1", "L", "LA", "La")  # stays grey, as its profile is
    flat = Image.alpha_composite(white, layer).convert("L" if is_grey else "RGB")
    flat.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return flat


def _as_srgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "P":
        image = image.convert("RGB")  # a palette's profile is one of its colours
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK", "L", "I;16"):
        return _as_rgb(image)
    transform = build_srgb_transform(
        lambda: ImageCms.ImageCmsProfile(io.BytesIO(profile)), image.mode, name
    )
    return transform.apply(image)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":
        import numpy as np

        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")
