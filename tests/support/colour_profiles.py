"""Colour profiles to embed in images and slides."""

from __future__ import annotations

from typing import Literal

from PIL import ImageCms


def profile(name: Literal["sRGB", "LAB"]) -> bytes:
    """Return one of littleCMS's own."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def swapped_primaries() -> bytes:
    """Return a profile whose red is sRGB's green, and the other way round."""
    srgb = profile("sRGB")
    return srgb.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
