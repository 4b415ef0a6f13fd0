"""Makes whole slides of known layout: pyramidal TIFFs of drawn tissue, as OpenSlide reads them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.config import DecisionConfig, ModelConfig, PreprocessConfig
from training.study.pyramid import TILE_PIXELS, encode, name_jpeg, write_slide

from .drawing import Frame, develop, stain, stain_maps
from .synthetic import patch

TILE_UM = 200.0
REPEATED_PIXELS = 512  # of the tiles of a slide made of one
GLASS, BENIGN, TUMOUR = 0, 1, 2
SMALL_MPP = 4.0


def draw_layout(layout: np.ndarray, mpp: float, seed: int = 0) -> np.ndarray:
    """Draw tissue field by field: 0 is glass, 1 is benign, 2 is tumour, 200 micrometres each.

    Returns:
        H x W x 3 uint8, ``200 / mpp`` pixels a field.
    """
    side = round(TILE_UM / mpp)
    cancer, solid = (
        np.kron(layout == kind, np.ones((side, side), np.float32)).astype(np.float32)
        for kind in (TUMOUR, GLASS)
    )
    height, width = cancer.shape
    maps = stain_maps(seed, Frame(width, height, mpp), cancer, glands=0.6)
    maps *= 1 - solid
    return develop(maps, stain(seed), np.random.default_rng(seed))


def drawn_layout() -> np.ndarray:
    """14 x 18 fields: glass round tissue, with a tumour of 5 x 4 in it and a tumour apart."""
    layout = np.full((14, 18), GLASS)
    layout[2:12, 2:16] = BENIGN
    layout[3:8, 4:8] = TUMOUR
    layout[8:11, 11:14] = TUMOUR
    return layout


def leave_out_tile(path: Path, level: int, x: int, y: int) -> None:
    """Take out the TIFF tile that holds a pixel of a level, as scanners do with bare glass."""
    with tifffile.TiffFile(path, mode="r+") as file:
        page = file.pages[level]
        assert isinstance(page, tifffile.TiffPage)
        for name in ("TileOffsets", "TileByteCounts"):
            values = list(page.tags[name].value)
            values[_tile_index(page, x, y)] = 0
            page.tags[name].overwrite(values)


def _tile_index(page: tifffile.TiffPage, x: int, y: int) -> int:
    return (y // TILE_PIXELS) * -(-page.imagewidth // TILE_PIXELS) + x // TILE_PIXELS


def small_slides(folder: Path) -> dict[str, Path]:
    """One slide twice: its file says how large its pixels are ("sized"), or not ("unsized")."""
    picture = draw_layout(drawn_layout(), SMALL_MPP, seed=3)
    return {
        "sized": write_slide(folder / "Miller.tif", picture, SMALL_MPP),
        "unsized": write_slide(folder / "unsized.tif", picture, None),
    }


def damage_tile(path: Path, level: int, x: int, y: int) -> None:
    """Overwrite the TIFF tile that holds a pixel of a level with bytes that don't decode."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        assert isinstance(page, tifffile.TiffPage)
        index = _tile_index(page, x, y)
        offset, length = page.dataoffsets[index], page.databytecounts[index]
    with path.open("r+b") as data:
        data.seek(offset)
        data.write(b"\xff" * length)


def telling_model(name: str = "telling") -> BCDClassifier:
    """A quick model that tells drawn tumour from other tissue: a real network, its head fitted.

    Random weights are kept but for the last layer, which is fitted by least squares to patches of
    both kinds, as drawn and with glass beside them.
    """
    import torch

    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    config = ModelConfig(
        name=name,
        version="1.2.3",
        backbone="mobilenetv2",
        preprocess=PreprocessConfig(input_size=64, mean=half, std=half),
    )
    model = BCDClassifier(config)
    kinds = ("benign", "malignant")
    pictures = [Image.fromarray(patch(kinds[i % 2], seed=500 + i)) for i in range(160)]
    with torch.inference_mode():
        network: Any = model.network
        features = network.forward_head(
            network.forward_features(model.preprocess(pictures)), pre_logits=True
        ).double()
        spread = features.std(0) + 1e-6
        middle = features.mean(0)
        scaled = (features - middle) / spread
        target = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(80)
        ridge = 20 * torch.eye(scaled.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(scaled.T @ scaled + ridge, scaled.T @ target) / spread
        network.classifier.weight.copy_(torch.stack([-weights, weights]).float() / 2)
        bias = -(weights * middle).sum() / 2
        network.classifier.bias.copy_(torch.stack([-bias, bias]).float())
    model.config = config.model_copy(
        update={"decision": DecisionConfig(slope=4.0, threshold=0.5, refer=(0.45, 0.55))}
    )
    return model


def write_repeated(path: Path, side: int, mpp: float, downsamples: Sequence[int]) -> Path:
    """Write a huge slide quickly: one drawn JPEG tile, encoded once a level and repeated.

    Args:
        path: The file.
        side: Width and height of level 0 in pixels.
        mpp: Micrometres a pixel.
        downsamples: As in ``write_slide``.
    """
    kind = np.full((1, 1), TUMOUR)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for factor in downsamples:
            drawn = draw_layout(kind, TILE_UM / REPEATED_PIXELS)
            tile = encode(drawn, "JPEG", quality=25, subsampling=0, keep_rgb=True)
            length = side // factor
            count = (-(-length // REPEATED_PIXELS)) ** 2
            file.write(
                itertools.repeat(tile, count),
                shape=(length, length, 3),
                dtype=np.uint8,
                tile=(REPEATED_PIXELS, REPEATED_PIXELS),
                photometric="rgb",
                compression="adobe_deflate",
                metadata=None,
                subfiletype=1 if factor > 1 else 0,
                resolution=(1e4 / mpp / factor,) * 2,
                resolutionunit="CENTIMETER",
            )
    name_jpeg(path)
    return path
