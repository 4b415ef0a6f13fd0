"""What a network says of rows of a corpus."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bcd_models.config import PreprocessConfig
from bcd_models.images.preprocess import normalise, resize
from bcd_models.local import metrics
from bcd_models.models.classifier import BCDClassifier
from training.corpus import splits
from training.corpus.device import symmetry
from training.corpus.pixels import Rows, StoredPixels

BATCH = 128


def score(
    network: nn.Module,
    rows: Rows,
    preprocess: PreprocessConfig,
    size: int | None = None,
    share: slice = slice(None),
    views: int = 1,
) -> NDArray[np.float64]:
    """Return logit margins (malignant minus benign) of rows, shape (N,).

    Args:
        network: Two logits.
        rows: What to score.
        preprocess: Of the network.
        size: Side of the input; the network's own by default.
        share: Which of the rows.
        views: Turns and reflections averaged, as in a decision rule.
    """
    batches = torch.split(torch.arange(len(rows.pixels))[share], BATCH)
    return score_batches(network, map(rows.pixels.rows, batches), preprocess, size, views)


def score_batches(
    network: nn.Module,
    batches: Iterable[StoredPixels],
    preprocess: PreprocessConfig,
    size: int | None = None,
    views: int = 1,
) -> NDArray[np.float64]:
    """Logit margins of batches of pixels, one after the other; otherwise as ``score``."""
    network = network.eval().to(memory_format=torch.channels_last)
    device = next(network.parameters()).device
    margins = [np.empty(0, np.float32)]
    with torch.inference_mode():
        for stored in batches:
            ready = _resize_as_the_library_does(stored, size or preprocess.input_size)
            inputs = torch.from_numpy(normalise(ready, preprocess)).to(device)
            turned = (symmetry(inputs, which) for which in range(views))
            answers = np.stack([network(one).float().cpu().numpy() for one in turned])
            several = answers[..., 1] - answers[..., 0]
            margins.append(several.mean(0, dtype=np.float64).astype(np.float32))
    return np.concatenate(margins).astype(np.float64)


def score_patches(
    model: BCDClassifier, patches: Iterable[NDArray[np.uint8]], views: int
) -> NDArray[np.float64]:
    """Return what a model itself says of patches of any size, as a user would hear it.

    Args:
        model: Left with these views.
        patches: Each H x W x 3.
        views: Views averaged, as in a decision rule.

    Returns:
        Logit margins (malignant minus benign), shape (N,).
    """
    decision = model.config.decision.model_copy(update={"views": views})
    model.config = model.config.model_copy(update={"decision": decision})
    ready, margins = map(model.prepare, patches), []
    while batch := list(islice(ready, BATCH)):
        margins += model.compute_margins(batch).values
    return np.array(margins, np.float64)


def _resize_as_the_library_does(stored: StoredPixels, size: int) -> list[NDArray[np.uint8]]:
    """Return rows by Pillow's kernel, so that a figure is of what a user's image goes through."""
    ready = [np.empty(0, np.uint8)] * sum(len(pixels) for _, pixels in stored)
    for here, pixels in stored:
        places = range(len(pixels)) if isinstance(here, slice) else here.tolist()
        for place, image in zip(places, pixels.permute(0, 2, 3, 1).numpy(), strict=True):
            ready[place] = resize(image, size)
    return ready


def auroc_within(rows: Rows, margins: NDArray[np.float64]) -> float | None:
    """Return AUROC within the larger source; None where one label is missing there."""
    larger = (rows.frame["source"] == splits.find_larger_source(rows.frame)).to_numpy()
    truth = rows.truth[larger]
    both = truth.any() and not truth.all()
    return metrics.auroc(truth, margins[larger]) if both else None
