"""Measure nuclei in BreaKHis, whose published pixel sizes can't be those of its files.

python -m training.corpus.nuclei --breakhis PATH...

Nuclei are the only ruler in these images. Stain, threshold and watershed find them; those that are
roundish and lie wholly within the image count. All lengths follow the magnification, whose ratios
are exact, so that three magnifications measure one constant three times. At 40X a nucleus is a few
pixels wide, too few to part it from its neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import regionprops_table
from skimage.segmentation import watershed
from tqdm import tqdm

from bcd_models.errors import InputError
from bcd_models.images.open import open_pixels
from training import command
from training.corpus.sources.breakhis import BREAKHIS
from training.corpus.sources.files import check
from training.corpus.sources.source import Image
from training.pages import write_table

MAGNIFICATIONS = ("100X", "200X", "400X")
# Pixels at 400X: wide enough apart to hold every nucleus at any scale from 0.15 to 0.3 micrometres.
MIN_DIAMETER, MAX_DIAMETER = 20, 90
SMOOTHING, PEAK_SMOOTHING, PEAK_DISTANCE = 3.0, 2.5, 8
MIN_SOLIDITY, MIN_ROUNDNESS = 0.9, 0.6  # area by that of the convex hull; short by long axis
MIN_NUCLEI = 20  # that make a patient's median
MAX_IMAGES = 6  # of a patient and magnification: more of them move no median
# Micrometres across the median roundish nucleus of a section, lymphocytes among them: low, likely,
# high. Means in 64 ductal carcinomas in situ are 7.5, 7.8 and 9.6 by grade (Modern Pathology 2001,
# 14:937: 44, 48 and 72 square micrometres); benign epithelium is nearer to a lymphocyte's 6 to 7.
NUCLEUS_UM = {"benign": (6.0, 7.0, 8.0), "malignant": (7.0, 8.0, 9.6)}
RESAMPLES, SEED = 2_000, 0


def measure_nuclei(rgb: NDArray[np.uint8], zoom: float = 1.0) -> NDArray[np.float64]:
    """Return the diameter of each roundish nucleus, that of a disc of the same area, in pixels.

    Args:
        rgb: H x W x 3.
        zoom: Magnification of the image by that of 400X.
    """
    stain = gaussian(rgb2hed(rgb)[..., 0], SMOOTHING * zoom)
    mask = ndimage.binary_fill_holes(stain > threshold_otsu(stain))
    depth = gaussian(ndimage.distance_transform_edt(mask), PEAK_SMOOTHING * zoom)
    apart = max(1, round(PEAK_DISTANCE * zoom))
    seeds = np.zeros(mask.shape, np.int32)
    peaks = peak_local_max(depth, min_distance=apart, exclude_border=False)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    regions = watershed(-depth, seeds, mask=mask)
    across = np.sqrt(4 / np.pi * np.bincount(regions.ravel()))
    could_be = (across >= MIN_DIAMETER * zoom) & (across <= MAX_DIAMETER * zoom)
    for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        could_be[edge] = False
    could_be[0] = False  # what is no region
    regions[~could_be[regions]] = 0  # shapes cost most
    shapes = regionprops_table(
        regions, properties=("label", "solidity", "axis_major_length", "axis_minor_length")
    )
    is_round = (shapes["solidity"] >= MIN_SOLIDITY) & (
        shapes["axis_minor_length"] >= MIN_ROUNDNESS * shapes["axis_major_length"]
    )
    return np.asarray(across[shapes["label"][is_round]], np.float64)


def measure_images(images: Iterable[Image]) -> pd.DataFrame:
    """Return one line a nucleus: image, patient, label, magnification, ``pixels`` and ``at_400x``.

    Raises:
        ImageError: An image can't be read.
    """
    tables = []
    for image in images:
        zoom = int(image.magnification.removesuffix("X")) / 400
        across = measure_nuclei(open_pixels(image.data), zoom)
        tables.append(
            pd.DataFrame({"pixels": across, "at_400x": across / zoom}).assign(
                image=image.name,
                patient=image.case_id,
                label=image.label,
                magnification=image.magnification,
            )
        )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def tabulate_nuclei(nuclei: pd.DataFrame) -> str:
    """Return a table of what ``measure_images`` gave: each magnification and label, then labels."""
    head = ["", "images", "patients", "nuclei", "quartiles, pixels"]
    head += ["median of patients' medians (95%)", "micrometres a pixel"]
    rows = [
        _measure_group(f"{zoom} {kind}", group, "pixels", str(kind))
        for (zoom, kind), group in nuclei.groupby(["magnification", "label"])
    ]
    rows += [
        _measure_group(f"all as at 400X, {kind}", group, "at_400x", str(kind))
        for kind, group in nuclei.groupby("label")
    ]
    return write_table(head, rows)


def _measure_group(title: str, group: pd.DataFrame, column: str, kind: str) -> list[str]:
    quartiles = " / ".join(f"{q:.1f}" for q in group[column].quantile([0.25, 0.5, 0.75]))
    of_patients = group.groupby("patient")[column].agg(["size", "median"])
    medians = of_patients["median"][of_patients["size"] >= MIN_NUCLEI].to_numpy()
    counts = [str(group[name].nunique()) for name in ("image", "patient")]
    cells = [title, *counts, f"{len(group):,}", quartiles]
    if not len(medians):
        return [*cells, f"no patient with {MIN_NUCLEI} nuclei"]
    drawn = np.random.default_rng(SEED).choice(medians, (RESAMPLES, len(medians)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    middle = np.median(medians)
    least, likely, most = (um / middle for um in NUCLEUS_UM[kind])
    across = f"{middle:.1f} ({low:.1f} to {high:.1f}), of {len(medians)}"
    return [*cells, across, f"{likely:.3f} ({least:.3f} to {most:.3f})"]


def _read(paths: Iterable[Path]) -> Iterator[Image]:
    read: Counter[tuple[str, str]] = Counter()
    for path in paths:
        check(path)
        for found in BREAKHIS.read(path, 0, 1):
            if isinstance(found, Image) and found.magnification in MAGNIFICATIONS:
                read[found.case_id, found.magnification] += 1
                if read[found.case_id, found.magnification] <= MAX_IMAGES:
                    yield found


def main(
    breakhis: Annotated[list[Path], typer.Option(help="Folder or archive; may be repeated.")],
) -> None:
    """Print the sizes of nuclei, and the scale that follows if they are as large as usual."""
    nuclei = measure_images(tqdm(_read(breakhis), "measuring", unit=" images", disable=None))
    if nuclei.empty:
        raise InputError(f"no nucleus found: name images of {', '.join(MAGNIFICATIONS)}")
    typer.echo(tabulate_nuclei(nuclei))
    assumed = "; ".join(
        f"{kind} {likely:g} ({low:g} to {high:g})"
        for kind, (low, likely, high) in NUCLEUS_UM.items()
    )
    typer.echo(f"\nThe last column assumes nuclei of these micrometres across: {assumed}.")


if __name__ == "__main__":
    command.run(main)
