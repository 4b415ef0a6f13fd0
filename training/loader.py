"""Corpus rows -> batches of uint8 pixels on the device.

Images of one size lie together in one array; a batch is sliced from it, moved, and resized on the
device. Larger images are squashed once, to the largest size the recipe asks for.
"""

from __future__ import annotations

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bcd_models.images import ImageLimits, open_image
from bcd_models.preprocess import resize, to_uint8


class Pixels:
    """The pixels of some corpus rows, as uint8.

    Args:
        rows: The corpus.
        indices: Which rows.
        largest: Side in pixels of the largest input that will be asked for.
    """

    def __init__(self, rows: datasets.Dataset, indices: NDArray[np.int64], largest: int) -> None:
        encoded = rows.select(indices).cast_column("image", datasets.Image(decode=False))
        by_shape: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
        for position, image in enumerate(encoded["image"]):
            pixels = _decode(image["bytes"], largest)
            by_shape.setdefault(tuple(pixels.shape), []).append((position, pixels))
        self._groups = [torch.stack([p for _, p in group]) for group in by_shape.values()]
        self._home = torch.empty(len(indices), 2, dtype=torch.long)
        for g, group in enumerate(by_shape.values()):
            for offset, (position, _) in enumerate(group):
                self._home[position] = torch.tensor([g, offset])

    def __len__(self) -> int:
        return len(self._home)

    def batch(self, positions: Tensor, size: int, device: torch.device) -> Tensor:
        """Pixels of some rows, N x 3 x size x size, float32 from 0 to 255, on the device."""
        home = self._home[positions.cpu()]
        out = torch.empty(len(home), 3, size, size, device=device)
        for g, group in enumerate(self._groups):
            here = (home[:, 0] == g).nonzero().squeeze(1)
            if len(here):
                out[here.to(device)] = resize(group[home[here, 1]].to(device), size)
        return out


def _decode(data: bytes, largest: int) -> Tensor:
    pixels = to_uint8(open_image(data, ImageLimits(min_side=1)))
    if min(pixels.shape[-2:]) >= largest:
        return resize(pixels.unsqueeze(0), largest)[0].to(torch.uint8)
    return pixels
