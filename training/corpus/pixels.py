"""Rows of a corpus with their pixels, and batches of these on the device.

The pixels of a corpus are decoded once into flat files beside it, one for each shape, and mapped
from there: memory holds no more than the batch at hand. Images at least as
large as the largest input a recipe asks for are squashed to that size on the way; resizing to the
input, and augmentation, are the device's.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bcd_models.errors import InputError
from bcd_models.images.open import ImageLimits, open_pixels
from training.corpus.device import resize, to_uint8

_CHUNK = 512
_HOME, _SHAPES = "home.npy", "shapes.json"
_LIMITS = ImageLimits(min_side=1)

_EVERY = slice(None)

StoredPixels = list[tuple[NDArray[np.int64] | slice, Tensor]]
"""For each shape in a batch: places in the batch, and their pixels as uint8 N x 3 x H x W."""


class Pixels:
    """The pixels of some corpus rows, as uint8.

    Args:
        rows: The corpus, as loaded from its folder.
        indices: Which rows.
        largest: Side in pixels of the largest input that will be asked for.

    Raises:
        InputError: The packed pixels can't be written beside the corpus.
    """

    def __init__(self, rows: datasets.Dataset, indices: NDArray[np.int64], largest: int) -> None:
        folder = pack_pixels(rows, largest)
        self._group, self._place = np.load(folder / _HOME)[indices].T.copy()
        shapes = json.loads((folder / _SHAPES).read_text())
        self._groups = {
            group: _map_file(folder / name).reshape(-1, *shape)
            for group, (name, shape) in enumerate(shapes.items())
            if group in self._group
        }

    def __len__(self) -> int:
        return len(self._place)

    def rows(self, positions: Tensor) -> StoredPixels:
        """Return the pixels of some rows as stored.

        They are copied here: a thread that copied them ahead would cost more than it saves.
        """
        asked = positions.numpy()
        places = self._place[asked]
        if len(self._groups) == 1:
            (pixels,) = self._groups.values()
            return [(_EVERY, to_uint8(pixels[places]))]
        groups = self._group[asked]
        here = {group: np.flatnonzero(groups == group) for group in self._groups}
        return [
            (here[group], to_uint8(pixels[places[here[group]]]))
            for group, pixels in self._groups.items()
            if len(here[group])
        ]

    def batch(self, positions: Tensor, size: int, device: torch.device) -> Tensor:
        """Return pixels of some rows on the device, N x 3 x size x size, float32 from 0 to 255."""
        return resize_rows(self.rows(positions.cpu()), size, device)


@dataclass
class Rows:
    """Some rows of a corpus, ready to train or evaluate on.

    Attributes:
        frame: One line a row: label, source, case_id.
        pixels: Their pixels, in the same order.
        taught: P(malignant) that teachers give each row, NaN where they say nothing; or None.
    """

    frame: pd.DataFrame
    pixels: Pixels
    taught: NDArray[np.float64] | None = None

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Whether each row is malignant."""
        return np.asarray(self.frame["label"] == "malignant")


def select_rows(
    corpus: datasets.Dataset, frame: pd.DataFrame, indices: NDArray[np.int64], largest: int
) -> Rows:
    """Select rows of a corpus by position; ``frame`` is the whole corpus' table."""
    chosen = frame.iloc[indices].reset_index(drop=True)
    return Rows(chosen, Pixels(corpus, indices, largest))


def resize_rows(rows: StoredPixels, size: int, device: torch.device) -> Tensor:
    """Resize what ``Pixels.rows`` gives to N x 3 x size x size, float32 from 0 to 255."""
    if len(rows) == 1:
        return resize(_move(rows[0][1], device), size)
    out = torch.empty(sum(len(pixels) for _, pixels in rows), 3, size, size, device=device)
    for here, pixels in rows:
        out[torch.as_tensor(here, device=device)] = resize(_move(pixels, device), size)
    return out


def pack_pixels(rows: datasets.Dataset, largest: int) -> Path:
    """Pack a corpus' pixels when first asked for; returns the folder.

    It appears only when complete. Of several processes that ask at once, one packs.
    """
    corpus = Path(rows.cache_files[0]["filename"]).parent
    folder = corpus / f".pixels-{largest}"
    if folder.is_dir():
        return folder
    beside = corpus / f"{folder.name}.new"
    try:
        with FileLock(corpus / f"{folder.name}.lock"):
            if folder.is_dir():  # another process was first
                return folder
            shutil.rmtree(beside, ignore_errors=True)  # a kill may have left it
            beside.mkdir()
            _pack(rows, largest, beside)
            beside.rename(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise InputError(
            f"pixels can't be packed into {corpus}: {error}; make room, or copy the corpus"
        ) from None
    return folder


def _map_file(path: Path) -> NDArray[np.uint8]:
    """Map a file, which the system reads at once: row by row at random, disks are slow."""
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapping.madvise(mmap.MADV_WILLNEED)
    return np.frombuffer(mapping, np.uint8)


def _pack(rows: datasets.Dataset, largest: int, folder: Path) -> None:
    """Write each shape's images into a file of its own, and where each row's are."""
    encoded = rows.select_columns("image").cast_column("image", datasets.Image(decode=False))
    home = np.empty((len(rows), 2), np.int64)
    counts: dict[tuple[int, ...], int] = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in tqdm(range(0, len(rows), _CHUNK), "packing pixels", disable=None):
            images = encoded[start : start + _CHUNK]["image"]
            decoded = list(threads.map(lambda image: _decode(image["bytes"], largest), images))
            for shape in dict.fromkeys(pixels.shape for pixels in decoded):
                alike = [i for i, pixels in enumerate(decoded) if pixels.shape == shape]
                before = counts.setdefault(shape, 0)
                home[[start + i for i in alike], 0] = list(counts).index(shape)
                home[[start + i for i in alike], 1] = range(before, before + len(alike))
                counts[shape] += len(alike)
                with (folder / _name_shape(shape)).open("ab") as file:
                    file.writelines(decoded[i].tobytes() for i in alike)
    np.save(folder / _HOME, home)
    (folder / _SHAPES).write_text(json.dumps({_name_shape(shape): shape for shape in counts}))


def _name_shape(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}.u8"


def _decode(data: bytes, largest: int) -> NDArray[np.uint8]:
    pixels = open_pixels(data, _LIMITS)
    if min(pixels.shape[:2]) < largest:
        return pixels
    reduced = resize(to_uint8(pixels[None]), largest).to(torch.uint8)
    return reduced[0].permute(1, 2, 0).numpy()


def _move(pixels: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        return pixels.pin_memory().to(device, non_blocking=True)
    return pixels.to(device)
