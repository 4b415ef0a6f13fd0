"""Slides as scanners store them: pyramidal tiled TIFFs, which OpenSlide reads."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

TILE_PIXELS = 256  # of the TIFF's own tiles


def write_slide(
    path: Path,
    image: np.ndarray,
    mpp: float | tuple[float, float] | None,
    downsamples: Sequence[int] = (1, 4),
    compression: str | None = "adobe_deflate",
    profile: bytes | None = None,
    jpeg: tuple[int, str] | None = None,
) -> Path:
    """Write a pyramidal tiled TIFF.

    Args:
        path: The file.
        image: Level 0, H x W x 3 uint8.
        mpp: Micrometres a pixel (across, down); None writes no resolution.
        downsamples: How many level-0 pixels a pixel of each level spans; 1 first.
        compression: Of the tiles.
        profile: Of its colours; None embeds none.
        jpeg: Quality and chroma subsampling ("4:4:4" or "4:2:0") of tiles stored as JPEG.
    """
    across, down = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    with tifffile.TiffWriter(path) as file:
        for factor in downsamples:
            resolution: dict[str, Any] = {} if across is None or down is None else {
                "resolution": (1e4 / across / factor, 1e4 / down / factor),
                "resolutionunit": "CENTIMETER",
            }  # fmt: skip
            level = reduce(image, factor)
            file.write(
                encode_tiles(level, quality=jpeg[0], subsampling=jpeg[1]) if jpeg else level,
                shape=level.shape,
                dtype=level.dtype,
                tile=(TILE_PIXELS, TILE_PIXELS),
                photometric="ycbcr" if jpeg else "rgb",
                compression=compression,
                metadata=None,
                subfiletype=1 if factor > 1 else 0,
                iccprofile=profile,
                **resolution,
            )
    if jpeg:
        name_jpeg(path)
        with tifffile.TiffFile(path, mode="r+") as file:
            for page in file.pages:
                assert isinstance(page, tifffile.TiffPage)
                page.tags["YCbCrSubSampling"].overwrite({"4:4:4": (1, 1), "4:2:0": (2, 2)}[jpeg[1]])
    return path


def encode_tiles(image: np.ndarray, **options: Any) -> Iterator[bytes]:
    """Yield the tiles as a scanner encodes them, each by itself, black beyond the edges."""
    for top in range(0, image.shape[0], TILE_PIXELS):
        for left in range(0, image.shape[1], TILE_PIXELS):
            part = image[top : top + TILE_PIXELS, left : left + TILE_PIXELS]
            tile = np.zeros((TILE_PIXELS, TILE_PIXELS, 3), np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            yield encode(tile, "JPEG", **options)


def reduce(image: np.ndarray, factor: int) -> np.ndarray:
    """Return means of factor x factor pixels; what is left at the edges makes pixels of its own."""
    return np.asarray(Image.fromarray(image).reduce(factor)) if factor > 1 else image


def encode(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    """Return an image as bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def name_jpeg(path: Path) -> None:
    """Name JPEG as the compression: tifffile writes encoded images, but knows no JPEG."""
    with tifffile.TiffFile(path, mode="r+") as file:
        for page in file.pages:
            assert isinstance(page, tifffile.TiffPage)
            if page.compression != tifffile.COMPRESSION.NONE:
                page.tags["Compression"].overwrite(7)
