"""Analyse images: what is handed in, what some models say, and whether its scale fits them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from bcd_models.config import Label, PreprocessConfig
from bcd_models.errors import ImageError, InputError
from bcd_models.explanation import Explanation
from bcd_models.images.field import plan_layout
from bcd_models.images.open import ImageLimits, open_image, open_scaled
from bcd_models.images.scale import Scale, give_scale
from bcd_models.models.classifier import BCDClassifier
from bcd_models.prediction import Prediction, Unsuitable
from clinic.analysis import wording
from clinic.analysis.display import reduce_heat_map
from clinic.analysis.models import Models
from clinic.storage.shown_images import encode_png

MAX_IMAGES = 16  # of one analysis
LIMITS = ImageLimits(max_tiles=2_000)  # more takes minutes of everyone's processor


@dataclass(frozen=True)
class HandedIn:
    """One image to analyse."""

    data: bytes  # the file's bytes
    mpp: float | Scale | None = None  # micrometres a pixel; None: what the file says


@dataclass(frozen=True)
class Analysed:
    """What models said of one image."""

    image: Image.Image  # upright RGB, as the models saw it
    png: bytes  # the same, as it is stored once it is saved
    field_width_um: float | None  # how many micrometres wide its field is; None: not known
    # by model; a heat map is at most as large as it is shown
    explanations: dict[str, Explanation]
    warnings: tuple[str, ...]  # what makes the answers less to be relied on


@dataclass(frozen=True)
class Analysis:
    """What models said of images, kept on the server until it is saved."""

    images: tuple[Analysed, ...]  # each of them, in order
    shown: bool  # whether the doctor saw what they said; decides how it is saved
    # whether an answer about one of the images was shown to the doctor before
    shown_before: bool = False


def hand_in(data: bytes, mpp: float | None = None, field_width_um: float | None = None) -> HandedIn:
    """Return an image with its scale, said by either of two ways or left to its file.

    Raises:
        InputError: Both are given, or a scale that no microscope's image has.
        ImageError: Its width in pixels is needed, and it can't be used.
    """
    if mpp is not None and field_width_um is not None:
        raise InputError("give the field's width or the micrometres a pixel, not both")
    if field_width_um is not None:
        mpp = field_width_um / open_image(data).width
    return HandedIn(data, None if mpp is None else give_scale(mpp).mpp_x)


def analyse(
    models: Models,
    handed_in: Sequence[HandedIn],
    names: Sequence[str],
    point: str = "",
    suitability: Unsuitable = "refer",
) -> tuple[Analysed, ...]:
    """Let some models answer about some images; nothing is stored.

    Args:
        models: On offer.
        handed_in: The images.
        names: Of the models that answer.
        point: Name of the operating point; "": each model's own.
        suitability: Whether what looks unsuitable is referred, or answered all the same.

    Raises:
        InputError: No image or too many, no model of a name, or one without such a point.
        ImageError: One can't be used, or shows too much; the message says which, by its number.
    """
    if not 1 <= len(handed_in) <= MAX_IMAGES:
        raise InputError(f"hand in 1 to {MAX_IMAGES} images, not {len(handed_in)}")
    if not names or len(set(names)) < len(names):
        raise InputError("choose one or more models, each once")
    loaded = [models.load(name) for name in names]
    return tuple(
        _analyse_one(models, loaded, point, suitability, *pair) for pair in enumerate(handed_in, 1)
    )


def predict(
    model: BCDClassifier, one: HandedIn, point: str = "", suitability: Unsuitable = "refer"
) -> Prediction:
    """Answer about an image at an operating point; "": the model's own.

    Raises:
        ImageError: It can't be used, or its field is too large.
        InputError: The model has no such point.
    """
    return model.predict(
        one.data, LIMITS, mpp=one.mpp, point=point or None, suitability=suitability
    )


def explain(
    model: BCDClassifier,
    one: HandedIn,
    label: Label | None = None,
    point: str = "",
    suitability: Unsuitable = "refer",
) -> Explanation:
    """Answer about an image and explain a label, by default the answer's own; raises alike."""
    return model.explain(
        one.data,
        label=label,
        limits=LIMITS,
        mpp=one.mpp,
        point=point or None,
        suitability=suitability,
    )


def scale_warnings(
    models: Models, names: Iterable[str], size: tuple[int, int], field_width_um: float | None
) -> tuple[str, ...]:
    """Return why an image's scale speaks against some models' answers; of those still on offer.

    Args:
        models: On offer.
        names: Of the models.
        size: Width and height of the image in pixels.
        field_width_um: How many micrometres wide its field is; None: not known.
    """
    mpp = field_width_um and field_width_um / size[0]
    scale = Scale(mpp, mpp, "") if mpp else None
    trained = (models.describe(name).config.preprocess for name in names if name in models.names)
    return tuple(dict.fromkeys(why for one in trained for why in _find_reasons(size, scale, one)))


def _find_reasons(
    size: tuple[int, int], scale: Scale | None, trained: PreprocessConfig
) -> tuple[str, ...]:
    try:
        return plan_layout(size, scale, trained.mpp, trained.field_width_um).reasons
    except ImageError as error:  # a record may be older than the limit on tiles
        return (str(error),)


def _analyse_one(
    models: Models,
    loaded: Sequence[BCDClassifier],
    point: str,
    suitability: Unsuitable,
    number: int,
    one: HandedIn,
) -> Analysed:
    try:
        image, read = open_scaled(one.data)
        said = {
            model.config.name: explain(model, one, point=point, suitability=suitability)
            for model in loaded
        }
    except ImageError as error:
        raise ImageError(f"image {number}: {error}") from None
    scale = read if one.mpp is None else give_scale(one.mpp)
    width_um = scale.mpp_x * image.width if scale else None
    # One image in memory for all models, and no more of a heat map than is shown.
    kept = {name: replace(reduce_heat_map(answer), image=image) for name, answer in said.items()}
    answers = [answer.prediction for answer in kept.values()]
    warnings = scale_warnings(models, kept, image.size, width_um)
    warnings += wording.suitability_warnings(answers)
    return Analysed(image, encode_png(image), width_um, kept, warnings)
