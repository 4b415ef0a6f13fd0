"""Untrusted path, bytes, file, PIL image or array -> 8-bit RGB image, or a clear error.

Every surface (library, command line, app, corpus) opens images here, so that one file gives one
result everywhere.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bcd_models.errors import ImageError
from bcd_models.images.colour import check_encoding, has_deep_colour, to_srgb
from bcd_models.images.scale import Scale, read_scale

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_one_at_a_time = RLock()
UPRIGHT = 1  # of EXIF's orientations
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})

ImageSource: TypeAlias = Union[str, Path, bytes, IO[bytes], Image.Image, "NDArray[np.uint8]"]


Several: TypeAlias = list[Any] | tuple[Any, ...]


@dataclass(frozen=True)
class ImageLimits:
    """What is refused: by its pixels before any is decoded, by its tiles before any is answered.

    Attributes:
        max_pixels: Most pixels an image may have.
        min_side: Least width and height in pixels.
        max_tiles: Most tiles of the trained field an image may be cut into; by default as many
            pixels at a scale of 4 micrometres as it may have.
    """

    max_pixels: int = 50_000_000
    min_side: int = 16
    max_tiles: int = 20_000


def is_one_image(images: Any) -> bool:
    """Return whether something is one image to open, and not several."""
    is_single = isinstance(images, (str, Path, bytes, bytearray, memoryview, Image.Image))
    return is_single or hasattr(images, "read") or getattr(images, "ndim", 4) == 3


def open_image(source: ImageSource, limits: ImageLimits = ImageLimits()) -> Image.Image:
    """Open anything a user may hand in as an upright 8-bit sRGB image.

    16 bits keep their upper eight, transparency is laid on white, CMYK and embedded colour profiles
    are converted to sRGB, EXIF orientation is applied; a phone's gain map is left out. Where black,
    white or colours can't be known, the image is refused.

    Args:
        source: A path, an encoded image's bytes, a binary file, a PIL image, or an array of
            H x W x 3 uint8 values from 0 to 255.
        limits: What is refused by size.

    Returns:
        A PIL image of mode RGB.

    Raises:
        ImageError: The source can't be used; the message says why.
    """
    return open_scaled(source, limits)[0]


def open_scaled(
    source: ImageSource, limits: ImageLimits = ImageLimits()
) -> tuple[Image.Image, Scale | None]:
    """The same image together with what its metadata says of its scale.

    An array has no scale; a PIL image has one where it is as Pillow opened it. Pillow doesn't tell
    that one was reduced in place, by ``thumbnail`` or ``draft``: say its scale yourself.
    """
    if isinstance(source, Image.Image):
        with _refusals("image"), _one_at_a_time:  # threads may be handed the same one
            image, scale = _to_rgb(source, limits, "image")
            return (image.copy() if image is source else image), scale
    if isinstance(source, (str, Path)):
        return _decode(_read(Path(source)), limits, name=Path(source).name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), limits, name="image")
    if hasattr(source, "read"):
        return _decode(read_open(source), limits, name="image")
    return _from_array(source, limits), None


def open_pixels(source: ImageSource, limits: ImageLimits = ImageLimits()) -> NDArray[np.uint8]:
    """The same image as an array of H x W x 3 values from 0 to 255, in memory of its own."""
    import numpy as np

    if isinstance(source, np.ndarray):
        _check_array(source, limits)
        return np.array(source, order="C")
    return np.array(open_image(source, limits))


def image_paths(path: Path) -> list[Path]:
    """The image files below a folder, by suffix, in the order of their names."""
    return sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder, not an image") from None
    except FileNotFoundError:
        raise ImageError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} can't be read: {why}") from None


def read_open(file: Any) -> bytes:
    """Read a binary file that is open; ImageError where that can't be done."""
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"the file can't be read: {error}") from None
    if not isinstance(data, bytes):
        raise ImageError("the file is open as text: open it with mode 'rb'")
    return data


def _decode(data: bytes, limits: ImageLimits, name: str) -> tuple[Image.Image, Scale | None]:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")
    with _refusals(name):
        try:
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise ImageError(_why_unidentified(data, name)) from None
        with opened as image:
            return _to_rgb(image, limits, name)


def _why_unidentified(data: bytes, name: str) -> str:
    if data.startswith(TIFF_STARTS):
        return f"{name} is a TIFF of a kind that can't be read, or damaged: save it as 8-bit RGB"
    return f"{name} is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn whatever a decoder throws at damaged bytes into one of ours.

    Decoders raise nearly anything (OSError, SyntaxError, struct.error, MemoryError, ...), so this
    is the one place that catches all of it.
    """
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} is too large: {error}") from None
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name} is damaged or cut short: {reason}") from None


def _to_rgb(image: Image.Image, limits: ImageLimits, name: str) -> tuple[Image.Image, Scale | None]:
    _check_size(image.size, limits, name)
    check_encoding(image, name)
    is_deep = has_deep_colour(image)
    if image.format == "TIFF":  # loading turns it upright, and forgets that it did
        scale = read_scale(image)
        image.load()
    else:
        image.load()  # a PNG may hold its EXIF behind its pixels
        scale = read_scale(image)
    if image.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT:
        image = ImageOps.exif_transpose(image)
    return to_srgb(image, name, is_deep=is_deep), scale


def _check_size(size: tuple[int, int], limits: ImageLimits, name: str) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} is too large: {width}x{height} pixels, at most {limits.max_pixels:,} in all; "
            "cut out the region of interest"
        )
    if min(width, height) < limits.min_side:
        raise ImageError(
            f"{name} is too small: {width}x{height} pixels, each side must have at least "
            f"{limits.min_side}"
        )


def _from_array(source: Any, limits: ImageLimits) -> Image.Image:
    import numpy as np

    if not isinstance(source, np.ndarray):
        raise ImageError(
            f"a {type(source).__name__} is no image: hand in a path, bytes, a binary file, "
            "a PIL image or an H x W x 3 uint8 array"
        )
    _check_array(source, limits)
    return Image.fromarray(np.ascontiguousarray(source))


def _check_array(source: NDArray[Any], limits: ImageLimits) -> None:
    if source.ndim != 3 or source.shape[2] != 3:
        raise ImageError(
            f"an array of shape {source.shape} is no image: its shape must be H x W x 3"
        )
    if source.dtype != "uint8":
        raise ImageError(_why_not_uint8(source))
    _check_size((source.shape[1], source.shape[0]), limits, "array")


def _why_not_uint8(array: NDArray[Any]) -> str:
    import numpy as np

    if array.dtype.kind not in "iuf":
        return f"an array of {array.dtype} is no image: its values must be uint8"
    if not np.isfinite(array).all():
        return "the array holds NaN or infinite values"
    span = f"values from {array.min():g} to {array.max():g}" if array.size else "no values"
    return f"an array of {array.dtype} with {span} is no image: convert it to uint8, 0 to 255"
