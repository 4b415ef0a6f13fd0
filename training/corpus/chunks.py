"""One chunk of a source, read by one process into an Arrow file: what a corpus is merged from.

Imports little, since every process of a build starts here.
"""

from __future__ import annotations

import hashlib
import io
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
from PIL import Image as Picture

from bcd_models.config import LABELS
from bcd_models.errors import ImageError
from bcd_models.images.open import ImageLimits, open_scaled
from bcd_models.images.scale import Scale, give_scale
from training.corpus.sources import get_source
from training.corpus.sources.source import Image, Refused, Source
from training.corpus.tiles import ROW_MPP, cut_rows

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
        rows = [item] if isinstance(item, Refused) else make_rows(source, item)
        for row in rows:
            if isinstance(row, Refused):
                refused.append(row)
            else:
                yield row


def make_rows(source: Source, item: Image) -> Iterator[dict[str, Any] | Refused]:
    """Yield an image's rows: itself where the source holds patches, else its tiles."""
    try:
        image, read = open_scaled(item.data, _LIMITS)
    except ImageError as error:
        yield Refused(item.name, f"unreadable: {error}")
        return
    if not source.size:
        yield from _cut_rows(source, item, image, read)
    elif image.size == source.size:
        yield _make_row(item, item.name, item.data, image)
    else:
        yield Refused(item.name, f"not {source.size[0]}x{source.size[1]} pixels")


def _cut_rows(
    source: Source, item: Image, image: Picture.Image, read: Scale | None
) -> Iterator[dict[str, Any] | Refused]:
    """Yield the tiles of a field that a model would be shown of it, where most of one is tissue."""
    stated = source.mpp.get(item.magnification)
    scale = item.scale or (give_scale(stated) if stated else read)
    if source.jpeg_quality:
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=source.jpeg_quality, subsampling="4:2:0")
        image = Picture.open(packed)
    try:
        tiles = cut_rows(image, scale)
    except ImageError as error:
        yield Refused(item.name, str(error))
        return
    for tile in tiles:
        picture, file = Picture.fromarray(tile.pixels), io.BytesIO()
        picture.save(file, "PNG")
        yield _make_row(item, tile.name_in(item.name), file.getvalue(), picture)


def _make_row(item: Image, name: str, data: bytes, image: Picture.Image) -> dict[str, Any]:
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    return {
        "image": {"bytes": data, "path": None},
        "label": LABELS.index(item.label),
        "case_id": item.case_id,
        "subtype": item.subtype,
        "magnification": item.magnification,
        "mpp": ROW_MPP,
        "name": name,
        "sha256": pixels,
    }
