"""Images that a page's user has picked: kept in memory while the page is open, never stored."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from bcd_models.images.open import SUFFIXES, open_scaled
from clinic.analysis import wording
from clinic.analysis.analyse import MAX_IMAGES
from clinic.http.failures import user_message
from clinic.ui import result
from clinic.ui.files import add_upload

Images = list[bytes]  # as handed in


def add_images_input() -> gr.File:
    """Add the input that images are handed in by, several at once or one after the other."""
    return add_upload(
        label="Images", file_count="multiple", file_types=sorted(SUFFIXES), height=140
    )


def add(files: Images | None, kept: Images) -> tuple[Images, None]:
    """Add what was handed in to what is kept, and empty the input for more."""
    images = kept + (files or [])
    beyond = len(images) - MAX_IMAGES
    if beyond > 0:
        gr.Warning(f"At most {MAX_IMAGES} images at once: the last {beyond} are left out.")
    return images[:MAX_IMAGES], None


def show_waiting(images: Images, nothing: str) -> str:
    """Return what waits for its analysis, the bad ones with the reason; or ``nothing``."""
    return "".join(map(_show_one, images, numbers(images))) or nothing


def numbers(several: Sequence[object]) -> list[str]:
    """Return what each of several images is called; one alone needs no name."""
    if len(several) == 1:
        return [""]
    return [f"Image {number} of {len(several)}" for number in range(1, len(several) + 1)]


def _show_one(data: bytes, which: str) -> str:
    try:
        image, scale = open_scaled(data)
        return result.show_chosen(image, which, wording.file_scale_words(scale))
    except Exception as error:
        return result.show_failure(user_message(error), which)
