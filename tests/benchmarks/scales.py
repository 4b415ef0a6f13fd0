"""Whether a label depends on how finely tissue was scanned: real patches, enlarged and reduced.

python -m tests.benchmarks.scales --idc idc-sample.zip --idc idc-more.zip \
    --breakhis breakhis-more.tar.gz \
    --model cards/bcd-mobilenetv2 --model cards/bcd-efficientnet-b2 --write docs/inputs.md

200 patches of IDC's first archive, drawn with a fixed seed, are enlarged with their scale given,
and put side by side into a field of 4,000 pixels. 200 sharp tiles of BreaKHis at 100X are reduced
to 2 and 4 micrometres a pixel by three kernels. Each time it is counted how often the label stays.

Then the scale itself is stated wrong, of 200 places of IDC's whole cases and 200 of BreaKHis at
100X, half of each malignant: the one tile that a model is then shown around the same middle holds
more or less tissue, brought to a wrong size.
"""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.images.tissue import is_tissue
from tests.benchmarks.record import show_table
from training.corpus.sources import SOURCES, breakhis, idc
from training.corpus.sources.source import Image as Found

Field = tuple[Image.Image, bool]  # twice as wide as a tile, and whether its middle is malignant
Row = tuple[str, str, float]  # what was done, how, and the share of labels that stayed

COUNT, SEED = 200, 0
SIDE, MPP, FIELD_PIXELS = 50, 4.0, 4000
ENLARGEMENTS = (2, 4, 9)
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
WRONG = (1.0, 0.5, 0.8, 1.25, 2.0)  # times the true micrometres a pixel
CASES = ("8951", "8955", "9022", "10257")  # those of which every patch is in the shared files
GLASS = (243, 243, 243)
BEGIN, END = "<!-- scales: written by tests.benchmarks.scales -->", "<!-- end of scales -->"


@dataclass(frozen=True)
class Case:
    """A case put together: its picture, and which places of the grid hold carcinoma."""

    picture: Image.Image
    truth: dict[tuple[int, int], bool]


def assemble_cases(archives: list[Path], names: tuple[str, ...]) -> dict[str, Case]:
    """Put cases together from the patches of some archives."""
    patches = defaultdict(list)
    for archive in archives:
        for patch in idc.read(archive):
            if isinstance(patch, Found) and patch.case_id.removeprefix("idc/") in names:
                patches[patch.case_id].append(patch)
    return {case: _assemble(own) for case, own in patches.items()}


def _assemble(patches: list[Found]) -> Case:
    placed = {}
    for patch in patches:
        *_, x, y, _ = patch.name.split("_")
        image = Image.open(io.BytesIO(patch.data))
        if image.size == (SIDE, SIDE):
            placed[int(y[1:]) // SIDE, int(x[1:]) // SIDE] = image, patch.label == "malignant"
    top, left = (min(place[axis] for place in placed) for axis in (0, 1))
    bottom, right = (max(place[axis] for place in placed) + 1 for axis in (0, 1))
    picture = Image.new("RGB", ((right - left) * SIDE, (bottom - top) * SIDE), GLASS)
    truth = {}
    for (row, column), (image, is_malignant) in placed.items():
        picture.paste(image.convert("RGB"), ((column - left) * SIDE, (row - top) * SIDE))
        truth[row - top, column - left] = is_malignant
    return Case(picture, truth)


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
        for times in ENLARGEMENTS:
            large = [one.resize((SIDE * times, SIDE * times), kernel) for one in patches]
            said = [one.label for one in model.predict(large, mpp=MPP / times)]
            rows.append((f"IDC patches, enlarged {times} times", name, _share(labels, said)))
    across = FIELD_PIXELS // SIDE
    field = Image.new("RGB", (FIELD_PIXELS, FIELD_PIXELS), GLASS)
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


def draw_places(archives: list[Path]) -> list[Field]:
    """Return places of IDC's whole cases with their surroundings, as many of each label."""
    fields = []
    for case in assemble_cases(archives, CASES).values():
        for (row, column), is_malignant in sorted(case.truth.items()):
            if {(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)} <= case.truth.keys():
                left, top = ((2 * place - 1) * SIDE // 2 for place in (column, row))
                box = left, top, left + 2 * SIDE, top + 2 * SIDE
                fields.append((case.picture.crop(box), is_malignant))
    return _draw_halves(fields)


def draw_sharp_places(archive: Path) -> list[Field]:
    """Return the same of BreaKHis at 100X, two of an image, whose middles are mostly tissue."""
    side, fields = round(SIDE * MPP / SHARP_MPP), []
    for one in breakhis.read(archive, 0, 1):
        if isinstance(one, Found) and one.magnification == "100X":
            image = Image.open(io.BytesIO(one.data)).convert("RGB")
            top = image.height // 2 - side
            for left in (0, image.width - 2 * side):
                field = image.crop((left, top, left + 2 * side, top + 2 * side))
                if is_tissue(np.asarray(_cut_middle(field, side))).mean() >= 0.5:
                    fields.append((field, one.label == "malignant"))
    return _draw_halves(fields)


def compare_stated(
    model: BCDClassifier, fields: list[Field], mpp: float
) -> list[tuple[float, float, float]]:
    """Return, for each of ``WRONG``, the share of labels that stay, recall and specificity."""
    truth = np.array([is_malignant for _, is_malignant in fields])
    rows, first = [], None
    for times in WRONG:
        side = round(SIDE * MPP / (mpp * times))
        shown = [_cut_middle(field, side) for field, _ in fields]
        answers = model.predict(shown, mpp=mpp * times)
        assert {answer.tiles for answer in answers} == {1}
        said = np.array([answer.label == "malignant" for answer in answers])
        first = said if first is None else first
        shares = (said == first).mean(), said[truth].mean(), (~said[~truth]).mean()
        rows.append(tuple(map(float, shares)))
    return rows


def tabulate_stated(
    models: list[BCDClassifier], places: dict[str, tuple[float, list[Field]]]
) -> str:
    """Return the table of scales stated wrong, in Markdown."""
    head = ("what", "stated", *(model.config.name for model in models))
    lines = [head, ("---",) * len(head)]
    for what, (mpp, fields) in places.items():
        columns = [compare_stated(model, fields, mpp) for model in models]
        for times, *cells in zip(WRONG, *columns, strict=True):
            shares = (" / ".join(f"{share:.3f}" for share in one) for one in cells)
            lines.append((f"{len(fields)} places of {what}", f"{times:g} times", *shares))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cut_middle(field: Image.Image, side: int) -> Image.Image:
    left, top = (field.width - side) // 2, (field.height - side) // 2
    return field.crop((left, top, left + side, top + side))


def _draw_halves(fields: list[Field]) -> list[Field]:
    order = np.random.default_rng(SEED).permutation(len(fields)).tolist()
    halves = ([fields[i] for i in order if fields[i][1] == malignant] for malignant in (0, 1))
    return [field for half in halves for field in half[: COUNT // 2]]


def _share(one: list[str], other: list[str]) -> float:
    return float(np.mean(np.array(one) == np.array(other)))


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idc", type=Path, action="append", required=True)
    parser.add_argument("--breakhis", type=Path, required=True)
    parser.add_argument("--model", type=Path, action="append", required=True)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    patches, tiles = draw_patches(asked.idc[0]), draw_tiles(asked.breakhis)
    models = [BCDClassifier.from_pretrained(folder) for folder in asked.model]
    columns, first = [], []
    for model in models:
        first = compare_patches(model, patches) + compare_tiles(model, tiles)
        columns.append((model.config.name, [share for *_, share in first]))
    head = ("what", "kernel", *(name for name, _ in columns))
    lines = [head, ("---",) * len(head)]
    for number, (what, kernel, _) in enumerate(first):
        lines.append((what, kernel, *(f"{shares[number]:.3f}" for _, shares in columns)))
    about = f"{len(patches)} patches and {len(tiles)} tiles; the share that keeps its label."
    places = {
        "IDC's whole cases": (MPP, draw_places(asked.idc)),
        "BreaKHis 100X": (SHARP_MPP, draw_sharp_places(asked.breakhis)),
    }
    stated = (
        "Micrometres a pixel stated as so many times the true: the share that keeps its label / "
        "recall / specificity, half of the places malignant. The models have learnt from parts of "
        "both, so only the differences count. Above 1, IDC's patches are enlarged and lack the "
        "detail that a finer scan has; BreaKHis' tiles have it."
    )
    table = "\n".join([about, "", *(f"| {' | '.join(line)} |" for line in lines)])
    table = f"{table}\n\n{stated}\n\n{tabulate_stated(models, places)}"
    show_table(table, asked.write, BEGIN, END)


if __name__ == "__main__":
    main()
