"""The page of a corpus: what it holds, what it looks like, what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from PIL import Image

from bcd_models.images.open import ImageLimits, open_image
from training import pages

PAGE = "corpus.md"
TILE, ACROSS, DOWN = 96, 8, 4
MAX_LISTED = 50  # files left out that the page names


def write(rows: datasets.Dataset, frame: pd.DataFrame, about: dict[str, Any], folder: Path) -> None:
    """Write ``corpus.md`` and a contact sheet of each source and label."""
    for name, source in about["sources"].items():
        for label in source["labels"]:
            chosen = frame.index[(frame["source"] == name) & (frame["label"] == label)]
            _contact_sheet(rows, chosen).save(folder / f"{name}-{label}.png")
    sizes = {
        name: frame[frame["source"] == name].groupby("case_id").size() for name in about["sources"]
    }
    template = Path(__file__).with_name(PAGE)
    text = pages.render(
        template, about=about, sizes=sizes, extent=describe_extent, listed=MAX_LISTED
    )
    (folder / PAGE).write_text(text, "utf-8")


def describe_extent(source: dict[str, Any]) -> str:
    """Say how much of the full data set was found; ``source`` as in ``corpus.json``."""
    if not source["full_set"]["labels"]:
        return f"what was handed in: {source['images']:,} images of {source['cases']:,} cases"
    images, cases = sum(source["full_set"]["labels"].values()), source["full_set"]["cases"]
    found = f"{source['found']:,} of the full set's {images:,} images"
    if source["found"] == images and source["cases"] == cases:
        return f"the full set: {found}, all {cases} cases"
    kind = "more than" if source["found"] > images else "a part of"
    share = source["found"] / images
    return f"{kind} the full set: {found} ({share:.1%}), {source['cases']} of {cases} cases"


def _contact_sheet(rows: datasets.Dataset, indices: pd.Index) -> Image.Image:
    """Return images evenly spread over the rows, each squashed to a tile."""
    sheet = Image.new("RGB", (TILE * ACROSS, TILE * DOWN), "white")
    count = min(len(indices), ACROSS * DOWN)
    encoded = rows.cast_column("image", datasets.Image(decode=False))
    for place in range(count):
        data = encoded[int(indices[place * len(indices) // count])]["image"]["bytes"]
        tile = open_image(data, ImageLimits(min_side=1)).resize((TILE - 2, TILE - 2))
        sheet.paste(tile, (place % ACROSS * TILE + 1, place // ACROSS * TILE + 1))
    return sheet
