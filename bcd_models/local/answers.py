"""A model's answers about a list of labelled images, read once and ahead of the network."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from bcd_models.errors import ImageError, InputError
from bcd_models.images.field import UNKNOWN
from bcd_models.images.image_list import LabelledImage
from bcd_models.local.metrics import Bools, Floats
from bcd_models.models.predictor import Predictor
from bcd_models.prediction import IN_BAND, Prediction
from bcd_models.runtime.ahead import ahead

FILES_AHEAD = 64

Item = TypeVar("Item")


class Progress(Protocol):
    """Passes items on, and shows how far it is."""

    def __call__(self, items: Iterable[Item], total: int, label: str, /) -> Iterator[Item]:
        """Yield the items, of which there are ``total``."""


def pass_on(items: Iterable[Item], _total: int, _label: str) -> Iterator[Item]:
    """Pass items on and show nothing."""
    yield from items


@dataclass(frozen=True)
class Answers:
    """What a model says of labelled images.

    Attributes:
        images: Those that could be used.
        predictions: One for each.
        faults: Why each of the others could not, in words.
        fingerprint: SHA-256 of the images' files, labels, cases and scales, in any order.
    """

    images: tuple[LabelledImage, ...]
    predictions: tuple[Prediction, ...]
    faults: tuple[str, ...]
    fingerprint: str

    @contextmanager
    def report_faults(self) -> Iterator[None]:
        """Add to an InputError which images are referred or could not be used: it may be why."""
        try:
            yield
        except InputError as error:
            told = list(self.describe_referred())
            if self.faults:
                told.append(
                    f"{len(self.faults)} of the listed could not be used, as {self.faults[0]}"
                )
            if not told:
                raise
            raise InputError(f"{error} ({'; '.join(told)})") from None

    @property
    def probability(self) -> Floats:
        """Calibrated P(malignant) of each, of several tiles the largest, shape (N,)."""
        return np.array([one.probability for one in self.predictions])

    @property
    def labels(self) -> list[str]:
        """What each image is, as the list says."""
        return [one.label for one in self.images]

    @property
    def cases(self) -> list[str]:
        """Of which case each image is."""
        return [one.case_id for one in self.images]

    @property
    def sources(self) -> list[str]:
        """Where each image comes from."""
        return [one.source for one in self.images]

    @property
    def referred(self) -> Bools:
        """Whether each is referred for another reason than the referral band."""
        return np.array([any(why != IN_BAND for why in one.reasons) for one in self.predictions])

    @property
    def unscaled(self) -> int:
        """How many images are referred because nobody knows their scale."""
        return sum(one.scale == UNKNOWN for one in self.predictions)

    def describe_referred(self) -> Iterator[str]:
        """Say how many images are referred for another reason than the band, and what to do."""
        of = f"of {len(self.images):,} images"
        if self.unscaled:
            yield (
                f"{self.unscaled:,} {of} have no known scale and are referred: give the "
                "micrometres a pixel in a column mpp of the list"
            )
        if found := self.findings:
            words = {one.name: one.words for said in self.predictions for one in said.findings}
            named = ", ".join(f"{words[name]} {images:,}" for name, images in found.items())
            yield f"{sum(found.values()):,} {of} look unsuitable and are referred: {named}"
        others = [
            one.reasons[0]
            for one, is_referred in zip(self.predictions, self.referred, strict=True)
            if is_referred and one.scale != UNKNOWN and not one.is_unsuitable
        ]
        if others:
            yield f"{len(others):,} {of} are referred for another reason, such as: {others[0]}"

    def keep(self, mask: Bools) -> Answers:
        """Return some of the answers, of the same list: fingerprint and faults stay."""
        places = np.flatnonzero(mask)
        images, predictions = self.images, self.predictions
        return replace(
            self,
            images=tuple(images[place] for place in places),
            predictions=tuple(predictions[place] for place in places),
        )

    @property
    def larger_fields(self) -> int:
        """How many show more than one field of the model's."""
        return sum(bool(one.tile_probabilities) for one in self.predictions)

    @property
    def findings(self) -> dict[str, int]:
        """How many images are referred for what the gate found, by what it found most there."""
        refused = (one.findings[0].name for one in self.predictions if one.is_unsuitable)
        return dict(Counter(refused).most_common())


def answer(
    model: Predictor,
    images: Sequence[LabelledImage],
    point: str | None = None,
    progress: Progress = pass_on,
) -> Answers:
    """Answer about labelled images, in batches, opened in threads ahead; each file counts once.

    Raises:
        InputError: None of the images can be used, or the model has no such operating point.
    """
    stream = model.stream(
        [one.file for one in images], mpp=[find_mpp(one) for one in images], point=point
    )
    used, predictions, faults = [], [], []
    for image, (_, said) in zip(images, progress(stream, len(images), "predicting"), strict=True):
        if isinstance(said, ImageError):
            faults.append(f"{image.where}: {said}")
        else:
            used.append(image)
            predictions.append(said)
    if not used:
        raise InputError("none of the listed images can be used: " + "; ".join(faults[:1]))
    digests = list(ahead(_digest, used, FILES_AHEAD))
    first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
    for place, digest in enumerate(digests):
        if first[digest] != place:
            faults.append(f"{used[place].where}: the same image as in {used[first[digest]].where}")
    once = sorted(first.values())
    images = tuple(used[place] for place in once)
    fingerprint = _fingerprint([digests[place] for place in once], images)
    return Answers(images, tuple(predictions[place] for place in once), tuple(faults), fingerprint)


def find_mpp(image: LabelledImage) -> float | None:
    """Return the micrometres a pixel that the list states; None: the file says, or nobody."""
    return image.scale.mpp_x if image.scale else None


def _fingerprint(digests: Sequence[str], images: Sequence[LabelledImage]) -> str:
    lines = sorted(
        f"{digest} {one.label} {one.case_id} {find_mpp(one)}"
        for digest, one in zip(digests, images, strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(image: LabelledImage) -> str:
    return hashlib.sha256(image.file.read_bytes()).hexdigest()
