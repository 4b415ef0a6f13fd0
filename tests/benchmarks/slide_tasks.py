"""What the slide benchmarks run in processes of their own: each prints one JSON object."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch


def peak(slide: str, model: str, out: str) -> dict[str, float]:
    """Predict a slide and write its files; peak memory in MB."""
    from bcd_models import BCDClassifier

    found = BCDClassifier.from_pretrained(model).predict_slide(slide, out=out)
    return {
        "mb": _peak_mb(),
        "tiles": found.predicted,
        "failed": len(found.failed),
    }


def pace(slide: str, model: str, batch: str) -> dict[str, float]:
    """Tiles a second of a slide, from opening it; and of a bare session on tensors made before.

    Either may use all cores, and as many images go through the session at once.
    """
    from bcd_models import BCDClassifier
    from bcd_models.runtime import piece

    torch.set_num_threads(os.cpu_count() or 1)
    loaded = BCDClassifier.from_pretrained(model)
    size, number = loaded.config.preprocess.input_size, int(batch)
    loaded.predict(np.zeros((50, 50, 3), np.uint8))  # exports the model, where it is not kept yet
    at_once = min(number, piece())
    run = _bare_session(loaded, torch.randn(at_once, 3, size, size))
    run()
    rounds = []
    for _ in range(3):
        started = time.perf_counter()
        found = loaded.predict_slide(slide, batch=number)
        ours = found.predicted / (time.perf_counter() - started)
        started = time.perf_counter()
        for _ in range(found.predicted // at_once):
            run()
        bare = found.predicted // at_once * at_once / (time.perf_counter() - started)
        rounds.append((ours / bare, ours, bare))
    ratio, ours, bare = sorted(rounds)[1]
    return {"ratio": ratio, "ours": ours, "bare": bare, "tiles": found.predicted}


def _peak_mb() -> float:
    """Of this process alone: what getrusage says begins with the peak of who started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def _bare_session(model, ready):  # type: ignore[no-untyped-def]
    import onnxruntime

    from bcd_models.runtime import onnx_bytes

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    exported = onnx_bytes(model.network, model.config.preprocess.input_size)
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    name, pixels = session.get_inputs()[0].name, np.ascontiguousarray(ready.numpy())
    return lambda: session.run(None, {name: pixels})


if __name__ == "__main__":
    print(json.dumps({"peak": peak, "pace": pace}[sys.argv[1]](*sys.argv[2:])))
