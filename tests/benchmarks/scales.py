"""Whether a label depends on how finely tissue was scanned: real patches, enlarged and reduced.

python -m tests.benchmarks.scales --idc idc-sample.zip --breakhis breakhis-more.tar.gz \
    --model cards/bcd-mobilenetv2 --model cards/bcd-efficientnet-b2 --write docs/inputs.md

200 patches of IDC, drawn with a fixed seed, are enlarged with their scale given, and put
side by side into a field of 4,000 pixels. 200 sharp tiles of BreaKHis at 100X are reduced
to 2 and 4 micrometres a pixel by three kernels. Each time it is counted how often the label stays.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.cli.output import write_file
from bcd_models.images.tissue import is_tissue
from training.card.write import put_between
from training.corpus.sources import SOURCES, breakhis
from training.corpus.sources.source import Image as Found

Row = tuple[str, str, float]  # what was done, how, and the share of labels that stayed

COUNT, SEED = 200, 0
SIDE, MPP, FIELD_PIXELS = 50, 4.0, 4000
TIMES = (2, 4, 9)
KERNELS = {
    "pixels repeated": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}
REDUCING = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "Lanczos": Image.Resampling.LANCZOS,
}
COARSER = (2.0, 4.0)  # micrometres a pixel
SHARP_MPP = MPP * SIDE / 222  # of BreaKHis' files at 100X: 222 pixels are a trained field
BEGIN, END = "<!-- scales: written by tests.benchmarks.scales -->", "<!-- end of scales -->"


def draw_patches(archive: Path) -> list[Image.Image]:
    """Return whole patches of IDC, as many of each label as there are in the archive's shares."""
    found = [one for one in SOURCES["idc"].read(archive, 0, 1) if isinstance(one, Found)]
    order = np.random.default_rng(SEED).permutation(len(found))
    opened = (Image.open(io.BytesIO(found[i].data)).convert("RGB") for i in order)
    whole = (image for image in opened if image.size == (SIDE, SIDE))
    return [next(whole) for _ in range(COUNT)]


def draw_tiles(archive: Path) -> list[Image.Image]:
    """Return tiles of BreaKHis at 100X, from the middle of each image's quarters, mostly tissue."""
    found = [
        one
        for one in breakhis.read(archive, 0, 1)
        if isinstance(one, Found) and one.magnification == "100X"
    ]
    order = np.random.default_rng(SEED).permutation(len(found))
    tiles = (tile for i in order for tile in _cut_sharp(found[i].data))
    return [tile for tile, _ in zip(tiles, range(COUNT), strict=False)]


def _cut_sharp(data: bytes) -> Iterator[Image.Image]:
    image, side = Image.open(io.BytesIO(data)).convert("RGB"), round(SIDE * MPP / SHARP_MPP)
    for left in range(0, image.width - side + 1, side):
        for top in range(0, image.height - side + 1, side):
            tile = image.crop((left, top, left + side, top + side))
            if is_tissue(np.asarray(tile)).mean() >= 0.5:
                yield tile


def compare_patches(
    model: BCDClassifier, patches: list[Image.Image]
) -> list[tuple[str, str, float]]:
    """Return what was done to patches, how, and the share of labels that stayed."""
    labels = [one.label for one in model.predict(patches, mpp=MPP)]
    rows = []
    for name, kernel in KERNELS.items():
        for times in TIMES:
            large = [one.resize((SIDE * times, SIDE * times), kernel) for one in patches]
            said = [one.label for one in model.predict(large, mpp=MPP / times)]
            rows.append((f"IDC patches, enlarged {times} times", name, _share(labels, said)))
    across = FIELD_PIXELS // SIDE
    field = Image.new("RGB", (FIELD_PIXELS, FIELD_PIXELS), (243, 243, 243))
    places = np.random.default_rng(SEED).choice(across**2, len(patches), replace=False)
    for patch, place in zip(patches, places.tolist(), strict=True):
        field.paste(patch, (place % across * SIDE, place // across * SIDE))
    answer = model.predict(field, mpp=MPP)
    by_tile = [p for row in answer.tile_probabilities for p in row]
    found = [by_tile[place] for place in places]
    said = [(p is not None and p >= answer.threshold and "malignant") or "benign" for p in found]
    rows.append(("IDC patches, in a field of 4,000 pixels", "", _share(labels, said)))
    return rows


def compare_tiles(model: BCDClassifier, tiles: list[Image.Image]) -> list[Row]:
    """Return how sharp tiles were reduced, and the share of labels that stayed."""
    labels = [one.label for one in model.predict(tiles, mpp=SHARP_MPP)]
    rows = []
    for mpp in COARSER:
        side = round(SIDE * MPP / mpp)
        agreed = np.ones(len(tiles), bool)
        for name, kernel in REDUCING.items():
            said = [
                one.label
                for one in model.predict([t.resize((side, side), kernel) for t in tiles], mpp=mpp)
            ]
            agreed &= np.array(labels) == np.array(said)
            what = f"BreaKHis 100X tiles, reduced to {mpp:g} micrometres a pixel"
            rows.append((what, name, _share(labels, said)))
        rows.append((what, "all three", float(agreed.mean())))
    return rows


def _share(one: list[str], other: list[str]) -> float:
    return float(np.mean(np.array(one) == np.array(other)))


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idc", type=Path, required=True)
    parser.add_argument("--breakhis", type=Path, required=True)
    parser.add_argument("--model", type=Path, action="append", required=True)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    patches, tiles = draw_patches(asked.idc), draw_tiles(asked.breakhis)
    columns, first = [], []
    for folder in asked.model:
        model = BCDClassifier.from_pretrained(folder)
        first = compare_patches(model, patches) + compare_tiles(model, tiles)
        columns.append((model.config.name, [share for *_, share in first]))
    head = ("what", "kernel", *(name for name, _ in columns))
    lines = [head, ("---",) * len(head)]
    for number, (what, kernel, _) in enumerate(first):
        lines.append((what, kernel, *(f"{shares[number]:.3f}" for _, shares in columns)))
    about = f"{len(patches)} patches and {len(tiles)} tiles; the share that keeps its label."
    table = "\n".join([about, "", *(f"| {' | '.join(line)} |" for line in lines)])
    print(table)
    if asked.write:
        page = put_between(asked.write.read_text("utf-8"), BEGIN, END, table)
        write_file(asked.write, page.encode())


if __name__ == "__main__":
    main()
