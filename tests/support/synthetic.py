"""Drawn images in the layouts of the two public corpora, for tests and for examples.

Nothing here is copied from a real slide. `tissue` and `patch` draw images; `idc_tree`, `idc_zip`,
`breakhis_tree` and `breakhis_tar` write whole corpora with the official folders and file names.
"""

from __future__ import annotations

import argparse
import gzip
import io
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .drawing import Frame, Stain, develop, stain, stain_maps

KINDS = ("benign", "malignant")
IDC_PIXELS = 50
IDC_MPP = 4.0
IDC_POSITIVE = 0.28
FRESH_PATCHES = 4_000  # up to here every case of the IDC stand-in has tissue of its own
SUBTYPES = {
    "benign": {
        "A": "adenosis",
        "F": "fibroadenoma",
        "PT": "phyllodes_tumor",
        "TA": "tubular_adenoma",
    },
    "malignant": {
        "DC": "ductal_carcinoma",
        "LC": "lobular_carcinoma",
        "MC": "mucinous_carcinoma",
        "PC": "papillary_carcinoma",
    },
}
MAGNIFICATIONS = (40, 100, 200, 400)
FIELD_UM = 88.0  # um per pixel of a BreaKHis-like image, times its magnification
BLOCKS = (("",), ("AB", "CD"), ("G",))  # the blocks of a patient's slides, patients in turn


def tissue(
    seed: int,
    *,
    size: tuple[int, int],
    mpp: float,
    malignant: np.ndarray | float | bool = False,
    slide_background: float = 0.0,
) -> np.ndarray:
    """Draws H&E-like breast tissue.

    Colours follow Beer-Lambert with published haematoxylin and eosin optical densities, between
    those of Ruifrok and Johnston 2001 (HED) and of Macenko et al. 2009. The stain's strength and
    hue come from the seed alone, whatever the tissue.

    Args:
        seed: Fixes the scene and its stain.
        size: Width and height in pixels.
        mpp: Micrometres per pixel, about 0.1 to 5.
        malignant: Where invasive carcinoma grows: an H x W mask (bool, or 0 to 1), or one value
            for everywhere.
        slide_background: Share of the image that is bare glass, 0 to 1.

    Returns:
        H x W x 3 uint8 RGB.
    """
    frame = Frame(*size, mpp)
    cancer = np.asarray(malignant, np.float32)
    if cancer.ndim not in (0, 2) or (cancer.ndim == 2 and cancer.shape != size[::-1]):
        raise ValueError(f"mask of shape {cancer.shape} for an image of {size[::-1]} (H, W)")
    cancer = np.broadcast_to(cancer, size[::-1])
    maps = stain_maps(seed, frame, cancer, slide_background=slide_background)
    return develop(maps, stain(seed), _pixels(seed))


def patch(
    kind: str,
    seed: int,
    *,
    pixels: tuple[int, int] = (IDC_PIXELS, IDC_PIXELS),
    width_um: float = IDC_PIXELS * IDC_MPP,
) -> np.ndarray:
    """Draws one patch; the same seed is the same scene at any pixel size.

    The two kinds of one seed share their stain and much of their stroma.

    Args:
        kind: "benign" or "malignant".
        seed: Fixes the scene and its stain.
        pixels: Width and height.
        width_um: Micrometres across the patch.

    Returns:
        H x W x 3 uint8 RGB.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, not {kind!r}")
    cancer = np.full(pixels[::-1], kind == "malignant", np.float32)
    maps = stain_maps(seed, Frame(*pixels, width_um / pixels[0]), cancer, glands=0.85)
    return develop(maps, stain(seed), _pixels(seed))


def idc_tree(
    root: Path,
    *,
    cases: int = 12,
    patches_per_case: int = 20,
    seed: int = 0,
    slivers: int = 0,
    first_case: int = 8863,
) -> list[Path]:
    """Writes an IDC-like corpus as `<case>/<0 or 1>/<case>_idx5_x<X>_y<Y>_class<0 or 1>.png`.

    Each case is one stained slide from which patches of 50 x 50 pixels (4 um each) are cut on a
    grid; the tumour's place on the slide gives the labels, on average 28% ones, and every case
    holds both.

    Args:
        root: Folder to write in.
        cases: Number of cases.
        patches_per_case: Full patches in each case, at least 2.
        seed: Fixes everything.
        slivers: Further patches in the whole corpus, cut short by a slide's edge.
        first_case: Id of the first case; the others count on from it.

    Returns:
        The files written.
    """
    paths = []
    for name, image in _idc_patches(cases, patches_per_case, seed, slivers, first_case):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(image))
        paths.append(path)
    return paths


def idc_zip(
    path: Path,
    *,
    cases: int = 12,
    patches_per_case: int = 20,
    seed: int = 0,
    twice: bool = False,
    slivers: int = 0,
    first_case: int = 8863,
) -> Path:
    """Writes the corpus of `idc_tree` straight into a zip.

    Memory holds one slide at a time, and the zip's own index (0.4 KB an entry).

    Above FRESH_PATCHES patches in all, each drawn slide serves eight cases: turned and mirrored
    eight ways, with another stain. Every patch still has pixels of its own, because sensor noise
    is drawn anew for each pixel of each case. The full corpus's 277,524 patches are
    `cases=279, patches_per_case=994, slivers=198`.

    Args:
        path: Zip to write.
        cases: As in `idc_tree`.
        patches_per_case: As in `idc_tree`.
        seed: As in `idc_tree`.
        twice: Write each patch again under `IDC_regular_ps50_idx5/`, as the Kaggle archive does.
        slivers: As in `idc_tree`.
        first_case: As in `idc_tree`.

    Returns:
        The zip.
    """
    folders = ("", "IDC_regular_ps50_idx5/") if twice else ("",)
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in _idc_patches(cases, patches_per_case, seed, slivers, first_case):
            encoded = _png(image)
            for folder in folders:
                # A fixed date, so that equal arguments give equal bytes.
                archive.writestr(zipfile.ZipInfo(folder + name, (2020, 1, 1, 0, 0, 0)), encoded)
    return path


def breakhis_tree(
    root: Path,
    *,
    patients_per_class: int = 2,
    images_per_patient: int = 4,
    seed: int = 0,
    size: tuple[int, int] = (700, 460),
) -> list[Path]:
    """Writes a BreaKHis-like corpus: `BreaKHis_v1/histology_slides/breast/<class>/SOB/...`.

    The subtypes are used in turn by patients, the magnifications (40X at 2.2 um per pixel, to
    400X at 0.22) by images, and every third patient, from the second on, lies in two blocks.

    Args:
        root: Folder to write in.
        patients_per_class: Patients in each of benign and malignant.
        images_per_patient: Images of each patient.
        seed: Fixes everything.
        size: Width and height in pixels.

    Returns:
        The files written.
    """
    paths = []
    for name, image in _breakhis_images(patients_per_class, images_per_patient, seed, size):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(image))
        paths.append(path)
    return paths


def breakhis_tar(
    path: Path,
    *,
    patients_per_class: int = 2,
    images_per_patient: int = 4,
    seed: int = 0,
    size: tuple[int, int] = (700, 460),
) -> Path:
    """Writes the corpus of `breakhis_tree` straight into a tar.gz.

    Args:
        path: Archive to write.
        patients_per_class: As in `breakhis_tree`.
        images_per_patient: As in `breakhis_tree`.
        seed: As in `breakhis_tree`.
        size: As in `breakhis_tree`.

    Returns:
        The archive.
    """
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, image in _breakhis_images(patients_per_class, images_per_patient, seed, size):
            encoded = _png(image)
            member = tarfile.TarInfo(name)
            member.size = len(encoded)
            archive.addfile(member, io.BytesIO(encoded))
    return path


def _pixels(*key: int) -> np.random.Generator:
    """The stream of sensor noise of one image."""
    return np.random.default_rng([len(key), *(abs(part) for part in key)])


def _png(image: np.ndarray) -> bytes:
    """Encodes H x W x 3 uint8; takes half the time that Pillow does."""
    height, width = image.shape[:2]
    pixels = image.reshape(height, -1)
    rows = np.ones((height, 3 * width + 1), np.uint8)  # filter 1: difference to the pixel left
    rows[:, 1:4] = pixels[:, :3]
    np.subtract(pixels[:, 3:], pixels[:, :-3], out=rows[:, 4:])
    # Noise has no repeats to look for, so Huffman coding alone packs it as small.
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = packer.compress(rows.tobytes()) + packer.flush()
    encoded = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        encoded += struct.pack(">I", len(data)) + kind + data + checksum
    return encoded


def _resize(values: np.ndarray, side: int) -> np.ndarray:
    """A square field of floats, smoothly enlarged to side x side."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def _idc_slide(seed: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one slide of cells x cells patches.

    Returns:
        Labels (cells x cells bool) and stain amounts (2 x H x W float32).
    """
    rng = _pixels(seed, cells)
    score = _resize(rng.standard_normal((2 + cells // 4,) * 2), cells)
    score = score + 0.3 * rng.standard_normal((cells, cells))
    score[cells // 2, cells // 2] = np.inf  # a tumour patch that stays whole however it is turned
    share = float(np.clip(rng.normal(IDC_POSITIVE + 0.02, 0.06), 0.1, 0.5))
    labels = score >= np.sort(score, axis=None)[-max(1, math.floor(share * cells**2))]
    side = cells * IDC_PIXELS
    cancer = np.clip(4.0 * _resize(labels, side) - 1.5, 0.0, 1.0)
    maps = stain_maps(seed, Frame(side, side, IDC_MPP), cancer, slide_background=0.04, glands=0.5)
    return labels, maps


def _turn(field: np.ndarray, way: int) -> np.ndarray:
    """The last two axes of a square field, turned (and mirrored from way 4 on)."""
    mirrored = np.swapaxes(field, -1, -2) if way >= 4 else field
    return np.rot90(mirrored, way % 4, axes=(-2, -1))


def _choose_cells(rng: np.random.Generator, labels: np.ndarray, count: int) -> np.ndarray:
    """`count` cells of a label grid (count x 2: row, column), in order, both labels among them."""
    ones, zeros = (rng.permutation(np.flatnonzero(side)) for side in (labels, ~labels))
    positive = min(max(1, round(count * labels.mean())), len(ones), count - 1)
    positive = max(positive, count - len(zeros))
    flat = np.sort(np.concatenate([ones[:positive], zeros[: count - positive]]))
    return np.stack(np.divmod(flat, labels.shape[1]), axis=1)


def _idc_patches(
    cases: int, patches_per_case: int, seed: int, slivers: int, first_case: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the archive name and pixels of every patch, case by case."""
    cells = math.ceil(math.sqrt(patches_per_case))
    if patches_per_case < 2 or slivers > 2 * cells * cases:
        raise ValueError("a case needs 2 patches or more, and has two edges to cut slivers from")
    ways = 8 if cases * patches_per_case > FRESH_PATCHES else 1
    for case in range(cases):
        way = case % ways
        if way == 0:
            # Slivers come from one further row and column of cells.
            slide = _idc_slide(1_000 * seed + case // ways, cells + (slivers > 0))
        labels, maps = (_turn(field, way) for field in slide)
        cut = slivers // cases + (case < slivers % cases)
        yield from _idc_case(first_case + case, labels, maps, (patches_per_case, cut), seed)


def _idc_case(
    case: int, labels: np.ndarray, maps: np.ndarray, counts: tuple[int, int], seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields one case's full patches, then its slivers."""
    rng = _pixels(seed, case, 1)
    full, cut = counts
    cells = math.ceil(math.sqrt(full))
    chosen = _choose_cells(rng, labels[:cells, :cells], full)
    places = [(*place, IDC_PIXELS, IDC_PIXELS) for place in chosen]
    short = rng.integers(1, IDC_PIXELS, 2)  # what the slide's edges leave of the last row, column
    places += [(cells, i, short[0], IDC_PIXELS) for i in range(min(cut, cells))]
    places += [(i, cells, IDC_PIXELS, short[1]) for i in range(cut - cells)]
    start_x, start_y = rng.integers(3, 30, 2)
    slide: Stain = stain(case + 100_000 * seed)
    for row, column, height, width in places:
        top, left, label = row * IDC_PIXELS, column * IDC_PIXELS, int(labels[row, column])
        x, y = left + IDC_PIXELS * start_x + 1, top + IDC_PIXELS * start_y + 1
        name = f"{case}/{label}/{case}_idx5_x{x}_y{y}_class{label}.png"
        yield name, develop(maps[:, top : top + height, left : left + width], slide, rng)


def _breakhis_images(
    patients_per_class: int, images_per_patient: int, seed: int, size: tuple[int, int]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the archive name and pixels of every image, patient by patient."""
    for kind, subtypes in SUBTYPES.items():
        malignant = kind == "malignant"
        for patient in range(patients_per_class):
            code = list(subtypes)[patient % len(subtypes)]
            number = 22549 + 37 * patient - 9000 * malignant
            slide = stain(1_000_000 + 100_000 * seed + number)
            for index in range(images_per_patient):
                turn, place = divmod(index, len(MAGNIFICATIONS))
                blocks = BLOCKS[patient % len(BLOCKS)]
                block, zoom = blocks[index % len(blocks)], MAGNIFICATIONS[place]
                slide_id = f"14-{number}{block}"
                letter = kind[0].upper()
                folder = f"{subtypes[code]}/SOB_{letter}_{code}_{slide_id}/{zoom}X"
                file = f"SOB_{letter}_{code}-{slide_id}-{zoom}-{turn + 1:03d}.png"
                key = (seed, number, index)
                cancer = np.full(size[::-1], malignant, np.float32)
                scene = int(_pixels(*key).integers(1 << 31))
                maps = stain_maps(scene, Frame(*size, FIELD_UM / zoom), cancer)
                name = f"BreaKHis_v1/histology_slides/breast/{kind}/SOB/{folder}/{file}"
                yield name, develop(maps, slide, _pixels(*key, 1))


def main(arguments: list[str] | None = None) -> None:
    """Writes example images for the app: `python -m tests.support.synthetic --examples FOLDER`."""
    parser = argparse.ArgumentParser(description="Draw synthetic benign and malignant patches.")
    parser.add_argument("--examples", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=3, help="images of each kind (default 3)")
    parser.add_argument("--pixels", type=int, default=50, help="side in pixels (default 50)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.examples.mkdir(parents=True, exist_ok=True)
    for turn, kind in enumerate(KINDS):
        for index in range(1, options.count + 1):
            # Equal seeds share stroma and stain, so each kind gets seeds of its own.
            scene = options.seed + turn * options.count + index
            image = patch(kind, scene, pixels=(options.pixels, options.pixels))
            path = options.examples / f"synthetic-{kind}-{index}.png"
            Image.fromarray(image).save(path)
            print(path)


if __name__ == "__main__":
    main()
