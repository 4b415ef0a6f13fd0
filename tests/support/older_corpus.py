"""A corpus as release 0.2 wrote it: whole BreaKHis images, no scale, counts of schema 1."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets

from bcd_models.config import LABELS
from bcd_models.images.open import ImageLimits, open_image
from training.corpus import build as corpus
from training.corpus import splits
from training.corpus.sources import SOURCES
from training.corpus.sources.breakhis import BREAKHIS
from training.corpus.sources.source import Image


def write(built: Path, archive: Path, out: Path) -> Path:
    """Write the corpus that the older code made of the same sources.

    Args:
        built: A corpus of today.
        archive: The BreaKHis archive that it was built from.
        out: The folder to write.
    """
    rows, about = corpus.load(built)
    patches = rows.filter(lambda source: source == 0, input_columns="source").remove_columns("mpp")
    images = [
        _make_row(image) for image in BREAKHIS.read(archive, 0, 1) if isinstance(image, Image)
    ]
    whole = datasets.Dataset.from_list(images, features=patches.features)
    rows = datasets.concatenate_datasets([whole, patches])
    table = splits.read_table(rows)
    rows.save_to_disk(out)
    about |= {
        "schema_version": 1,
        "fingerprint": corpus.compute_fingerprint(table),
        "rows": len(rows),
    }
    for name, source in about["sources"].items():
        here = table[table["source"] == name]
        source |= {"images": len(here), "labels": here["label"].value_counts().to_dict()}
        source["magnifications"] = here["magnification"].value_counts().to_dict()
        del source["rows"], source["label_rows"]
    (out / corpus.ABOUT).write_text(json.dumps(about))
    splits.write_all(table, about["fingerprint"], out)
    return out


def _make_row(found: Image) -> dict[str, Any]:
    image = open_image(found.data, ImageLimits(min_side=1))
    return {
        "image": {"bytes": found.data, "path": None},
        "label": LABELS.index(found.label),
        "source": list(SOURCES).index(BREAKHIS.name),
        "case_id": found.case_id,
        "subtype": found.subtype,
        "magnification": found.magnification,
        "name": found.name,
        "sha256": hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest(),
    }
