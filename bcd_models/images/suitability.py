"""Whether a tile shows what a model was trained on: H&E-stained tissue, in focus, enough of it.

A tile at the trained scale becomes 29 numbers of colour and texture. Plain rules judge single
numbers; a small network, whose weights travel with the model, judges all of them together.
Compression alone is no finding: the network has learnt from degraded tissue as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
    # Shares of pixels: bare glass, and colours that neither stain has.
    *("glass", "off_hue"),
    *("lightest", "middle", "darkest"),
    # Mean differences between neighbours of 4, 8 and 16 micrometres.
    *("edges", "edges_2", "edges_4", "fine", "sharpness", "colour_edges", "colour_fine"),
    # What is drawn has areas of one colour, straight lines, and few but strong edges.
    *("even", "upright", "lines", "edge_tail"),
    "levels",  # spread of brightness in grey levels: where it is dark, density magnifies it
)
CLASSES = ("tissue", "stain", "picture")  # what the network tells apart
WORDS = {
    "flat": "nearly one colour",
    "dark": "nearly black",
    "noise": "noise, not tissue",
    "glass": "mostly glass",
    "grey": "without colour, so not stained with haematoxylin and eosin",
    "focus": "out of focus",
    "stain": "not stained with haematoxylin and eosin",
    "picture": "drawn or photographed, not tissue",
}
# Beyond these a single number is enough. Of real patches fewer than 1 in 200 break any of them.
MIN_LEVELS = 2.0  # spread of brightness in grey levels
MAX_GLASS = 0.98  # share of a tile's pixels
MAX_DARKNESS = 1.2  # optical density of the lightest twentieth of its pixels
MIN_COLOUR = 0.03  # mean share of colour in optical density
MAX_OFF_HUE = 0.95  # share of pixels
# Log ratio of differences at 4 and 16 micrometres, about 1.2 in pure noise. Fine stroma comes near
# it, but neither with edges as strong nor with colours that no stain has.
MAX_GRAIN, STRONG_EDGES, STRAY_HUE = 1.0, -2.2, 0.02
MIN_SHARPNESS = 0.5  # mean second difference over mean difference
GLASS_DENSITY, COLOURED = 0.06, 0.03
CLIP = 5.0  # deviations from the mean that the network is shown at most
AT_ONCE = 64  # tiles; more only spill the processor's cache
_TINY, _FLOOR = 1e-4, 3e-3


def find_unsuitable(tiles: NDArray[np.uint8], config: SuitabilityConfig) -> list[Finding | None]:
    """Return what speaks against each tile, None where nothing does.

    Args:
        tiles: N x H x W x 3, at the scale of the training patches.
        config: The network, and from where it refuses.
    """
    return [
        finding
        for first in range(0, len(tiles), AT_ONCE)
        for finding in judge(measure_tiles(tiles[first : first + AT_ONCE]), config)
    ]


def measure_tiles(tiles: NDArray[np.uint8]) -> Numbers:
    """Return the ``NUMBERS`` of N x H x W x 3 tiles, N x 29."""
    red, green, blue = (DENSITY[tiles[..., channel]] for channel in range(3))
    density = (red + green + blue) / 3
    greens = green - (red + blue) / 2
    reds = red - blue
    size, sides = density[0].size, (1, 2)

    def centre(values: Numbers) -> tuple[Numbers, Numbers]:
        mean: Numbers = values.mean(sides)
        return mean, values - mean[:, None, None]

    def product(one: Numbers, other: Numbers) -> Numbers:
        mean: Numbers = np.einsum("nij,nij->n", one, other) / size
        return mean

    (d, dc), (g, gc), (r, rc) = centre(density), centre(greens), centre(reds)
    dd, gg, rr = product(dc, dc), product(gc, gc), product(rc, rc)
    strength = np.sqrt(greens * greens + 0.75 * reds * reds)
    share = strength / (density + GLASS_DENSITY / 2)
    across, down = np.abs(np.diff(density, axis=2)), np.abs(np.diff(density, axis=1))
    right, below = across.mean(sides), down.mean(sides)
    edges = (right + below) / 2
    half = _halve(density)
    edges_2, edges_4 = _mean_edge(half), _mean_edge(_halve(half))
    bends = (_mean_step(np.diff(density, axis=2), 2) + _mean_step(np.diff(density, axis=1), 1)) / 2
    colour_edges, colour_edges_2 = _mean_edge(greens), _mean_edge(_halve(greens))
    lines = dc.mean(2).var(1) + dc.mean(1).var(1)
    lightest, middle, darkest = np.quantile(
        density.reshape(len(tiles), -1), (0.05, 0.5, 0.95), axis=1
    )
    columns = (
        *(d, _log(np.sqrt(dd)), product(dc * dc, dc) / (dd**1.5 + _TINY)),
        *(g, _log(np.sqrt(gg)), r, _log(np.sqrt(rr))),
        *(share.mean(sides), share.std(sides)),
        *(product(dc, gc) / (dd + _TINY), product(dc, rc) / (dd + _TINY)),
        product(gc, rc) / np.sqrt((gg + _TINY / 10) * (rr + _TINY / 10)),
        (density < GLASS_DENSITY).mean(sides),
        ((strength > COLOURED) & (greens < 0.3 * strength)).mean(sides),
        *(lightest, middle, darkest),
        *(_log(edges), _log(edges_2), _log(edges_4), _log(edges) - _log(edges_2)),
        bends / (edges + _TINY),
        *(_log(colour_edges), _log(colour_edges) - _log(colour_edges_2)),
        (across < _FLOOR / 2).mean(sides),
        np.abs(np.log((right + _TINY) / (below + _TINY))),
        lines / (dd + _TINY),
        np.log(product(across, across) + 1e-6) - 2 * np.log(right + _FLOOR / 3),
        tiles.mean(3, dtype=np.float32).std(sides),
    )
    return np.stack(columns, axis=1).astype(np.float32)


def score(numbers: Numbers, config: SuitabilityConfig) -> NDArray[np.float64]:
    """Return the network's logits of ``CLASSES``, N x 3."""
    shown = ((numbers - np.array(config.mean)) / np.array(config.deviation)).clip(-CLIP, CLIP)
    hidden, output = np.array(config.hidden), np.array(config.output)
    units = np.maximum(shown @ hidden[:-1] + hidden[-1], 0)
    logits: NDArray[np.float64] = units @ output[:-1] + output[-1]
    return logits


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
    is_stray = (by_name["edges"] > STRONG_EDGES) | (by_name["off_hue"] > STRAY_HUE)
    rules = (
        ("flat", by_name["levels"], MIN_LEVELS, by_name["levels"] < MIN_LEVELS),
        ("dark", by_name["lightest"], MAX_DARKNESS, by_name["lightest"] > MAX_DARKNESS),
        ("glass", by_name["glass"], MAX_GLASS, by_name["glass"] > MAX_GLASS),
        ("grey", by_name["colour"], MIN_COLOUR, by_name["colour"] < MIN_COLOUR),
        ("noise", grain, MAX_GRAIN, (grain > MAX_GRAIN) & is_stray),
        ("stain", by_name["off_hue"], MAX_OFF_HUE, by_name["off_hue"] > MAX_OFF_HUE),
        *(
            (name, odds, config.threshold, (odds > config.threshold) & (kinds == kind))
            for kind, name in enumerate(CLASSES)
            if kind
        ),
        (
            "focus",
            by_name["sharpness"],
            MIN_SHARPNESS,
            by_name["sharpness"] < MIN_SHARPNESS,
        ),
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


def _log(values: Numbers) -> Numbers:
    logarithms: Numbers = np.log(values + _FLOOR)
    return logarithms


def _halve(values: Numbers) -> Numbers:
    """Return the means of 2 x 2 pixels; an odd row or column at the end is left out."""
    even = values[:, : values.shape[1] // 2 * 2, : values.shape[2] // 2 * 2]
    down = even[:, ::2] + even[:, 1::2]
    return (down[:, :, ::2] + down[:, :, 1::2]) / 4


def _mean_edge(values: Numbers) -> Numbers:
    return (_mean_step(values, 2) + _mean_step(values, 1)) / 2


def _mean_step(values: Numbers, axis: int) -> Numbers:
    steps: Numbers = np.abs(np.diff(values, axis=axis)).mean((1, 2))
    return steps
