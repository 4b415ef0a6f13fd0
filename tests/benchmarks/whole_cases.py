"""What a slide's compression and levels cost: whole cases of real patches, stored as scanners do.

python -m tests.benchmarks.whole_cases --idc idc-sample.zip --idc idc-more.zip --run RUN ... \
    --write docs/slides.md

Each case is put together on the grid of its patches' names, enlarged to 1 micrometre a pixel and
written as slides that differ in their storage. Each slide is mapped by the model of a run that held
the case out, and its tiles' labels are compared with the patches'.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bcd_models import BCDClassifier
from tests.benchmarks.record import show_table
from tests.support.scanners import write_dicom, write_svs
from tests.support.slides import write_slide
from training.corpus import predictions
from training.corpus.sources import idc
from training.corpus.sources.source import Image as Patch
from training.run_folder import MODEL, PREDICTIONS

CASES = ("8951", "8955", "9022", "10257")  # those of which every patch is in the shared files
SIDE, TIMES, MPP = 50, 4, 1.0  # pixels of a patch; times that it is enlarged; the result's scale
GLASS = (243, 243, 243)
LEVELS = ((1,), (1, 4), (1, 4, 16))
JPEGS = tuple((quality, chroma) for quality in (90, 70) for chroma in ("4:4:4", "4:2:0"))
BEGIN, END = "<!-- whole cases: written by tests.benchmarks.whole_cases -->", "<!-- end -->"


@dataclass(frozen=True)
class Case:
    """A case put together: its picture, and which places of the grid hold carcinoma."""

    picture: Image.Image
    truth: dict[tuple[int, int], bool]


class Storage(NamedTuple):
    """A way to store a slide: what the table calls it, and what writes it."""

    kind: str
    levels: tuple[int, ...]
    write: Callable[[Path, np.ndarray, tuple[int, ...]], Path]


def storages() -> Iterator[Storage]:
    """Yield the ways a slide is stored; the first is the one that others are compared with."""
    for levels in LEVELS:
        yield Storage(
            "TIFF, lossless", levels, lambda folder, image, levels: write_slide(
                folder / "slide.tif", image, MPP, levels
            )
        )  # fmt: skip
        for jpeg in JPEGS:
            yield Storage(
                f"TIFF, JPEG {jpeg[0]}, {jpeg[1]}",
                levels,
                lambda folder, image, levels, jpeg=jpeg: write_slide(
                    folder / "slide.tif", image, MPP, levels, jpeg=jpeg
                ),
            )
    yield Storage(
        "SVS-like, JPEG 70, 4:4:4",
        LEVELS[-1],
        lambda folder, image, levels: write_svs(
            folder / "slide.svs", image, MPP, levels, quality=70
        ),
    )
    yield Storage(
        "DICOM, lossless",
        LEVELS[-1],
        lambda folder, image, levels: write_dicom(folder / "slide", image, MPP, levels),
    )


def assemble_cases(archives: list[Path], names: tuple[str, ...]) -> dict[str, Case]:
    """Put cases together from the patches of some archives."""
    patches = defaultdict(list)
    for archive in archives:
        for patch in idc.read(archive):
            if isinstance(patch, Patch) and patch.case_id.removeprefix("idc/") in names:
                patches[patch.case_id].append(patch)
    return {case: _assemble(own) for case, own in patches.items()}


def _assemble(patches: list[Patch]) -> Case:
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


def find_models(runs: list[Path], cases: dict[str, Case]) -> dict[str, Path]:
    """Return the model that held each case out; a case that none held out is an error."""
    found = {}
    for run in runs:
        held_out = set(predictions.read(run / PREDICTIONS)["case_id"])
        found |= {case: run / MODEL for case in cases if case in held_out}
    if missing := cases.keys() - found.keys():
        raise SystemExit(f"no run held out {', '.join(sorted(missing))}: name one with --run")
    return found


def count_right(model: BCDClassifier, slide: Path, case: Case) -> np.ndarray:
    """Return carcinoma tiles, those found, other tiles and those not called carcinoma."""
    called = model.predict_slide(slide).labelled
    truth, said = np.array(
        [(is_malignant, called[at]) for at, is_malignant in case.truth.items()]
    ).T
    return np.array([truth.sum(), (truth & said).sum(), (~truth).sum(), (~truth & ~said).sum()])


def measure(archives: list[Path], runs: list[Path]) -> str:
    """Return the table in Markdown."""
    cases = assemble_cases(archives, CASES)
    models = find_models(runs, cases)
    rows: dict[Storage, list[np.ndarray]] = {one: [] for one in storages()}
    for case_id, case in cases.items():
        size = case.picture.width * TIMES, case.picture.height * TIMES
        image = np.asarray(case.picture.resize(size, Image.Resampling.BICUBIC))
        model = BCDClassifier.from_pretrained(models[case_id])
        for storage, counts in rows.items():
            with tempfile.TemporaryDirectory() as folder:
                slide = storage.write(Path(folder), image, storage.levels)
                counts.append(count_right(model, slide, case))
            print(case_id, storage.kind, storage.levels, *counts[-1], flush=True)
    first = sum(next(iter(rows.values())))
    names = ", ".join(sorted(case.removeprefix("idc/") for case in cases))
    head = [
        f"{len(cases)} cases ({names}), {first[0]:,} tiles with carcinoma and {first[2]:,} "
        f"without; {model.config.name}'s recipe, each case mapped by the model of a "
        "fold that held it out.",
        "",
        "| stored as | levels | recall | specificity | recall by case |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join(head + [_row(storage, counts) for storage, counts in rows.items()])


def _row(storage: Storage, counts: list[np.ndarray]) -> str:
    malignant, found, benign, spared = sum(counts)
    by_case = ", ".join(f"{one[1] / one[0]:.2f}" for one in counts)
    levels = ", ".join(map(str, storage.levels))
    shares = f"{found / malignant:.3f} | {spared / benign:.3f}"
    return f"| {storage.kind} | {levels} | {shares} | {by_case} |"


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idc", type=Path, action="append", required=True)
    parser.add_argument("--run", type=Path, action="append", required=True)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    show_table(measure(asked.idc, asked.run), asked.write, BEGIN, END)


if __name__ == "__main__":
    main()
