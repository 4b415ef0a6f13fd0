"""Pillow's bare decoding, in a module that imports nothing else: a baseline for processes."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from training.corpus.sources.files import list_png_files


def decode(path: Path, part: int, parts: int) -> int:
    """Read and decode one part of an archive's images with Pillow, and no more."""
    count = 0
    for _, read in list_png_files(path, part, parts):
        Image.open(io.BytesIO(read())).convert("RGB")
        count += 1
    return count
