"""Integrated gradients (Sundararajan et al., ICML 2017), by captum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bcd_models.explain.cells import find_edges, find_fill, spread
from bcd_models.runtime.choice import require_explainer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from bcd_models.config import DecisionConfig, Label
    from bcd_models.runtime.torch_forward import TorchForward

STEPS = 32
FORWARDS_AT_ONCE = 32


def compute_integrated_gradients(
    forward: TorchForward,
    inputs: NDArray[np.float32],
    decision: DecisionConfig,
    label: Label,
) -> NDArray[np.float32]:
    """Return what each cell's pixels contribute, as ``methods.Compute`` says.

    From an image of the mean colour to the image itself; the cells of a grid add up to the
    difference of these two margins.

    Raises:
        InputError: captum is missing.
    """
    require_explainer("captum")
    import torch
    from captum.attr import IntegratedGradients

    with torch.inference_mode(False), torch.enable_grad():
        network = forward.copy_network()

        def margins_of(pixels: Tensor) -> Tensor:
            logits: Tensor = network(pixels)
            return logits[:, 1] - logits[:, 0]

        pixels, fill = (
            torch.from_numpy(values).to(forward.device)
            for values in (inputs, np.broadcast_to(find_fill(inputs), inputs.shape).copy())
        )
        found = IntegratedGradients(margins_of).attribute(
            pixels, fill, n_steps=STEPS, internal_batch_size=max(FORWARDS_AT_ONCE, len(inputs))
        )
        by_pixel: NDArray[np.float64] = found.detach().sum(1).cpu().numpy()
    begin = find_edges(inputs.shape[-1])[:-1]
    contributions = np.add.reduceat(np.add.reduceat(by_pixel, begin, 1), begin, 2)
    return spread(contributions.astype(np.float32), decision, label)
