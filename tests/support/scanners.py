"""Makes whole slides of drawn tissue in the formats of several makers' scanners."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from training.study.pyramid import TILE_PIXELS, encode, name_jpeg, reduce
from training.study.scanners import draw_red


def write_ndpi(path: Path, image: np.ndarray, mpp: float, downsamples: Sequence[int]) -> Path:
    """Write a slide as Hamamatsu's scanners do: a JPEG each level and for the macro image.

    The macro image is red all over. JPEGs are as good as they get, but not without loss.
    """
    format_flag, lens, focal_plane = 65420, 65421, 65424
    levels = [(reduce(image, factor), factor, 20.0) for factor in downsamples]
    written = path.with_suffix(".tif")  # tifffile takes an .ndpi file for a longer one than this
    with tifffile.TiffWriter(written) as file:
        for pixels, factor, magnifies in [*levels, (draw_red(), 100, -1.0)]:
            file.write(
                iter([encode(pixels, "JPEG", quality=100, subsampling=0)]),
                shape=pixels.shape,
                dtype=np.uint8,
                rowsperstrip=len(pixels),
                photometric="rgb",
                compression="adobe_deflate",
                metadata=None,
                resolution=(1e4 / mpp / factor,) * 2,
                resolutionunit="CENTIMETER",
                extratags=[
                    (format_flag, "I", 1, 1, True),
                    (lens, "f", 1, magnifies, True),
                    (focal_plane, "i", 1, 0, True),
                ],
            )
    name_jpeg(written)
    return written.rename(path)


def write_mrxs(path: Path, image: np.ndarray, mpp: float, downsamples: Sequence[int]) -> Path:
    """Write a slide as 3DHISTECH's scanners do: a folder of tiles beside an empty file.

    Tiles that are white all over are left out, as those of unscanned glass are. The macro image is
    red all over.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    path.touch()
    down, across = (-(-length // TILE_PIXELS) for length in image.shape[:2])
    slide_id, data = "A" * 32, bytearray()

    def store(encoded: bytes) -> tuple[int, int, int]:
        data.extend(encoded)
        return len(data) - len(encoded), len(encoded), 0  # where, how long, in which file

    pages = [
        [
            (row * factor * across + column * factor, *store(encode(tile, "PNG")))
            for row, column, tile in _whole_tiles(reduce(image, factor))
        ]
        for factor in downsamples
    ]
    macro = store(encode(draw_red(), "JPEG"))
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Index.dat").write_bytes(_mirax_index(slide_id, pages, macro))
    (folder / "Slidedat.ini").write_text(_mirax_ini(slide_id, across, down, mpp, downsamples))
    return path


def _whole_tiles(image: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Row, column and pixels of each tile that is not white all over, filled up with white."""
    for row, top in enumerate(range(0, image.shape[0], TILE_PIXELS)):
        for column, left in enumerate(range(0, image.shape[1], TILE_PIXELS)):
            part = image[top : top + TILE_PIXELS, left : left + TILE_PIXELS]
            tile = np.full((TILE_PIXELS, TILE_PIXELS, 3), 255, np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            if (tile < 255).any():
                yield row, column, tile


def _mirax_index(
    slide_id: str, pages: Sequence[Sequence[tuple[int, ...]]], macro: tuple[int, int, int]
) -> bytes:
    """Two roots, each the place of a list of places of lists of tiles or, once, the macro image."""
    head = f"01.02{slide_id}".encode()
    # Two numbers before the macro's that nobody reads.
    entries: list[Sequence[tuple[int, ...]]] = [*pages, [(0, 0, *macro)]]
    lists = len(head) + 8
    begins = lists + 4 * len(entries)
    places, body = [], b""
    for entry in entries:
        places.append(begins + len(body))
        count = len(entry)
        body += struct.pack("<4i", 0, begins + len(body) + 8, count, 0)
        body += b"".join(struct.pack(f"<{len(numbers)}i", *numbers) for numbers in entry)
    roots = struct.pack("<2i", lists, lists + 4 * len(pages))
    return head + roots + struct.pack(f"<{len(places)}i", *places) + body


def _mirax_ini(
    slide_id: str, across: int, down: int, mpp: float, downsamples: Sequence[int]
) -> str:
    sections: dict[str, dict[str, Any]] = {
        "GENERAL": {
            "SLIDE_ID": slide_id,
            "IMAGENUMBER_X": across,
            "IMAGENUMBER_Y": down,
            "OBJECTIVE_MAGNIFICATION": 20,
        },
        "HIERARCHICAL": {
            "INDEXFILE": "Index.dat",
            "HIER_COUNT": 1,
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": len(downsamples),
            **{f"HIER_0_VAL_{i}_SECTION": f"LEVEL_{i}" for i in range(len(downsamples))},
            "NONHIER_COUNT": 1,
            "NONHIER_0_NAME": "Scan data layer",
            "NONHIER_0_COUNT": 1,
            "NONHIER_0_VAL_0": "ScanDataLayer_SlideThumbnail",
            "NONHIER_0_VAL_0_SECTION": "MACRO",
        },
        "MACRO": {"THUMBNAIL_IMAGE_TYPE": "JPEG"},
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
    }
    before = 1
    for number, factor in enumerate(downsamples):
        sections[f"LEVEL_{number}"] = {
            "IMAGE_CONCAT_FACTOR": (factor // before).bit_length() - 1,
            "OVERLAP_X": 0,
            "OVERLAP_Y": 0,
            "MICROMETER_PER_PIXEL_X": mpp * factor,
            "MICROMETER_PER_PIXEL_Y": mpp * factor,
            "IMAGE_FILL_COLOR_BGR": 0xFFFFFF,
            "DIGITIZER_WIDTH": TILE_PIXELS,
            "DIGITIZER_HEIGHT": TILE_PIXELS,
            "IMAGE_FORMAT": "PNG",
        }
        before = factor
    return "".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
        for name, keys in sections.items()
    )
