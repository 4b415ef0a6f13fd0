"""What a model's answers are measured beside: a bare session, and no gate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bcd_models import BCDClassifier
from bcd_models.hub.folder import GRAPH
from bcd_models.runtime.choice import thread_count
from bcd_models.runtime.onnx_forward import INPUT, LOGITS, open_session


def bare(model: BCDClassifier, images: int) -> Callable[[], object]:
    """Runs the session on so many ready tensors at once: all threads, the library's options."""
    side = model.config.preprocess.input_size
    stored = model._stored
    assert stored
    session = open_session(stored.graphs[GRAPH], stored.weights, thread_count())
    pixels = np.random.default_rng(0).normal(size=(images, 3, side, side)).astype(np.float32)
    return lambda: session.run([LOGITS], {INPUT: pixels})


def leave_out_gate(model: BCDClassifier) -> None:
    """Let a model answer for whatever it is shown: the gate's cost has rows of its own."""
    model.config = model.config.model_copy(update={"suitability": None})
