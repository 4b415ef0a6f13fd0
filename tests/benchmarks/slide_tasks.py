"""What the slide benchmarks run in processes of their own: each prints one JSON object."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np

from bcd_models.slides.grid import MAX_BLOCK_PIXELS
from tests.benchmarks.bare_session import bare


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
    """Tiles a second of a slide, from opening it; and of OpenSlide with a bare session.

    That reads all of the same level and runs its session on tensors made before. Either may use all
    cores.
    """
    from bcd_models import BCDClassifier

    os.environ["OMP_NUM_THREADS"] = str(os.cpu_count() or 1)
    loaded = BCDClassifier.from_pretrained(model)
    number = int(batch)
    loaded.predict(np.zeros((50, 50, 3), np.uint8))  # exports the model, where it is not kept yet
    session = bare(loaded, number)
    session()
    rounds = []
    for _ in range(3):
        started = time.perf_counter()
        found = loaded.predict_slide(slide, batch=number)
        ours = found.predicted / (time.perf_counter() - started)
        started = time.perf_counter()
        _read_level(slide, found.level)
        for _ in range(found.predicted // number):
            session()
        theirs = found.predicted // number * number / (time.perf_counter() - started)
        rounds.append((ours / theirs, ours, theirs))
    ratio, ours, theirs = sorted(rounds)[1]
    return {"ratio": ratio, "ours": ours, "bare": theirs, "tiles": found.predicted}


def _read_level(slide: str, level: int) -> None:
    import openslide

    with openslide.OpenSlide(slide) as opened:
        width, height = opened.level_dimensions[level]
        scale = opened.level_downsamples[level]
        for top in range(0, height, MAX_BLOCK_PIXELS):
            for left in range(0, width, MAX_BLOCK_PIXELS):
                size = min(MAX_BLOCK_PIXELS, width - left), min(MAX_BLOCK_PIXELS, height - top)
                opened.read_region((round(left * scale), round(top * scale)), level, size)


def _peak_mb() -> float:
    """Of this process alone: what getrusage says begins with the peak of who started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


if __name__ == "__main__":
    print(json.dumps({"peak": peak, "pace": pace}[sys.argv[1]](*sys.argv[2:])))
