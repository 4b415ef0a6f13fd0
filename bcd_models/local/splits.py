"""A user's own labelled images: whether a model can be measured on a split of them at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from bcd_models.errors import ImageError, InputError
from bcd_models.images.colour_statistics import SIZE, measure_colour, score_by_colour
from bcd_models.images.image_list import COLUMNS, PARTS, LabelledImage, read_labelled
from bcd_models.images.open import open_image
from bcd_models.local.metrics import MIN_CASES, auroc
from bcd_models.runtime.ahead import ahead

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAIN = PARTS[0]
IMAGES_AHEAD = 64

Floor = dict[str, float | None]
"""AUROC of each part but train; None where it can't be estimated."""


class Measured(NamedTuple):
    """What is kept of an image.

    Attributes:
        digest: Of its decoded pixels.
        colour: Its colour statistics, shape (24,).
    """

    digest: bytes
    colour: NDArray[np.float64]


@dataclass(frozen=True)
class SplitCheck:
    """What is found of a split.

    Attributes:
        parts: The images of each part.
        shared_cases: The images of each case that is in several parts.
        shared_pixels: Images of several parts with the same pixels, those of each picture together.
        colour_floor: What colour statistics alone reach, fitted on train.
        source_floor: What the source alone reaches; None where there is only one source.
    """

    parts: dict[str, list[LabelledImage]]
    shared_cases: list[list[LabelledImage]]
    shared_pixels: list[list[LabelledImage]]
    colour_floor: Floor
    source_floor: Floor | None

    @property
    def is_clean(self) -> bool:
        """Whether no case and no picture is in several parts."""
        return not (self.shared_cases or self.shared_pixels)


def read_split(path: Path) -> tuple[list[LabelledImage], list[str]]:
    """Read a list with the columns path, label, case and split, perhaps source and mpp too.

    Returns:
        The images of its good lines, and what is wrong with each of the others.

    Raises:
        InputError: The list can't be read, or lacks a column.
    """
    return read_labelled(path, (*COLUMNS, "split"))


def measure_images(images: Iterable[LabelledImage]) -> Iterator[Measured | str]:
    """Yield what is kept of each image, or what is wrong with it; opened in threads ahead."""
    return ahead(_measure_image, images, IMAGES_AHEAD)


def check_split(images: Sequence[LabelledImage], measured: Sequence[Measured]) -> SplitCheck:
    """Check a split for what it shares among its parts, and for what the labels' colours tell.

    Args:
        images: All that is in the split.
        measured: What ``measure_images`` gives of each.

    Raises:
        InputError: There are images of one part only, or none at all.
    """
    parts = {name: [one for one in images if one.part == name] for name in PARTS}
    parts = {name: members for name, members in parts.items() if members}
    if len(parts) < 2:
        raise InputError(
            f"images of {' and '.join(parts) or 'no part'} alone make no split: name those of "
            f"another part too ({', '.join(PARTS)})"
        )
    digests = {one.where: seen.digest for one, seen in zip(images, measured, strict=True)}
    colour = np.array([seen.colour for seen in measured])
    has_sources = len({one.source for one in images}) > 1
    return SplitCheck(
        parts,
        _find_shared(images, lambda image: image.case_id),
        _find_shared(images, lambda image: digests[image.where]),
        _measure_floor(
            images, lambda learnt, truth: score_by_colour(colour[learnt], truth, colour)
        ),
        _measure_floor(images, partial(_score_by_source, images)) if has_sources else None,
    )


def _measure_image(image: LabelledImage) -> Measured | str:
    try:
        opened = open_image(image.file)
    except ImageError as error:  # in words: the error itself would keep the file's bytes
        return f"{image.where}: {error}"
    digest = hashlib.sha256(f"{opened.size} ".encode() + opened.tobytes()).digest()
    small = opened.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return Measured(digest, measure_colour(np.asarray(small, np.float32)[None])[0])


def _find_shared(
    images: Iterable[LabelledImage], key: Callable[[LabelledImage], Hashable]
) -> list[list[LabelledImage]]:
    """Return those images whose key occurs in several parts, those of one key together."""
    alike: dict[Hashable, list[LabelledImage]] = {}
    for image in images:
        alike.setdefault(key(image), []).append(image)
    return [some for some in alike.values() if len({image.part for image in some}) > 1]


def _measure_floor(
    images: Sequence[LabelledImage],
    score: Callable[[NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.float64]],
) -> Floor:
    """Return the AUROC of each part but train.

    Args:
        images: Of all parts.
        score: Given which images are learnt from, shape (N,), and whether each of those is
            malignant, gives the scores of all N.
    """
    part = np.array([image.part for image in images])
    truth = np.array([image.label == "malignant" for image in images])
    learnt = part == TRAIN
    floor: Floor = {name: None for name in PARTS if name != TRAIN and name in part}
    if _has_both(truth[learnt]):
        scores = score(learnt, truth[learnt])
        for name in floor:
            at = part == name
            cases = {image.case_id for image in images if image.part == name}
            if len(cases) >= MIN_CASES and _has_both(truth[at]):
                floor[name] = auroc(truth[at], scores[at])
    return floor


def _has_both(truth: NDArray[np.bool_]) -> bool:
    return bool(truth.any() and not truth.all())


def _score_by_source(
    images: Sequence[LabelledImage], learnt: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the share of malignant images of the same source in train; of all train where new."""
    source = np.array([image.source for image in images])
    known = source[learnt]
    share = {name: truth[known == name].mean() for name in set(known)}
    return np.array([share.get(name, truth.mean()) for name in source])
