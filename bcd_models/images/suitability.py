"""Whether a tile shows what a model was trained on: H&E-stained tissue, in focus, enough of it.

A tile at the trained scale becomes 31 numbers of colour and texture. Plain rules judge single
numbers; a small network, whose weights travel with the model, judges 30 of them together.
Compression alone is no finding: the network has learnt from degraded tissue as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bcd_models.images.tissue import DENSITY
from bcd_models.prediction import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.config import SuitabilityConfig

    Numbers = NDArray[np.floating]

NUMBERS = (
    # Of optical density, green's excess over red and blue, and red's over blue: mean and spread.
    *("density", "density_spread", "density_skew"),
    *("green", "green_spread", "red", "red_spread"),
    # How strong the colour is for its density, and how it follows density: nuclei are bluer.
    *("colour", "colour_spread", "green_by_density", "red_by_density", "green_with_red"),
    # Shares of pixels: bare glass, colours that neither stain has, and those of blue, green and
    # black ink, which takes more red light than blue, or all of it alike.
    *("glass", "off_hue", "ink"),
    *("lightest", "middle", "darkest"),
    # Mean differences between neighbours of 4, 8 and 16 micrometres.
    *("edges", "edges_2", "edges_4", "fine", "sharpness", "colour_edges", "colour_fine"),
    # What is drawn has areas of one colour, straight lines, and few but strong edges.
    *("even", "upright", "lines", "edge_tail"),
    "levels",  # spread of brightness in grey levels: where it is dark, density magnifies it
    # For the rules alone: how far either colour follows density, 1 where all is one signal.
    "follows",
)
NETWORK_NUMBERS = 30  # of them by the network
CLASSES = ("tissue", "stain", "picture", "pen")  # what the network tells apart
WORDS = {
    "flat": "nearly one colour",
    "dark": "too dark",
    "noise": "noise, not tissue",
    "glass": "mostly glass",
    "grey": "without colour, so not stained with haematoxylin and eosin",
    "focus": "out of focus",
    "stain": "not stained with haematoxylin and eosin",
    "picture": "drawn or photographed, not tissue",
    "pen": "marked with a pen",
}
# Beyond these a single number is enough. Of real patches fewer than 1 in 200 break any of them.
MIN_LEVELS = 2.0  # spread of brightness in grey levels
MAX_GLASS = 0.98  # share of a tile's pixels
MAX_DARKNESS = 0.75  # optical density of half of its pixels
MIN_COLOUR = 0.03  # mean share of colour in optical density
MAX_OFF_HUE = 0.95  # share of pixels
# Where it is this dense, a fifth of off colours is too much: an inverted image's glass is dark.
DENSE, MAX_OFF_HUE_IF_DENSE = 0.5, 0.2
# Log ratio of differences at 4 and 16 micrometres, about 1.2 in pure noise. Fine stroma comes near
# it, but neither with edges as strong, nor with colours that no stain has, nor as sharp throughout,
# nor with the same signal in all channels, nor with more of it in colour than in density.
MAX_GRAIN, STRONG_EDGES, STRAY_HUE, TOO_SHARP, ONE_SIGNAL = 1.0, -2.2, 0.02, 1.74, 0.92
MIN_BLOCKS, BLOCK_SHARPNESS = 0.6, 1.95  # noise of several pixels: even squares with hard edges
MIN_SHARPNESS = 0.5  # mean second difference over mean difference
GLASS_DENSITY, COLOURED, INK_BLUE, INK_BLACK = 0.06, 0.03, 0.2, 0.6
# Red, green and blue density to their mean, green's excess over the others, and red's over blue.
MIXES = np.array([[1 / 3, 1 / 3, 1 / 3], [-1 / 2, 1, -1 / 2], [1, 0, -1]], np.float32)
MAX_DEVIATIONS = 5.0  # deviations from the mean that the network is shown at most
TILES_AT_ONCE = 64  # tiles; more only spill the processor's cache
_TINY, _FLOOR, _VOID = 1e-4, 3e-3, 1e-10


def find_unsuitable(tiles: NDArray[np.uint8], config: SuitabilityConfig) -> list[Finding | None]:
    """Return what speaks against each tile, None where nothing does.

    Args:
        tiles: N x S x S x 3, at the scale of the training patches.
        config: The network, and from where it refuses.
    """
    return [
        finding
        for first in range(0, len(tiles), TILES_AT_ONCE)
        for finding in judge(measure_tiles(tiles[first : first + TILES_AT_ONCE]), config)
    ]


def measure_tiles(tiles: NDArray[np.uint8]) -> Numbers:
    """Return the ``NUMBERS`` of N x S x S x 3 tiles, N x 31."""
    count, side = len(tiles), tiles.shape[1]
    channels = np.ascontiguousarray(np.moveaxis(tiles, -1, 1)).reshape(count, 3, -1)
    planes = np.empty((count, 5, side * side), np.float32)
    np.matmul(MIXES, np.take(DENSITY, channels), out=planes[:, :3])
    density, greens, reds = planes[:, :3].swapaxes(0, 1)
    strength = np.sqrt(greens * greens + 0.75 * reds * reds)
    np.divide(strength, density + GLASS_DENSITY / 2, out=planes[:, 3])
    np.matmul(np.full(3, 1 / 3, np.float32), channels.astype(np.float32), out=planes[:, 4])

    glass = _share(density < GLASS_DENSITY)
    off_hue = _share((strength > COLOURED) & (greens < 0.3 * strength))
    coloured_ink = (reds > INK_BLUE) & (greens < 0.25 * strength)
    ink = _share(coloured_ink | ((density > INK_BLACK) & (strength < 0.2 * density)))
    ranks = [int(rank * (side * side - 1)) for rank in (0.05, 0.5, 0.95)]
    quantiles = np.sort(density, axis=1)[:, ranks]

    means = _mean(planes)
    planes -= means[..., None]  # density, greens and reds, too: they are views of it
    squares = _mean(planes * planes)
    (dd, gg, rr), spreads = squares[:, :3].T, np.sqrt(squares)
    dg, dr, gr = _mean(density * greens), _mean(density * reds), _mean(greens * reds)
    skew = _mean(density * density * density) / (dd**1.5 + _TINY)

    pair = planes[:, :2].reshape(count, 2, side, side)  # density and green's excess
    half = _halve(pair)
    by_row, by_column = _mean(pair[:, 0]), _mean(pair[:, 0].swapaxes(1, 2))
    lines = (_mean(by_row**2) + _mean(by_column**2)) / (dd + _TINY)
    right, below = _mean_steps(pair)
    edges = (right + below) / 2
    edges_2, edges_4 = (np.add(*_mean_steps(one)) / 2 for one in (half, _halve(half)))
    across, down = pair[:, 0, :, 1:] - pair[:, 0, :, :-1], pair[:, 0, 1:] - pair[:, 0, :-1]
    bends = (
        _mean_size(across[..., 1:] - across[..., :-1]) + _mean_size(down[:, 1:] - down[:, :-1])
    ) / 2
    steps = np.abs(across).reshape(count, -1)
    tail = np.log(_mean(steps * steps) + 1e-6) - 2 * np.log(right[:, 0] + _FLOOR / 3)

    log_spreads = np.log(spreads[:, :3] + _FLOOR)
    edge, colour_edge, edge_2, colour_edge_2, edge_4, _ = np.log(
        np.concatenate((edges, edges_2, edges_4), axis=1) + _FLOOR
    ).T
    columns = (
        *(means[:, 0], log_spreads[:, 0], skew),
        *(means[:, 1], log_spreads[:, 1], means[:, 2], log_spreads[:, 2]),
        *(means[:, 3], spreads[:, 3], dg / (dd + _TINY), dr / (dd + _TINY)),
        gr / np.sqrt((gg + 1e-5) * (rr + 1e-5)),
        *(glass, off_hue, ink),
        *quantiles.T,
        *(edge, edge_2, edge_4, edge - edge_2, bends / (edges[:, 0] + _TINY)),
        *(colour_edge, colour_edge - colour_edge_2),
        _share(steps < _FLOOR / 2),
        np.abs(np.log((right[:, 0] + _TINY) / (below[:, 0] + _TINY))),
        *(lines, tail, spreads[:, 4]),
        np.maximum(np.abs(dg) / np.sqrt(dd * gg + _VOID), np.abs(dr) / np.sqrt(dd * rr + _VOID)),
    )
    return np.array(columns, np.float32).T


def score(numbers: Numbers, config: SuitabilityConfig) -> NDArray[np.float64]:
    """Return the network's logits of ``CLASSES``, N x 4."""
    mean, deviation, hidden, output = _unpack(config)
    shown = ((numbers[:, :NETWORK_NUMBERS] - mean) / deviation).clip(
        -MAX_DEVIATIONS, MAX_DEVIATIONS
    )
    units = np.maximum(shown @ hidden[:-1] + hidden[-1], 0)
    logits: NDArray[np.float64] = units @ output[:-1] + output[-1]
    return logits


@lru_cache(maxsize=8)
def _unpack(config: SuitabilityConfig) -> tuple[NDArray[np.float64], ...]:
    return tuple(map(np.array, (config.mean, config.deviation, config.hidden, config.output)))


def against_tissue(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds that tiles show no tissue stained with H&E, shape (N,)."""
    others: NDArray[np.float64] = np.logaddexp.reduce(logits[:, 1:], axis=1) - logits[:, 0]
    return others


def judge(numbers: Numbers, config: SuitabilityConfig) -> list[Finding | None]:
    """Name the first rule that each row of numbers breaks, the plain ones before the network's."""
    by_name = dict(zip(NUMBERS, numbers.T, strict=True))
    logits = score(numbers, config)
    odds, kinds = against_tissue(logits), logits[:, 1:].argmax(1) + 1
    grain = by_name["edges"] - by_name["edges_4"]
    off_hue, is_dense = by_name["off_hue"], by_name["middle"] > DENSE
    is_stray = (
        (by_name["edges"] > STRONG_EDGES)
        | (off_hue > STRAY_HUE)
        | (by_name["sharpness"] > TOO_SHARP)
        | (by_name["follows"] > ONE_SIGNAL)
        | (by_name["colour_edges"] > by_name["edges"])
    )
    is_coarse = (by_name["even"] > MIN_BLOCKS) & (by_name["sharpness"] > BLOCK_SHARPNESS)
    rules = (
        ("flat", by_name["levels"], MIN_LEVELS, by_name["levels"] < MIN_LEVELS),
        ("dark", by_name["middle"], MAX_DARKNESS, by_name["middle"] > MAX_DARKNESS),
        ("glass", by_name["glass"], MAX_GLASS, by_name["glass"] > MAX_GLASS),
        ("grey", by_name["colour"], MIN_COLOUR, by_name["colour"] < MIN_COLOUR),
        ("noise", grain, MAX_GRAIN, (grain > MAX_GRAIN) & is_stray),
        ("noise", by_name["sharpness"], BLOCK_SHARPNESS, is_coarse),
        ("stain", off_hue, MAX_OFF_HUE, off_hue > MAX_OFF_HUE),
        ("stain", off_hue, MAX_OFF_HUE_IF_DENSE, is_dense & (off_hue > MAX_OFF_HUE_IF_DENSE)),
        *(
            (name, odds, config.threshold, (odds > config.threshold) & (kinds == kind))
            for kind, name in enumerate(CLASSES)
            if kind
        ),
        ("focus", by_name["sharpness"], MIN_SHARPNESS, by_name["sharpness"] < MIN_SHARPNESS),
    )
    return [
        next(
            (
                Finding(name, float(values[row]), threshold, WORDS[name])
                for name, values, threshold, breaks in rules
                if breaks[row]
            ),
            None,
        )
        for row in range(len(numbers))
    ]


def summarise(findings: Sequence[Finding | None]) -> tuple[Finding, ...]:
    """Return one finding of each name, that of most tiles first, with how many tiles it is of."""
    found = [one for one in findings if one]
    by_name = [[one for one in found if one.name == name] for name in WORDS]
    return tuple(
        replace(ones[0], value=float(np.median([one.value for one in ones])), tiles=len(ones))
        for ones in sorted(by_name, key=len, reverse=True)
        if ones
    )


def _halve(planes: Numbers) -> Numbers:
    """Return the means of 2 x 2 pixels; an odd row or column at the end is left out."""
    even = planes[..., : planes.shape[-2] // 2 * 2, : planes.shape[-1] // 2 * 2]
    down = even[..., ::2, :] + even[..., 1::2, :]
    return (down[..., ::2] + down[..., 1::2]) / 4


def _mean_steps(planes: Numbers) -> tuple[Numbers, Numbers]:
    """Return the mean differences between neighbours across, and down."""
    across, down = (
        planes[..., 1:] - planes[..., :-1],
        planes[..., 1:, :] - planes[..., :-1, :],
    )
    return _mean_size(across), _mean_size(down)


def _mean_size(planes: Numbers) -> Numbers:
    return _mean(np.abs(planes).reshape(*planes.shape[:-2], -1))


def _share(mask: NDArray[np.bool_]) -> Numbers:
    return _mean(mask.astype(np.float32))


def _mean(values: Numbers) -> Numbers:
    """Return the mean over the last axis; of so few values this is several times as quick."""
    means: Numbers = np.einsum("...p->...", values) / values.shape[-1]
    return means
