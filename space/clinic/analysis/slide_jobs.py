"""Whole slides that a doctor tries: small ones, analysed at once, of which nothing is kept.

A slide lies in a file only while it is looked at, in a folder that is the caller's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bcd_models.errors import ImageError
from bcd_models.images.open import ImageLimits
from bcd_models.models.predictor import Predictor
from bcd_models.prediction import Unsuitable
from bcd_models.slides.output import write
from bcd_models.slides.prediction import UM2_IN_MM2, SlidePrediction
from bcd_models.slides.slide_file import (
    Area,
    PixelSizeError,
    SlideFacts,
    SlideReader,
    read_facts,
)
from bcd_models.slides.slide_format import is_self_contained
from clinic.accounts.permissions import require_doctor
from clinic.storage.actor import Actor
from clinic.storage.files import pack_zip

# More takes minutes of everyone's processor.
MAX_PIXELS, MAX_MM2 = 4_000_000_000, 400
FILE_NAME = "slide"  # what the file is called, whatever the user called it
HINT = "analyse it with bcd slide on a machine of yours"


@dataclass(frozen=True)
class SlideMap:
    """What a model says all over a slide."""

    prediction: SlidePrediction  # the answers
    files: bytes  # heat map, regions, tiles and summary, as a zip
    # the whole slide, where it is no larger than an image that may be examined
    picture: Image.Image | None


def inspect_slide(actor: Actor | None, data: bytes, mpp: float | None, folder: Path) -> SlideFacts:
    """Return what a slide says of itself, if it can be analysed here.

    ``mpp``, micrometres a pixel, takes the place of what it says; its file may lie in ``folder``
    for the moment.

    Raises:
        ImageError: No slide, damaged, too large, or without the size of its pixels.
        InputError: ``mpp`` is not a pixel's.
    """
    require_doctor(actor)
    with _place_slide(data, folder) as path:
        return _read_facts(path, mpp)


def map_slide(
    actor: Actor | None,
    model: Predictor,
    data: bytes,
    mpp: float | None,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    point: str = "",
    suitability: Unsuitable = "refer",
) -> SlideMap:
    """Let a model answer all over a slide; the rest is as in ``inspect_slide``.

    ``progress`` is called with how many tiles are done, and how many there are; ``point`` names the
    operating point, "" is the model's own; ``suitability`` says whether fields that look unsuitable
    are left out, or counted all the same.
    """
    require_doctor(actor)
    with _place_slide(data, folder) as path:
        facts = _read_facts(path, mpp)
        prediction = model.predict_slide(
            path, mpp=mpp, point=point or None, suitability=suitability, progress=progress
        )
        written = {one.name: one.read_bytes() for one in write(prediction, path.parent)}
        return SlideMap(prediction, pack_zip(written), _read_picture(facts))


def _read_picture(facts: SlideFacts) -> Image.Image | None:
    """Return all pixels of a small slide; None of a larger one, or where they can't be read."""
    if facts.width * facts.height > ImageLimits().max_pixels:
        return None
    reader = SlideReader(facts)
    try:
        whole = Area(0, 0, facts.width, facts.height)
        return Image.fromarray(reader.read(whole, 0, (facts.width, facts.height)))
    except ImageError:
        return None
    finally:
        reader.close()


@contextmanager
def _place_slide(data: bytes, folder: Path) -> Iterator[Path]:
    """Yield a slide as a file; what is said of it names no path, and it can name no other file."""
    if not is_self_contained(data):
        raise ImageError(f"the file is no slide in TIFF (SVS, NDPI, ...) or DICOM: {HINT}")
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = Path(own) / FILE_NAME
        path.write_bytes(data)
        try:
            yield path
        except PixelSizeError:
            raise ImageError(
                "the slide does not say how large its pixels are, or says what can't be: type the "
                "micrometres of a pixel, such as 0.25 for a 40x scan and 0.5 for 20x"
            ) from None
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), "the file")) from None


def _read_facts(path: Path, mpp: float | None) -> SlideFacts:
    facts = read_facts(path, mpp)
    if facts.width * facts.height > MAX_PIXELS:
        raise ImageError(
            f"the slide has {facts.width:,} x {facts.height:,} pixels, more than the "
            f"{MAX_PIXELS:,} that are analysed here: {HINT}"
        )
    _, _, width, height = facts.bounds
    area = width * facts.mpp_x * height * facts.mpp_y / UM2_IN_MM2
    if area > MAX_MM2:
        raise ImageError(
            f"the slide shows {area:,.0f} mm², more than the {MAX_MM2} that are analysed here: "
            f"{HINT}"
        )
    return facts
