"""The page of a corpus: what it holds, what it looks like, what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from PIL import Image

from bcd_models.images.open import ImageLimits, open_image

PAGE = "corpus.md"
TILE, ACROSS, DOWN = 96, 8, 4
LISTED = 50


def write(rows: datasets.Dataset, frame: pd.DataFrame, about: dict[str, Any], folder: Path) -> None:
    """Write ``corpus.md`` and a contact sheet of each source and label."""
    lines = [
        "# Corpus",
        "",
        f"{about['rows']:,} images, fingerprint `{about['fingerprint']}`. For research use only.",
    ]
    for name, source in about["sources"].items():
        lines += _source(name, source, frame[frame["source"] == name])
        for label in source["labels"]:
            chosen = frame.index[(frame["source"] == name) & (frame["label"] == label)]
            sheet = f"{name}-{label}.png"
            _contact_sheet(rows, chosen).save(folder / sheet)
            lines += [f"![{label} images of {name}]({sheet})", ""]
    (folder / PAGE).write_text("\n".join([*lines, *_left_out(about)]) + "\n")


def extent(source: dict[str, Any]) -> str:
    """What part of the full data set was found, in words; ``source`` as in ``corpus.json``."""
    images, cases = sum(source["full_set"]["labels"].values()), source["full_set"]["cases"]
    found = f"{source['found']:,} of the full set's {images:,} images"
    if source["found"] == images and source["cases"] == cases:
        return f"the full set: {found}, all {cases} cases"
    kind = "more than" if source["found"] > images else "a part of"
    share = source["found"] / images
    return f"{kind} the full set: {found} ({share:.1%}), {source['cases']} of {cases} cases"


def _source(name: str, source: dict[str, Any], frame: pd.DataFrame) -> list[str]:
    full = source["full_set"]
    sizes = frame.groupby("case_id").size()
    return [
        "",
        f"## {name}: {source['title']}",
        "",
        f"{source['labels_mean']}. {source['licence']}; {source['citation']}.",
        "",
        "| | kept | full set |",
        "| --- | --- | --- |",
        *(
            f"| {label} | {count:,} | {full['labels'][label]:,} |"
            for label, count in source["labels"].items()
        ),
        f"| cases | {source['cases']} | {full['cases']} |",
        *(f"| {mag} | {count:,} | |" for mag, count in sorted(source["magnifications"].items())),
        "",
        f"This is {extent(source)}. A case has "
        f"{sizes.min()} to {sizes.max()} images, the median {sizes.median():g}; the largest holds "
        f"{sizes.max() / sizes.sum():.0%}.",
        "",
    ]


def _contact_sheet(rows: datasets.Dataset, indices: pd.Index) -> Image.Image:
    """Images evenly spread over the rows, each squashed to a tile."""
    sheet = Image.new("RGB", (TILE * ACROSS, TILE * DOWN), "white")
    count = min(len(indices), ACROSS * DOWN)
    encoded = rows.cast_column("image", datasets.Image(decode=False))
    for place in range(count):
        data = encoded[int(indices[place * len(indices) // count])]["image"]["bytes"]
        tile = open_image(data, ImageLimits(min_side=1)).resize((TILE - 2, TILE - 2))
        sheet.paste(tile, (place % ACROSS * TILE + 1, place // ACROSS * TILE + 1))
    return sheet


def _left_out(about: dict[str, Any]) -> list[str]:
    lines = ["", "## Left out", "", "| reason | files |", "| --- | --- |"]
    lines += [f"| {reason} | {count:,} |" for reason, count in about["skipped"].items()]
    files = about["skipped_files"]
    lines += ["", *(f"- `{name}`: {reason}" for name, reason in files[:LISTED])]
    if len(files) > LISTED:
        lines.append(f"- and {len(files) - LISTED} more, listed in `corpus.json`")
    return lines
