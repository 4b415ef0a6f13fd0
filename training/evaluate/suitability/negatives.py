"""Images that are no H&E-stained tissue: what installed packages ship, what is drawn, recolouring.

Each source stands for itself: what is measured on one was not fitted on it. Nothing is downloaded.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from bcd_models.images.colour_statistics import STAINS
from bcd_models.local import degradations as d
from bcd_models.local.degradations import Pixels

Rng = np.random.Generator
Learnt = Literal["tissue", "stain", "picture", "pen"]

SIDE = 50
CROPS = 150  # of a photograph or document, of many sizes
IMAGES_PER_DRAWN_KIND = 200
SHIPPED = {
    "skimage": (
        "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png",
        "coffee.png", "coins.png", "color.png", "grass.png", "gravel.png", "hubble_deep_field.jpg",
        "logo.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg",
        "text.png",
    ),
    "sklearn": ("china.jpg", "flower.jpg"),
    "matplotlib": ("grace_hopper.jpg", "Minduka_Present_Blue_Pack.png", "logo2.png"),
    "gradio": (
        "avatar.png", "bus.png", "cheetah.jpg", "cheetah1.jpg", "groot.jpeg", "lion.jpg",
        "hf-logo_transpng.png", "tower.jpg",
    ),
}  # fmt: skip
FOLDERS = {
    "skimage": "data",
    "sklearn": "datasets/images",
    "matplotlib": "mpl-data/sample_data",
    "gradio": "media_assets/images",
}
DOCUMENTS = {"page.png", "text.png", "logo.png", "logo2.png", "avatar.png", "bus.png", "color.png"}
TOGETHER = {"cheetah1.jpg": "cheetah.jpg"}  # show the same, so are one source
REAL_STAIN = "ihc.png"  # of scikit-image: DAB and haematoxylin; measured on, never fitted on


def read_shipped(rng: Rng) -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    """Yield kind, source and crops of each photograph or document that a package here ships."""
    for package, names in SHIPPED.items():
        for name in names:
            if path := _find_shipped(package, name):
                kind = "document" if name in DOCUMENTS else "photograph"
                yield kind, TOGETHER.get(name, name), _crop(path, rng)


def read_real_stain(rng: Rng) -> NDArray[np.uint8] | None:
    """Return crops of a real immunohistochemical stain, where scikit-image is installed."""
    path = _find_shipped("skimage", REAL_STAIN)
    return _crop(path, rng) if path else None


def draw_all(rng: Rng) -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    """Yield kind, source and images of each kind that is drawn."""
    for source, (kind, draw) in DRAWERS.items():
        yield kind, source, np.stack([draw(rng) for _ in range(IMAGES_PER_DRAWN_KIND)])


def stain_brown(pixels: Pixels, rng: Rng) -> Pixels:
    """Return tissue with DAB in place of eosin, in amounts and a shade that are drawn."""
    shade = STAINS[2] + rng.normal(0, 0.03, 3)
    return d.stain_brown(pixels, rng.uniform(0.4, 1.1), rng.uniform(0.5, 1.6), shade)


def turn_grey(pixels: Pixels, _: Rng) -> Pixels:
    """Return luma in all three channels."""
    luma = np.rint(pixels @ np.array((0.299, 0.587, 0.114))).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)


def mark_with_pen(pixels: Pixels, rng: Rng, lets_pass: Sequence[tuple[float, float]]) -> Pixels:
    """Draw a pen's stroke across tissue, or ink all over it, as it lies on a slide's cover glass.

    Args:
        pixels: Of a patch.
        rng: Draws shade, width, place, unevenness and how far out of focus the stroke is.
        lets_pass: Of red, green and blue, the least and the largest share of light that passes ink.
    """
    shade = np.log([rng.uniform(*ends) for ends in lets_pass])
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    angle, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.004)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    half = rng.uniform(4, 60)  # 30 to 500 micrometres
    away = np.abs(across + bend * along**2 - rng.uniform(-1, 1) * min(half, SIDE / 2)) - half
    covered = ndimage.gaussian_filter((away < 0).astype(float), rng.uniform(0.3, 3))
    uneven = ndimage.gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 4) * rng.uniform(0, 3)
    amount = covered * (1 + uneven).clip(0.5, 1.5)
    marked: Pixels = np.rint(pixels * np.exp(amount[..., None] * shade)).astype(np.uint8)
    return marked


def stain_otherwise(pixels: Pixels, rng: Rng) -> Pixels:
    """Return tissue as other laboratories stain and light it: pale, bluish, or deep blue."""
    stained = d.scale_stains(pixels, rng.uniform(0.6, 1.7), rng.uniform(0.4, 1.4))
    lit = d.shift_white_balance(stained, rng.uniform(0.88, 1.02), rng.uniform(0.95, 1.08))
    return d.scale_saturation(lit, rng.uniform(0.6, 1.1))


def add_pigment(pixels: Pixels, rng: Rng) -> Pixels:
    """Return tissue with grains of brown to black pigment, as carbon and haemosiderin lie in it."""
    seeds = np.zeros((SIDE, SIDE))
    for y, x in rng.integers(SIDE, size=(int(rng.integers(1, 9)), 2)):
        seeds[y, x] = rng.uniform(3, 12)
    amount = ndimage.gaussian_filter(seeds, rng.uniform(0.5, 1.2)).clip(0, 1)
    shade = np.log(rng.uniform(0.05, 0.3) * np.array((1.6, 1.1, 0.8)) ** rng.uniform(0, 1))
    grains: Pixels = np.rint(pixels * np.exp(amount[..., None] * shade)).astype(np.uint8)
    return grains


# How much red, green and blue light passes an ink.
INKS = {
    "blue": ((0.03, 0.4), (0.05, 0.45), (0.45, 0.9)),
    "green": ((0.03, 0.4), (0.35, 0.75), (0.1, 0.5)),
    "black": ((0.02, 0.2), (0.02, 0.2), (0.02, 0.2)),
}


class Change(NamedTuple):
    """What becomes of real patches.

    Attributes:
        kind: What they are then.
        source: Which of that kind.
        learnt: The class that gates learn them as.
        kept: One of how many is learnt from.
        apply: Changes one patch.
    """

    kind: str
    source: str
    learnt: Learnt
    kept: int
    apply: Callable[[Pixels, Rng], Pixels]


CHANGES = (
    Change("real patches", "stained otherwise", "tissue", 2, stain_otherwise),
    Change("real patches", "with pigment", "tissue", 2, add_pigment),
    Change("brown stain", "real patches", "stain", 3, stain_brown),
    Change("inverted", "real patches", "stain", 2, lambda pixels, _: 255 - pixels),
    Change("greyscale", "real patches", "stain", 6, turn_grey),
    Change("BGR", "real patches", "stain", 20, lambda p, _: np.ascontiguousarray(p[..., ::-1])),
    *(
        Change("pen", ink, "pen", 5, partial(mark_with_pen, lets_pass=lets_pass))
        for ink, lets_pass in INKS.items()
    ),
)


def _find_shipped(package: str, name: str) -> Path | None:
    spec = find_spec(package)
    folder = Path(spec.origin).parent / FOLDERS[package] if spec and spec.origin else None
    return folder / name if folder and (folder / name).is_file() else None


def _crop(path: Path, rng: Rng) -> NDArray[np.uint8]:
    """Cut squares of all sizes, each brought to a patch's."""
    with Image.open(path) as opened:
        shown = opened.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    shorter = min(image.size)
    crops = []
    for _ in range(CROPS):
        side = round(np.exp(rng.uniform(np.log(min(SIDE, shorter)), np.log(shorter))))
        left, top = (int(rng.integers(length - side + 1)) for length in image.size)
        kernel = Image.Resampling.BOX if side >= SIDE else Image.Resampling.BICUBIC
        part = image.crop((left, top, left + side, top + side))
        crops.append(np.asarray(part.resize((SIDE, SIDE), kernel)))
    return np.stack(crops)


def _draw_colour(rng: Rng) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(256, size=3))
    return red, green, blue


def _draw_paper(rng: Rng) -> tuple[int, int, int]:
    level = int(rng.integers(225, 256))
    return level, level, min(255, level + int(rng.integers(-12, 6)))


def _reduce(image: Image.Image) -> Pixels:
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def _draw_text(rng: Rng) -> Pixels:
    """Lines of letters, dark on paper or light on dark, some of them scanned askew."""
    scale = int(rng.integers(1, 7))
    paper, ink = _draw_paper(rng), (int(rng.integers(90)),) * 3
    if rng.random() < 0.25:
        paper, ink = ink, paper
    image = Image.new("RGB", (SIDE * scale, SIDE * scale), paper)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(int(rng.integers(9, 24)))
    letters = "abcdefghijklmnopqrstuvwxyz     ABCDEFGHIJ 0123456789.,"
    step = int(rng.integers(12, 30))
    for y in range(-int(rng.integers(10)), image.height, step):
        line = "".join(letters[place] for place in rng.integers(len(letters), size=80))
        pen.text((-int(rng.integers(40)), y), line, fill=ink, font=font)
    return _reduce(image.rotate(rng.normal(0, 2), fillcolor=paper))


def _draw_chart(rng: Rng) -> Pixels:
    """Axes with bars or lines in a few colours."""
    image = Image.new("RGB", (200, 200), _draw_paper(rng))
    pen, base = ImageDraw.Draw(image), int(rng.integers(120, 190))
    for y in range(0, 200, int(rng.integers(15, 50))):
        pen.line((0, y, 200, y), fill=(215, 215, 215))
    colours = [_draw_colour(rng) for _ in range(int(rng.integers(1, 5)))]
    if rng.random() < 0.5:
        width = int(rng.integers(8, 40))
        for number, x in enumerate(range(0, 200, width + int(rng.integers(2, 12)))):
            colour = colours[number % len(colours)]
            pen.rectangle((x, base - int(rng.integers(10, 120)), x + width, base), fill=colour)
    else:
        for colour in colours:
            points = [(x, int(rng.integers(10, 190))) for x in range(0, 201, 20)]
            pen.line(points, fill=colour, width=int(rng.integers(1, 6)))
    pen.line((20, 0, 20, 200), fill="black")
    pen.line((0, base, 200, base), fill="black")
    return _reduce(image)


def _draw_interface(rng: Rng) -> Pixels:
    """Panels, buttons and captions, as a screenshot shows them."""
    image = Image.new("RGB", (240, 240), _draw_colour(rng) if rng.random() < 0.5 else (245,) * 3)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(int(rng.integers(9, 18)))
    for _ in range(int(rng.integers(3, 12))):
        left, top = (int(value) for value in rng.integers(-20, 220, size=2))
        box = (left, top, left + int(rng.integers(20, 160)), top + int(rng.integers(12, 90)))
        fill = _draw_colour(rng) if rng.random() < 0.6 else (255, 255, 255)
        pen.rounded_rectangle(box, int(rng.integers(10)), fill=fill, outline=(180, 180, 180))
        ink = (255, 255, 255) if sum(fill) < 380 else (20, 20, 20)
        pen.text((left + 4, top + 2), "Settings  Open  0.53", fill=ink, font=font)
    return _reduce(image)


def _draw_shapes(rng: Rng) -> Pixels:
    """Discs and boxes of plain colours, tissue's own among them."""
    image = Image.new("RGB", (150, 150), _draw_colour(rng))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 25))):
        x, y, r = (int(value) for value in rng.integers(2, 150, size=3))
        box = (x - r // 4, y - r // 4, x + r // 4, y + r // 4)
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)(box, fill=_draw_colour(rng))
    return _reduce(image)


def _draw_gradient(rng: Rng) -> Pixels:
    """One colour running into another at some angle."""
    ends = rng.integers(256, size=(2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    share = (np.cos(angle) * x + np.sin(angle) * y + 0.75) / 1.5
    pixels: Pixels = np.rint(ends[0] + share[..., None] * (ends[1] - ends[0])).astype(np.uint8)
    return pixels


def _draw_noise(rng: Rng, channels: int, coarse: int) -> Pixels:
    """Draw normal noise of any strength about one colour, the same in all channels or not."""
    sides = -(-SIDE // coarse)
    values = rng.normal(0, rng.uniform(15, 90), (sides, sides, channels))
    fine = values.repeat(coarse, 0).repeat(coarse, 1)[:SIDE, :SIDE]
    pixels: Pixels = (rng.integers(60, 240, size=3) + fine).clip(0, 255).astype(np.uint8)
    return pixels


def _draw_uniform_noise(rng: Rng) -> Pixels:
    """Any value at any pixel."""
    return rng.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)


def _draw_flat(rng: Rng) -> Pixels:
    """One colour, black and white among them; as a JPEG, or with what a dark sensor adds."""
    colour = rng.choice(((0, 0, 0), (255, 255, 255), _draw_colour(rng)))
    pixels = np.broadcast_to(colour, (SIDE, SIDE, 3)) + rng.normal(0, 0.5, (SIDE, SIDE, 3))
    flat = np.rint(pixels).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        return flat
    file = io.BytesIO()
    Image.fromarray(flat).save(file, "JPEG")
    return np.array(Image.open(file))


DRAWERS: dict[str, tuple[str, Callable[[Rng], Pixels]]] = {
    "text": ("document", _draw_text),
    "chart": ("document", _draw_chart),
    "interface": ("document", _draw_interface),
    "shapes": ("drawing", _draw_shapes),
    "gradient": ("drawing", _draw_gradient),
    "fine noise in colour": ("noise", partial(_draw_noise, channels=3, coarse=1)),
    "fine noise": ("noise", partial(_draw_noise, channels=1, coarse=1)),
    "coarse noise in colour": ("noise", partial(_draw_noise, channels=3, coarse=3)),
    "coarse noise": ("noise", partial(_draw_noise, channels=1, coarse=3)),
    "uniform noise": ("noise", _draw_uniform_noise),
    "flat": ("flat", _draw_flat),
}
