"""Degradation of what is learnt from: patch by patch, at the size it is stored at.

It comes before anything is resized, for a blur or noise in pixels of the network's input would be
half as strong. Each draw of a patch has a seed of its own, whoever makes it and when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from bcd_models.local import degradations as d
from bcd_models.local.degradations import Pixels
from training.corpus.device import to_uint8
from training.corpus.pixels import StoredPixels
from training.recipes.schema import HIGHEST_JPEG_QUALITY, Degrade

Rng = np.random.Generator
_Asked = TypeVar("_Asked")
_Done = TypeVar("_Done")
Operation = Callable[[Pixels, float, Rng], Pixels]

JPEG_TIMES = 3  # as often drawn as any other: most images that models meet have been JPEGs
_THREADS = 2
_BATCHES_AHEAD = 4


def degrade(pixels: Pixels, strengths: Degrade, rng: Rng) -> Pixels:
    """Degrade one patch in one or two of the ways that have a strength, or spare it."""
    own = strengths.list_strengths()
    usable = [name for name in OPERATIONS if name in own]
    if not usable or rng.random() < strengths.spared:
        return pixels
    weights = np.array([JPEG_TIMES if name == "jpeg" else 1 for name in usable])
    count = min(int(rng.integers(1, 3)), len(usable))
    drawn = rng.choice(len(usable), count, replace=False, p=weights / weights.sum())
    for which in sorted(drawn):
        name = usable[which]
        pixels = OPERATIONS[name](pixels, own[name], rng)
    return pixels


def degrade_rows(
    rows: StoredPixels, strengths: Degrade, seeds: Sequence[tuple[int, ...]]
) -> StoredPixels:
    """Degrade rows as ``Pixels.rows`` gives them; one seed a row, in the batch's order."""
    places = np.arange(len(seeds))
    return [
        (
            here,
            to_uint8(
                np.stack(
                    [
                        degrade(patch, strengths, np.random.default_rng(seeds[place]))
                        for patch, place in zip(
                            pixels.permute(0, 2, 3, 1).numpy(), places[here], strict=True
                        )
                    ]
                )
            ),
        )
        for here, pixels in rows
    ]


def work_ahead(act: Callable[[_Asked], _Done], asked: Iterable[_Asked]) -> Iterator[_Done]:
    """Do acts in threads a few ahead of who takes what they give; in order.

    Pillow, NumPy and SciPy let go of the interpreter for most of their work.
    """
    waiting: deque[Future[_Done]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        for one in asked:
            waiting.append(threads.submit(act, one))
            if len(waiting) > _BATCHES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _draw_around_one(strength: float, rng: Rng) -> float:
    return rng.uniform(1 - strength, 1 + strength)


def _draw_factor(strength: float, rng: Rng) -> float:
    return float((1 + strength) ** rng.uniform(-1, 1))


def _resample(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    there, back = (d.KERNELS[which] for which in rng.integers(len(d.KERNELS), size=2))
    return d.resample(pixels, rng.uniform(1 - strength, 1), there, back)


def _save_as_jpeg(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    lowest = HIGHEST_JPEG_QUALITY - round(strength)
    quality = int(rng.integers(lowest, HIGHEST_JPEG_QUALITY, endpoint=True))
    return d.compress_as_jpeg(pixels, quality, "4:2:0" if rng.random() < 0.5 else "4:4:4")


# In the order in which an image meets them: slide, stain, lamp, lens, sensor, file.
OPERATIONS: dict[str, Operation] = {
    "scale": lambda p, s, rng: d.zoom(p, _draw_factor(s, rng)),
    "stain": lambda p, s, rng: d.scale_stains(p, *rng.uniform(1 - s, 1 + s, 3)),
    "hue": lambda p, s, rng: d.shift_hue(p, rng.uniform(-s, s)),
    "brightness": lambda p, s, rng: d.scale_brightness(p, _draw_around_one(s, rng)),
    "contrast": lambda p, s, rng: d.scale_contrast(p, _draw_around_one(s, rng)),
    "gamma": lambda p, s, rng: d.apply_gamma(p, _draw_factor(s, rng)),
    "blur": lambda p, s, rng: d.blur(p, rng.uniform(0, s)),
    "resampling": _resample,
    "noise": lambda p, s, rng: d.add_noise(p, rng.uniform(0, s), rng),
    "sharpening": lambda p, s, rng: d.sharpen(p, rng.uniform(0, s)),
    "jpeg": _save_as_jpeg,
}
