"""Draws H&E-like breast tissue from a seed, at any pixel size.

A scene is laid out in micrometres: every random draw depends on the seed and on the scene's
extent, never on the pixel size, so one scene can be shown coarse or sharp. It ends as two maps of
stain amount (haematoxylin, eosin), which `develop` turns into colour.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

# Optical density of one unit of stain in red, green and blue: (haematoxylin, eosin).
# RUIFROK is the pair of Ruifrok and Johnston 2001 (the "HED" vectors); MACENKO is the reference
# pair of Macenko et al. 2009, whose eosin takes more blue. Real slides lie between the two.
RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], np.float32)
MACENKO = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]], np.float32)

GLAND_GRID = 200.0  # um between places where a duct or lobule may lie
FAT_CELL = 58.0  # um between the centres of neighbouring fat cells
FIBRE_SIZES = ((0.5, 1.6), (2.2, 4.0), (6.5, 4.5))  # texels across, along
LINING = 11.0  # um, thickness of the epithelium round a lumen
NOISE = np.float32(1.6)  # grey levels, standard deviation
STAMP_BUDGET = 1 << 20  # pixels of nuclei evaluated at once, to bound memory


class Frame(NamedTuple):
    """The window that is drawn: size in pixels, and micrometres per pixel."""

    width: int
    height: int
    mpp: float

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height in micrometres."""
        return self.width * self.mpp, self.height * self.mpp

    def at(self, field: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Values of an H x W field at N x 2 points (x, y in micrometres), nearest pixel."""
        column = np.clip((points[:, 0] / self.mpp).astype(np.intp), 0, self.width - 1)
        row = np.clip((points[:, 1] / self.mpp).astype(np.intp), 0, self.height - 1)
        return field[row, column]


class Fibres(NamedTuple):
    """Collagen of a scene, H x W each."""

    fine: np.ndarray  # texture of unit spread
    strands: np.ndarray  # the same, coarser
    across: np.ndarray  # um; constant along a fibre

    def direction(self, frame: Frame, points: np.ndarray) -> np.ndarray:
        """The fibres' angle (radians) at N x 2 points in micrometres."""
        here, right, down = (
            frame.at(self.across, points + step) for step in ((0, 0), (12.0, 0), (0, 12.0))
        )
        angle: np.ndarray = np.arctan2(down - here, right - here) + math.pi / 2
        return angle


class Stain(NamedTuple):
    """How one slide was stained: 2 x 3 optical densities and the RGB of bare glass."""

    vectors: np.ndarray
    glass: np.ndarray


class Layers(NamedTuple):
    """Stain amounts (H x W float32, about 0 to 1) while a scene is built up."""

    haematoxylin: np.ndarray
    eosin: np.ndarray
    solid: np.ndarray  # 1 where there is tissue, 0 in fat vacuoles and lumina

    def blend(
        self, where: tuple[Any, ...] | slice, weight: np.ndarray, *, h: float, e: float
    ) -> None:
        """Paints amounts h and e over a region, in place, with weights 0 to 1."""
        self.haematoxylin[where] += weight * (h - self.haematoxylin[where])
        self.eosin[where] += weight * (e - self.eosin[where])


def _generator(seed: int, layer: int) -> np.random.Generator:
    """Each layer has its own stream, so leaving one out changes no other."""
    return np.random.default_rng([abs(seed), int(seed < 0), layer])


def _noise(rng: np.random.Generator, frame: Frame, spacing: float) -> np.ndarray:
    """Smooth noise of about unit spread, from random values `spacing` micrometres apart."""
    spans = [side / spacing for side in frame.extent]
    columns, rows = (math.ceil(span - 1e-6) + 4 for span in spans)
    lattice = Image.fromarray(rng.standard_normal((rows, columns), np.float32) * 1.35)
    box = (1.5, 1.5, 1.5 + spans[0], 1.5 + spans[1])
    size = (frame.width, frame.height)
    return np.asarray(lattice.resize(size, Image.Resampling.BICUBIC, box=box))


def _rough(rng: np.random.Generator, frame: Frame, spacing: float) -> np.ndarray:
    """Noise with finer detail on top, for outlines that should not look like blobs."""
    return 0.85 * _noise(rng, frame, spacing) + 0.5 * _noise(rng, frame, spacing / 2.3)


def _ramp(values: np.ndarray, width: float) -> np.ndarray:
    """0 to 1 over `width` units centred on zero: an anti-aliased threshold."""
    return np.clip(values / width + 0.5, 0.0, 1.0)


def _jitter(rng: np.random.Generator, frame: Frame, spacing: float, jitter: float) -> np.ndarray:
    """Rows x columns x 2 points (um), one per grid cell, one cell beyond every border."""
    columns, rows = (math.ceil(side / spacing - 1e-6) + 2 for side in frame.extent)
    centres = np.stack(np.meshgrid(np.arange(columns) - 0.5, np.arange(rows) - 0.5), axis=-1)
    moved = centres + rng.uniform(-jitter, jitter, centres.shape)
    return (moved * spacing).astype(np.float32)


@lru_cache(maxsize=8)
def _strand_tiles(mpp: float) -> tuple[np.ndarray, np.ndarray]:
    """Two repeating 512 x 256 textures of unit spread: fine fibres, and coarse strands.

    A texel is 1.5 um across the strands and 8 um along. Scenes differ in where and how bent they
    cut the tiles, so one pair per pixel size serves all.
    """
    white = np.random.default_rng(1).standard_normal((512, 256), np.float32)
    layers = [ndimage.gaussian_filter(white, s, mode="wrap") for s in FIBRE_SIZES]
    threads, bundles, strands = (layer / layer.std() for layer in layers)
    fine = (threads + bundles) / math.sqrt(2.0)
    # Blurring to the pixel size avoids aliasing.
    return ndimage.gaussian_filter(fine, (0.25 * mpp / 1.5, 0.0), mode="wrap"), strands


def _fibres(seed: int, frame: Frame) -> Fibres:
    """Wavy collagen: long strands cut along bent lines."""
    rng = _generator(seed, 1)
    angle, shift = rng.uniform(0.0, math.pi), rng.uniform(0.0, 4000.0, 2)
    bend = 40.0 * _noise(rng, frame, 260.0) + rng.uniform(1.5, 5.0) * _noise(rng, frame, 36.0)
    x = (np.arange(frame.width, dtype=np.float32) + 0.5) * frame.mpp
    y = (np.arange(frame.height, dtype=np.float32)[:, None] + 0.5) * frame.mpp
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle) + bend
    texels = np.stack([(across + float(shift[0])) / 1.5, (along + float(shift[1])) / 8.0])
    fine, strands = (
        ndimage.map_coordinates(tile, texels, np.float32, order=1, mode="grid-wrap")
        for tile in _strand_tiles(frame.mpp)
    )
    return Fibres(fine, strands, across)


def _stroma(seed: int, frame: Frame, fibres: Fibres, cancer: np.ndarray) -> Layers:
    """Pink collagen, dense or loose by region; evenly pink where it answers to a tumour."""
    rng = _generator(seed, 2)
    loose = _rough(rng, frame, 210.0) + rng.uniform(-0.6, 0.6) - 0.6 * cancer
    gaps = _ramp(-fibres.fine - 1.45 + 0.6 * loose, 1.3)
    eosin = (0.17 - 0.02 * loose + 0.03 * fibres.fine) * (1.0 - 0.8 * gaps)
    haematoxylin = 0.022 + 0.02 * _ramp(loose, 2.0) + 0.02 * cancer
    solid = np.ones_like(eosin)
    return Layers(haematoxylin * (1.0 - 0.6 * gaps), np.maximum(eosin, 0.012), solid)


def _add_fat(seed: int, frame: Frame, layers: Layers, cancer: np.ndarray) -> None:
    """White fat vacuoles with thin rims: the rounded cells of a Voronoi pattern."""
    rng = _generator(seed, 3)
    amount = _rough(rng, frame, 330.0) - 1.7 * cancer + rng.uniform(-1.9, 0.1)
    points = _jitter(rng, frame, FAT_CELL, 0.4)
    stride = points.shape[1]
    points = points.reshape(-1, 2)
    kept = frame.at(amount, points) > 0.0
    row, column = np.nonzero(amount > -0.7)
    x, y = ((index.astype(np.float32) + 0.5) * frame.mpp for index in (column, row))
    home = ((y / FAT_CELL).astype(np.intp) + 1) * stride + (x / FAT_CELL).astype(np.intp) + 1
    nearest = np.full(x.shape, 1e9, np.float32)
    second, fat = nearest.copy(), np.zeros(x.shape, bool)
    for step in (down * stride + right for down in (-1, 0, 1) for right in (-1, 0, 1)):
        cell = home + step
        squared = (points[:, 0][cell] - x) ** 2 + (points[:, 1][cell] - y) ** 2
        fat = np.where(squared < nearest, kept[cell], fat)
        second = np.minimum(second, np.maximum(nearest, squared))
        nearest = np.minimum(nearest, squared)
    nearest, second = np.sqrt(nearest), np.sqrt(second)
    inside = np.minimum((second - nearest) / 2 - 1.1, 0.56 * FAT_CELL - nearest)
    rim = _ramp(inside + 3.0, max(frame.mpp, 1.0)) * fat
    layers.blend((row, column), rim, h=0.04, e=0.16)
    hole = _ramp(inside, max(frame.mpp, 0.8)) * fat
    layers.blend((row, column), hole, h=0.0, e=0.006)
    layers.solid[row, column] -= hole


def _acini(rng: np.random.Generator, centre: np.ndarray) -> np.ndarray:
    """N x 5 ellipses (x, y, semi-axes, angle; um, rad): one duct, or a lobule's acini."""
    if rng.random() < 0.3:
        radius = rng.uniform(28.0, 60.0)
        return np.array([[*centre, radius, radius * rng.uniform(0.5, 0.9), rng.uniform(0, 3.14)]])
    found: list[tuple[float, ...]] = []
    reach = rng.uniform(25.0, 75.0)
    for _ in range(40):
        x, y = centre + rng.uniform(-reach, reach, 2)
        long = rng.uniform(13.0, 25.0)
        ellipse = (x, y, long, long * rng.uniform(0.7, 1.0), rng.uniform(0.0, math.pi))
        if all(math.hypot(x - o[0], y - o[1]) > 0.84 * (long + o[2]) for o in found):
            found.append(ellipse)
    return np.array(found)


def _add_acinus(frame: Frame, layers: Layers, ellipse: np.ndarray, warp: np.ndarray) -> None:
    """Paints one lined lumen and the pale sleeve of stroma round it."""
    x, y, long, short, angle = ellipse
    reach = long + 14.0
    left, right = (int(np.clip((x + s * reach) / frame.mpp, 0, frame.width)) for s in (-1, 1))
    top, bottom = (int(np.clip((y + s * reach) / frame.mpp, 0, frame.height)) for s in (-1, 1))
    if left == right or top == bottom:
        return
    window = (slice(top, bottom), slice(left, right))
    dx = (np.arange(left, right, dtype=np.float32) + 0.5) * frame.mpp - x + warp[window]
    dy = (np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5) * frame.mpp - y - warp[window]
    u = (dx * math.cos(angle) + dy * math.sin(angle)) / long
    v = (dy * math.cos(angle) - dx * math.sin(angle)) / short
    outside = (np.hypot(u, v) - 1.0) * math.sqrt(long * short)
    soft = max(frame.mpp, 1.2)
    layers.blend(window, 0.5 * _ramp(4.0 - outside, 9.0), h=0.03, e=0.09)
    layers.blend(window, _ramp(-outside, soft), h=0.13, e=0.13)
    lumen = _ramp(-outside - LINING, soft)
    layers.blend(window, lumen, h=0.004, e=0.012)
    layers.solid[window] = np.maximum(layers.solid[window], _ramp(-outside, soft)) - lumen


def _ring(rng: np.random.Generator, ellipses: np.ndarray, depth: float, gap: float) -> np.ndarray:
    """N x 3 evenly spaced places `depth` um inside each of M x 5 ellipses: x, y, outward angle."""
    long, short = np.maximum(ellipses[:, 2:4] - depth, 1.0).T
    counts = np.maximum(3, np.round(math.pi * (long + short) / gap)).astype(int)
    owner = np.repeat(np.arange(len(counts)), counts)
    order = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    turn = (order + rng.uniform(-0.16, 0.16, len(owner))) * 2 * math.pi / counts[owner]
    long, short = long[owner], short[owner]
    x, y, angle = ellipses[owner][:, [0, 1, 4]].T
    u, v, c, s = long * np.cos(turn), short * np.sin(turn), np.cos(angle), np.sin(angle)
    facing = np.arctan2(np.sin(turn) * long, np.cos(turn) * short) + angle
    return np.stack([x + u * c - v * s, y + u * s + v * c, facing], axis=1)


def _nuclei(
    rng: np.random.Generator, places: np.ndarray, long: float, short: float, *, dark: float,
    spread: float = 0.07, bent: float = 0.08,
) -> np.ndarray:  # fmt: skip
    """N x 8 nuclei (x, y, angle, semi-axes, darkness, bend, taper) at N x 3 places, um and rad."""
    count = len(places)
    sizes = np.exp(rng.normal(0.0, spread, (count, 2))) * (long, short)
    sizes *= np.exp(rng.normal(0.0, spread, (count, 1)))
    darkness = dark * np.exp(rng.normal(0.0, 1.5 * spread, (count, 1)))
    return np.hstack([places, sizes, darkness, rng.normal(0.0, bent, (count, 2))])


def _add_glands(
    seed: int, frame: Frame, layers: Layers, cancer: np.ndarray, share: float
) -> np.ndarray:
    """Paints ducts and lobules outside the tumour and returns their nuclei, N x 8."""
    rng = _generator(seed, 4)
    warp = 2.2 * _noise(rng, frame, 22.0)
    places = _jitter(rng, frame, GLAND_GRID, 0.22).reshape(-1, 2)
    chances = rng.random(len(places))
    places = places[(chances < share) & (frame.at(cancer, places) < 0.5)]
    ellipses = np.vstack([np.zeros((0, 5)), *(_acini(rng, place) for place in places)])
    for ellipse in ellipses:
        _add_acinus(frame, layers, ellipse, warp)
    wide = ellipses[:, 3] > 30.0
    lining = [_ring(rng, ellipses[~wide], 0.36 * LINING + 1.5, 6.4)]
    lining += [_ring(rng, ellipses[wide], depth * LINING + 1.5, 6.4) for depth in (0.3, 0.66)]
    outer = _ring(rng, ellipses, 0.8, 11.0)
    outer[:, 2] += math.pi / 2  # these lie flat round the lining
    nuclei = _nuclei(rng, np.vstack(lining), 3.3, 2.3, dark=0.5)
    nuclei = np.vstack([nuclei, _nuclei(rng, outer, 3.4, 1.3, dark=0.5)])
    shift = frame.at(warp, nuclei)
    nuclei[:, 0] -= shift
    nuclei[:, 1] += shift
    return nuclei


def _add_tumour(
    seed: int, frame: Frame, layers: Layers, cancer: np.ndarray, fibres: Fibres
) -> np.ndarray:
    """Paints irregular nests and cords and returns their large, uneven nuclei, N x 8."""
    rng = _generator(seed, 5)
    spacing, cover, cords = rng.uniform((26.0, -0.4, 0.0), (62.0, 0.7, 1.0)).tolist()
    nest = (1.0 - 0.7 * cords) * _rough(rng, frame, spacing) + cords * fibres.strands
    nest += cover - 3.0 * (1.0 - cancer)
    cleft = _ramp(nest + 0.55, 0.3) * _ramp(_noise(rng, frame, 90.0) - 0.5, 0.6)
    everywhere = (slice(None), slice(None))
    layers.blend(everywhere, 0.8 * cleft * layers.solid, h=0.01, e=0.02)
    nest_weight = _ramp(nest, max(0.25, 0.02 * frame.mpp)) * layers.solid
    nest_weight *= np.minimum(4.0 * cancer, 1.0)
    layers.blend(everywhere, nest_weight, h=0.15, e=0.15)
    points = _jitter(rng, frame, 9.2, 0.46).reshape(-1, 2)
    places = np.column_stack([points, rng.uniform(0.0, math.pi, len(points))])
    dark = rng.uniform(0.52, 0.68)
    nuclei = _nuclei(rng, places, 4.4, 3.2, dark=dark, spread=0.17, bent=0.2)
    # Single cells leave the nests, so some nuclei lie loose in the stroma.
    chance = (0.06 + 0.84 * frame.at(nest_weight, points)) * (frame.at(cancer, points) > 0.05)
    chance *= frame.at(layers.solid, points) > 0.7
    return nuclei[rng.random(len(points)) < chance]


def _scatter_nuclei(
    seed: int, frame: Frame, layers: Layers, cancer: np.ndarray, fibres: Fibres
) -> np.ndarray:
    """Spindle nuclei along the fibres and patches of lymphocytes, N x 8."""
    rng = _generator(seed, 6)
    points = _jitter(rng, frame, 24.0, 0.45).reshape(-1, 2)
    places = np.column_stack([points, fibres.direction(frame, points)])
    spindles = _nuclei(rng, places, 5.6, 1.25, dark=0.45, spread=0.2, bent=0.15)
    spindles = spindles[rng.random(len(points)) < 0.45 + 0.25 * frame.at(cancer, points)]
    crowd = _ramp(_rough(rng, frame, 120.0) - rng.uniform(1.2, 2.6), 1.0)
    points = _jitter(rng, frame, 9.0, 0.45).reshape(-1, 2)
    places = np.column_stack([points, rng.uniform(0.0, math.pi, len(points))])
    round_cells = _nuclei(rng, places, 2.7, 2.5, dark=0.68, bent=0.03)
    chance = 0.006 + 0.6 * frame.at(crowd, points)
    found = np.vstack([spindles, round_cells[rng.random(len(points)) < chance]])
    return found[frame.at(layers.solid, found) > 0.8]


def _stamp(canvas: np.ndarray, frame: Frame, nuclei: np.ndarray) -> None:
    """Draws bent, tapered ellipses into an H x W canvas, in place, keeping the darker value."""
    half = math.ceil(1.35 * nuclei[:, 3].max() / frame.mpp)
    offset = np.arange(-half, half + 1)
    x, y, angle, long, short, dark, bend, taper = nuclei.astype(np.float32).T[:, :, None, None]
    column = np.floor(x / frame.mpp).astype(np.int32) + offset[None, None, :]
    row = np.floor(y / frame.mpp).astype(np.int32) + offset[None, :, None]
    dx = (column + np.float32(0.5)) * np.float32(frame.mpp) - x
    dy = (row + np.float32(0.5)) * np.float32(frame.mpp) - y
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / long
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / short
    v = (v + bend * u * u) * (1.0 + taper * u)
    radius = np.sqrt(u * u + v * v)
    soft = np.float32(max(frame.mpp, 0.5))
    weight = np.clip((1.0 - radius) * np.sqrt(long * short) / soft + 0.5, 0.0, 1.0)
    shown = (weight > 0.0) & (row >= 0) & (row < frame.height)
    shown &= (column >= 0) & (column < frame.width)
    # The rim is denser than the middle, as a nucleus's membrane is.
    values = (weight * dark * (0.78 + 0.22 * np.minimum(radius, 1.0) ** 2))[shown]
    np.maximum.at(canvas.reshape(-1), (row * frame.width + column)[shown], values)


def _add_nuclei(seed: int, frame: Frame, layers: Layers, nuclei: np.ndarray) -> None:
    """Stamps N x 8 nuclei; similar sizes together, because a window fits its largest."""
    canvas = np.zeros((frame.height, frame.width), np.float32)
    nuclei = nuclei[np.argsort(nuclei[:, 3])]
    start = 0
    while start < len(nuclei):
        side = 2 * math.ceil(2.0 * nuclei[start, 3] / frame.mpp) + 1
        stop = start + max(1, STAMP_BUDGET // side**2)
        stop = min(stop, int(np.searchsorted(nuclei[:, 3], 1.4 * nuclei[start, 3])) + 1)
        _stamp(canvas, frame, nuclei[start:stop])
        start = stop
    if frame.mpp < 1.5:  # clumped chromatin and grainy cytoplasm show only when magnified
        rng = _generator(seed, 7)
        canvas *= 1.0 + 0.16 * np.clip(_noise(rng, frame, 1.3), -2.0, 2.0)
        layers.eosin[:] *= 1.0 + 0.1 * np.clip(_noise(rng, frame, 2.6), -2.0, 2.0)
    layers.eosin[:] *= 1.0 - 0.5 * np.minimum(canvas, 1.0)
    np.maximum(layers.haematoxylin, canvas, out=layers.haematoxylin)


def stain_maps(
    seed: int, frame: Frame, cancer: np.ndarray, *, slide_background: float = 0.0,
    glands: float = 0.4,
) -> np.ndarray:  # fmt: skip
    """Draws a scene as amounts of haematoxylin and eosin.

    Args:
        seed: Fixes the scene.
        frame: Window and pixel size.
        cancer: H x W float32, 0 to 1: where carcinoma grows.
        slide_background: Share of the window that is bare glass, 0 to 1.
        glands: Chance of a duct or lobule at each place of a 200 um grid, 0 to 1.

    Returns:
        2 x H x W float32, about 0 to 1.
    """
    fibres = _fibres(seed, frame)
    layers = _stroma(seed, frame, fibres, cancer)
    _add_fat(seed, frame, layers, cancer)
    nuclei = [_add_tumour(seed, frame, layers, cancer, fibres)] if cancer.any() else []
    nuclei.append(_add_glands(seed, frame, layers, cancer, glands))
    nuclei.append(_scatter_nuclei(seed, frame, layers, cancer, fibres))
    _add_nuclei(seed, frame, layers, np.vstack(nuclei))
    maps = np.stack([layers.haematoxylin, layers.eosin]).astype(np.float32)
    if slide_background > 0.0:
        glass = _rough(_generator(seed, 8), frame, 300.0) + 0.06 * fibres.fine - 3.0 * cancer
        maps *= _ramp(float(np.quantile(glass, 1.0 - slide_background)) - glass, 0.04)
    blur = 0.3 + 0.25 / frame.mpp
    blurred: np.ndarray = ndimage.gaussian_filter(maps, (0.0, blur, blur), truncate=2.5)
    return blurred


def stain(seed: int) -> Stain:
    """The stain of one slide: strengths, hue and glass colour all vary with the seed."""
    rng = _generator(seed, 9)
    mix = rng.uniform(0.6, 1.15)
    strengths = np.exp(rng.normal(0.0, (0.18, 0.28)))[:, None]
    vectors = (mix * MACENKO + (1.0 - mix) * RUIFROK) * strengths
    glass = rng.uniform(241.0, 247.0) + rng.uniform(-2.0, 1.0, 3)
    return Stain(vectors.astype(np.float32), glass.astype(np.float32))


def develop(maps: np.ndarray, slide: Stain, rng: np.random.Generator) -> np.ndarray:
    """Colours 2 x H x W stain amounts by Beer-Lambert and adds sensor noise.

    Returns:
        H x W x 3 uint8 RGB.
    """
    image = rng.standard_normal((*maps.shape[1:], 3), np.float32)
    image *= NOISE
    exponents = slide.vectors * np.float32(-math.log(10.0))
    for channel in range(3):
        passed = np.exp(maps[0] * exponents[0, channel] + maps[1] * exponents[1, channel])
        image[..., channel] += slide.glass[channel] * passed
    return np.clip(image, 0.0, 255.0, out=image).astype(np.uint8)
