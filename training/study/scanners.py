"""Slides as scanners of two makes write them: Aperio's, and DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

from training.study.pyramid import TILE_PIXELS, encode_tiles, name_jpeg, reduce


def write_svs(
    path: Path,
    image: np.ndarray,
    mpp: float,
    downsamples: Sequence[int],
    profile: bytes | None = None,
    quality: int | None = None,
) -> Path:
    """Write a slide as Aperio's scanners do: a thumbnail, the levels, a label and a macro image.

    The three pictures beside the levels are red all over. Tiles are stored without loss, or as JPEG
    of a quality.
    """
    height, width = image.shape[:2]
    about = f"Aperio Image Library v11.2.1\n{width}x{height}"
    with tifffile.TiffWriter(path) as file:
        for factor in downsamples:
            level = reduce(image, factor)
            size = f"{level.shape[1]}x{level.shape[0]}"
            file.write(
                encode_tiles(level, quality=quality, subsampling=0, keep_rgb=True)
                if quality
                else level,
                shape=level.shape,
                dtype=level.dtype,
                tile=(TILE_PIXELS, TILE_PIXELS),
                photometric="rgb",
                compression="adobe_deflate",
                metadata=None,
                description=f"{about} [0,0 {size}] ({TILE_PIXELS}x{TILE_PIXELS})|MPP = {mpp}",
                iccprofile=profile,
            )
            if factor == 1:
                file.write(
                    draw_red(), photometric="rgb", metadata=None, description=f"{about} -> 80x60"
                )
        for name in ("label", "macro"):
            file.write(
                draw_red(),
                photometric="rgb",
                metadata=None,
                description=f"Aperio Image Library v11.2.1\n{name} 80x60",
                subfiletype=1 if name == "label" else 9,
            )
    if quality:
        name_jpeg(path)
    return path


def write_dicom(
    folder: Path,
    image: np.ndarray,
    mpp: float,
    downsamples: Sequence[int],
    profile: bytes | None = None,
) -> Path:
    """Write a slide as a DICOM series, a file each level and for the overview; returns one file.

    The overview is red all over.
    """
    folder.mkdir()
    series = generate_uid()
    for factor in downsamples:
        kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        if factor > 1:
            kind = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
        _write_dicom_level(folder, series, kind, reduce(image, factor), mpp * factor, profile)
    _write_dicom_level(
        folder, series, ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"], draw_red(), 300.0
    )
    return sorted(folder.iterdir())[0]


def _write_dicom_level(
    folder: Path,
    series: str,
    kind: list[str],
    image: np.ndarray,
    mpp: float,
    profile: bytes | None = None,
) -> None:
    height, width = image.shape[:2]
    down, right = -(-height // TILE_PIXELS), -(-width // TILE_PIXELS)
    padded = np.full((down * TILE_PIXELS, right * TILE_PIXELS, 3), 255, np.uint8)
    padded[:height, :width] = image
    tiles = padded.reshape(down, TILE_PIXELS, right, TILE_PIXELS, 3).swapaxes(1, 2)
    measures, shared, level = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared.PixelMeasuresSequence = [measures]
    level.file_meta = FileMetaDataset()
    level.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    level.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    level.SOPInstanceUID = generate_uid()
    level.SeriesInstanceUID = series
    level.Modality = "SM"
    level.ImageType = kind
    level.DimensionOrganizationType = "TILED_FULL"
    level.SharedFunctionalGroupsSequence = [shared]
    if profile:
        light = Dataset()
        light.ICCProfile = profile
        level.OpticalPathSequence = [light]
    level.TotalPixelMatrixFocalPlanes = 1
    level.TotalPixelMatrixColumns, level.TotalPixelMatrixRows = width, height
    level.Columns = level.Rows = TILE_PIXELS
    level.NumberOfFrames = down * right
    level.SamplesPerPixel, level.PlanarConfiguration = 3, 0
    level.PhotometricInterpretation = "RGB"
    level.BitsAllocated, level.BitsStored, level.HighBit, level.PixelRepresentation = 8, 8, 7, 0
    level.PixelData = tiles.tobytes()
    level.save_as(folder / f"{kind[2]}-{width}.dcm", enforce_file_format=True)


def draw_red() -> np.ndarray:
    """Return a picture that is red all over, as label and overview."""
    return np.zeros((60, 80, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
