"""A model's bare ONNX Runtime session: what its answers can't be quicker than."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bcd_models import BCDClassifier
from bcd_models.runtime.forward import INPUT, OUTPUT, _session, onnx_bytes


def bare(model: BCDClassifier, images: int) -> Callable[[], object]:
    """Runs the session on so many ready tensors at once: all threads, the library's options."""
    side = model.config.preprocess.input_size
    session = _session(onnx_bytes(model._own("network"), side), torch.get_num_threads())
    pixels = torch.randn(images, 3, side, side).numpy()
    return lambda: session.run([OUTPUT], {INPUT: pixels})
