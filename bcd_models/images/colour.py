"""Colours as a file stores them -> sRGB, by the profile embedded in the file."""

from __future__ import annotations

from collections.abc import Callable

from PIL import ImageCms

from bcd_models.errors import ImageError


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
