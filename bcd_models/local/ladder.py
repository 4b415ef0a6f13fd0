"""The rungs of the robustness ladder: one degradation of one strength each, kind by kind.

A kind's rungs stand from mild to severe. Kinds marked unseen are what no recipe may train on, so
that they say how far what training taught carries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bcd_models.local import degradations as d
from bcd_models.local.degradations import Pixels

Apply = Callable[[Pixels, np.random.Generator], Pixels]


@dataclass(frozen=True)
class Rung:
    """One rung.

    Attributes:
        name: In records.
        kind: What grows stronger from rung to rung, in words.
        words: How strong it is here.
        apply: Degrades one patch at its native size; what it draws comes from the generator.
        unseen: Whether training never degrades in this way.
    """

    name: str
    kind: str
    words: str
    apply: Apply
    unseen: bool = False


def _make_jpeg(quality: int, subsampling: d.Subsampling) -> Rung:
    return Rung(
        f"jpeg_{quality}_{subsampling.replace(':', '')}",
        f"JPEG {subsampling}",
        f"quality {quality}",
        lambda p, _: d.compress_as_jpeg(p, quality, subsampling),
    )


def _make_blur(sigma: float) -> Rung:
    return Rung(f"blur_{sigma:g}", "blur", f"{sigma:g} px", lambda p, _: d.blur(p, sigma))


def _make_noise(deviation: float) -> Rung:
    name, words = f"noise_{deviation:g}", f"{deviation:g} grey levels"
    return Rung(name, "noise", words, lambda p, rng: d.add_noise(p, deviation, rng))


def _make_resolution(side: int) -> Rung:
    return Rung(
        f"resolution_{side}",
        "resolution",
        f"{side} px over the field",
        lambda p, _: d.resample(p, side / max(p.shape)),
    )


def _make_hue(turns: float) -> Rung:
    kind = "hue towards red" if turns > 0 else "hue towards blue"  # of pink and purple
    return Rung(f"hue_{turns:+g}", kind, f"{turns:+g} turns", lambda p, _: d.shift_hue(p, turns))


def _make_scaled(kind: str, percent: int, scale: Callable[[Pixels, float], Pixels]) -> Rung:
    sign = "more" if percent > 0 else "less"
    return Rung(
        f"{kind}_{percent:+d}",
        f"{sign} {kind}",
        f"{percent:+d}%",
        lambda p, _: scale(p, 1 + percent / 100),
    )


def _scale_haematoxylin(pixels: Pixels, factor: float) -> Pixels:
    return d.scale_stains(pixels, haematoxylin=factor)


def _scale_eosin(pixels: Pixels, factor: float) -> Pixels:
    return d.scale_stains(pixels, eosin=factor)


def _make_turn(quarters: int) -> Rung:
    return Rung(
        f"turn_{90 * quarters}",
        "turned",
        f"{90 * quarters} degrees",
        lambda p, _: np.ascontiguousarray(np.rot90(p, quarters)),
    )


def _make_gamma(gamma: float) -> Rung:
    """Under another lamp, redder where the gamma darkens and bluer where it brightens."""
    red, blue = (1.06, 0.94) if gamma > 1 else (0.94, 1.06)
    return Rung(
        f"gamma_{gamma:g}",
        f"white balance, then {'darker' if gamma > 1 else 'brighter'} gamma",
        f"red x{red:g}, blue x{blue:g}, gamma {gamma:g}",
        lambda p, _: d.apply_gamma(d.shift_white_balance(p, red, blue), gamma),
        unseen=True,
    )


def _oversharpen(pixels: Pixels) -> Pixels:
    """Sharpen strongly at twice the size, which leaves halos."""
    height, width = pixels.shape[:2]
    twice = d.sharpen(d.resize(pixels, 2 * height, 2 * width), amount=3, sigma=2)
    return d.resize(twice, height, width)


LADDER = (
    *(_make_jpeg(quality, "4:4:4") for quality in (95, 80, 60, 40)),
    *(_make_jpeg(quality, "4:2:0") for quality in (95, 80, 60, 40)),
    *map(_make_blur, (0.5, 1, 1.5)),
    *map(_make_noise, (5, 10)),
    *map(_make_resolution, (33, 25)),
    *map(_make_hue, (-0.02, -0.03, -0.05, 0.02, 0.03, 0.05)),
    *(
        _make_scaled("brightness", sign * percent, d.scale_brightness)
        for sign in (-1, 1)
        for percent in (10, 15, 20, 30)
    ),
    *(
        _make_scaled(stain, sign * percent, scale)
        for stain, scale in (("haematoxylin", _scale_haematoxylin), ("eosin", _scale_eosin))
        for sign in (-1, 1)
        for percent in (15, 30)
    ),
    *(_make_scaled("saturation", percent, d.scale_saturation) for percent in (-30, 30)),
    *map(_make_turn, (1, 2, 3)),
    Rung("enlarged_4", "enlarged and back", "x4", lambda p, _: d.resample(p, 4)),
    Rung("webp_75", "WebP", "quality 75", lambda p, _: d.compress_as_webp(p, 75), unseen=True),
    *map(_make_gamma, (0.8, 1.25)),
    Rung(
        "defocus_jpeg_80",
        "defocus, then JPEG",
        "disk of 1.5 px, quality 80, 4:2:0",
        lambda p, _: d.compress_as_jpeg(d.defocus(p, 1.5), 80, "4:2:0"),
        unseen=True,
    ),
    Rung(
        "oversharpened",
        "oversharpened",
        "x2 by bicubic, unsharp mask of 300%, back",
        lambda p, _: _oversharpen(p),
        unseen=True,
    ),
)
