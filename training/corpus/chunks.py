"""One chunk of a source, read by one process into an Arrow file: what a corpus is merged from.

Imports little, since every process of a build starts here.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from bcd_models.config import LABELS
from bcd_models.errors import ImageError
from bcd_models.images.open import ImageLimits, open_image
from training.corpus.sources import get_source
from training.corpus.sources.source import Image, Refused, Source

WRITE_BATCH = 256
_LIMITS = ImageLimits(min_side=1)


def begin_process() -> None:
    """Prepare a reading process.

    Ctrl-C is for its parent to answer: the chunk at hand is ended and kept. A parent that is killed
    must not leave it waiting for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def read_chunk(
    name: str, number: int, path: Path, chunk: int, chunks: int, file: Path, schema: pa.Schema
) -> None:
    """Write the rows of one chunk into an Arrow file, and what was left out beside it.

    Args:
        name: The source.
        number: What stands for it in a row.
        path: Its folder, archive or list.
        chunk: Which chunk, from 0.
        chunks: Of how many.
        file: What to write; appears only when complete. What was left out goes beside it as JSON.
        schema: Of a corpus row, its labels and sources as numbers.
    """
    refused: list[Refused] = []
    beside = file.with_suffix(".new")
    read = _read_rows(get_source(name), path, chunk, chunks, refused)
    rows = ({**row, "source": number} for row in read)
    with pa.OSFile(str(beside), "wb") as out, pa.ipc.new_stream(out, schema) as writer:
        while batch := list(islice(rows, WRITE_BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
    left_out = [[f"{name}/{r.name}", r.reason] for r in refused]
    file.with_suffix(".json").write_text(json.dumps(left_out))
    beside.rename(file)


def _read_rows(
    source: Source, path: Path, chunk: int, chunks: int, refused: list[Refused]
) -> Iterator[dict[str, Any]]:
    for item in source.read(path, chunk, chunks):
        row = item if isinstance(item, Refused) else _make_row(source, item)
        if isinstance(row, Refused):
            refused.append(row)
        else:
            yield row


def _make_row(source: Source, item: Image) -> dict[str, Any] | Refused:
    try:
        image = open_image(item.data, _LIMITS)
    except ImageError as error:
        return Refused(item.name, f"unreadable: {error}")
    if source.size and image.size != source.size:
        return Refused(item.name, f"not {source.size[0]}x{source.size[1]} pixels")
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    return {
        "image": {"bytes": item.data, "path": None},
        "label": LABELS.index(item.label),
        "case_id": item.case_id,
        "subtype": item.subtype,
        "magnification": item.magnification,
        "name": item.name,
        "sha256": pixels,
    }
