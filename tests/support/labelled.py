"""Draws a user's own labelled images, and writes their list."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tests.support import synthetic

Row = tuple[str, str, str, str]


def write_list(folder: Path, rows: Sequence[Row]) -> Path:
    """Write a list of path, label, case and mpp into the images' folder."""
    path = folder / "list.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "case", "mpp"), *rows])
    return path


def draw_cases(folder: Path, images: int = 60, each: int = 3) -> list[Row]:
    """Draw patches of cases; one in five is labelled the other way round."""
    rows: list[Row] = []
    for number in range(images):
        kind = synthetic.KINDS[number % 2]
        Image.fromarray(synthetic.patch(kind, number)).save(folder / f"{number}.png")
        label = synthetic.KINDS[(number + (number % 5 == 0)) % 2]
        rows.append((f"{number}.png", label, f"c{number // each}", "4"))
    return rows
