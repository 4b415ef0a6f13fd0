"""Analyse images: what is handed in, what some models say, and whether its scale fits them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from bcd_models.config import PreprocessConfig
from bcd_models.errors import ImageError, InputError
from bcd_models.explanation import Explanation
from bcd_models.images.open import open_image
from bcd_models.models.predictor import Predictor
from clinic.analysis.models import Models
from clinic.storage.shown_images import encode_png

MAX_IMAGES = 16  # of one analysis
MAX_SCALE_RATIO = 2.0  # times, or part of, the field trained on


@dataclass(frozen=True)
class HandedIn:
    """One image to analyse."""

    data: bytes  # the file's bytes
    field_width_um: float | None = None  # how many micrometres wide its field is; None: not known


@dataclass(frozen=True)
class Analysed:
    """What models said of one image."""

    image: Image.Image  # upright RGB, as the models saw it
    png: bytes  # the same, as it is stored once it is saved
    field_width_um: float | None  # as handed in
    explanations: dict[str, Explanation]  # by model
    warnings: tuple[str, ...]  # why its scale makes the answers less to be relied on


@dataclass(frozen=True)
class Analysis:
    """What models said of images, kept on the server until it is saved."""

    images: tuple[Analysed, ...]  # each of them, in order
    shown: bool  # whether the doctor saw what they said; decides how it is saved
    # whether an answer about one of the images was shown to the doctor before
    shown_before: bool = False


def hand_in(data: bytes, um: float | None = None, um_per_pixel: float | None = None) -> HandedIn:
    """Return an image with the width of its field, said by either of two ways or not known.

    Raises:
        InputError: Both are given, or one that no field has.
        ImageError: Its width in pixels is needed, and it can't be used.
    """
    width = open_image(data).width if um_per_pixel else 0
    return HandedIn(data, field_width(width, um, um_per_pixel))


def field_width(
    width: int, um: float | None = None, um_per_pixel: float | None = None
) -> float | None:
    """Return micrometres that an image of ``width`` pixels is wide; None: not known.

    Either the whole field's or a pixel's are given. InputError where both are, or one that no field
    has.
    """
    if um is not None and um_per_pixel is not None:
        raise InputError("give the field's width or the size of a pixel, not both")
    found = um if um_per_pixel is None else um_per_pixel * width
    if found is not None and not 1 <= found <= 100_000:
        raise InputError(f"a field is 1 to 100,000 µm wide, this one {found:g}")
    return found


def analyse(
    models: Models, handed_in: Sequence[HandedIn], names: Sequence[str]
) -> tuple[Analysed, ...]:
    """Let some models answer about some images; nothing is stored.

    Raises:
        InputError: No image or too many, or no model of a name.
        ImageError: One can't be used; the message says which, by its number.
    """
    if not 1 <= len(handed_in) <= MAX_IMAGES:
        raise InputError(f"hand in 1 to {MAX_IMAGES} images, not {len(handed_in)}")
    if not names or len(set(names)) < len(names):
        raise InputError("choose one or more models, each once")
    opened = [_open_input(one, number) for number, one in enumerate(handed_in, 1)]
    said = {name: _explain(models.load(name), opened) for name in names}
    return tuple(
        Analysed(
            image,
            encode_png(image),
            one.field_width_um,
            {name: said[name][index] for name in names},
            scale_warnings(models, names, one.field_width_um),
        )
        for index, (one, image) in enumerate(zip(handed_in, opened, strict=True))
    )


def scale_warnings(
    models: Models, names: Iterable[str], field_width_um: float | None
) -> tuple[str, ...]:
    """Return why an image's scale speaks against some models' answers; of those still on offer."""
    trained = (models.describe(name).config.preprocess for name in names if name in models.names)
    return tuple(dict.fromkeys(filter(None, (_off_scale(field_width_um, one) for one in trained))))


def _open_input(one: HandedIn, number: int) -> Image.Image:
    try:
        return open_image(one.data)
    except InputError as error:
        raise type(error)(f"image {number}: {error}") from None


def _explain(model: Predictor, images: Sequence[Image.Image]) -> list[Explanation]:
    explanations = []
    for _, found in model.explanations(images):
        if isinstance(found, ImageError):
            raise found
        explanations.append(found)
    return explanations


def _off_scale(field: float | None, trained: PreprocessConfig) -> str:
    """Return why an image's scale speaks against an answer about it, or ""."""
    usual = trained.field_width_um
    if field is None:
        return f"the field's width is not known; the models know fields about {usual:g} µm wide"
    if usual / MAX_SCALE_RATIO <= field <= usual * MAX_SCALE_RATIO:
        return ""
    return f"the field is {field:g} µm wide; the models know fields about {usual:g} µm wide"
