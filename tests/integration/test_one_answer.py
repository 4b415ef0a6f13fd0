"""One image has one answer, whatever its format: from the app, the command and the library."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image, ImageCms

from bcd_models import BCDClassifier
from tests.conftest import CARDS
from tests.support import synthetic
from tests.support.running_app import running_app
from tests.support.scripts import client_of

MODEL = CARDS / "bcd-mobilenetv2"


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    """A patch in every format and mode we open, by file name."""
    patch = Image.fromarray(synthetic.patch("malignant", seed=5, pixels=(64, 48)))
    grey16 = Image.fromarray(np.asarray(patch.convert("L")).astype(np.uint16) * 257)
    see_through = patch.copy()
    see_through.putalpha(patch.convert("L"))
    exif = patch.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # A profile whose red is sRGB's green, and the other way round.
    odd = srgb.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    return {
        "plain.png": encoded(patch, "PNG"),
        "plain.jpg": encoded(patch, "JPEG"),
        "plain.tif": encoded(patch, "TIFF"),
        "packed.tif": encoded(patch, "TIFF", compression="tiff_lzw"),
        "plain.bmp": encoded(patch, "BMP"),
        "plain.webp": encoded(patch, "WEBP"),
        "grey.png": encoded(patch.convert("L"), "PNG"),
        "grey.jpg": encoded(patch.convert("L"), "JPEG"),
        "grey16.png": encoded(grey16, "PNG"),
        "grey16.tif": encoded(grey16, "TIFF"),
        "palette.png": encoded(patch.quantize(32), "PNG"),
        "alpha.png": encoded(see_through, "PNG"),
        "alpha.webp": encoded(see_through, "WEBP"),
        "cmyk.jpg": encoded(patch.convert("CMYK"), "JPEG"),
        "rotated.jpg": encoded(patch, "JPEG", exif=exif),
        "profile.png": encoded(patch, "PNG", icc_profile=odd),
        "profile.jpg": encoded(patch, "JPEG", icc_profile=odd),
    }


FILES = files()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inside = tmp_path_factory.mktemp("images")
    for name, data in FILES.items():
        (inside / name).write_bytes(data)
    return inside


@pytest.fixture(scope="module")
def app() -> Iterator[Client]:
    with running_app([MODEL]) as url, client_of(url) as client:
        yield client


@pytest.fixture(scope="module")
def command(folder: Path) -> dict[str, float]:
    """The probability of each file, from one run of the command over their folder."""
    run = [sys.executable, "-m", "bcd_models.cli", "predict", folder, "--model", MODEL, "--json"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    answers = map(json.loads, done.stdout.splitlines())
    return {answer["name"]: answer["probability"] for answer in answers}


@pytest.mark.parametrize("name", FILES)
def test_app_command_and_library_give_one_answer(
    name: str, folder: Path, app: Client, command: dict[str, float], light_model: BCDClassifier
) -> None:
    expected = pytest.approx(light_model.predict(folder / name).probability, abs=1e-5)
    assert command[name] == expected
    through_app = app.predict(handle_file(folder / name), MODEL.name, api_name="/predict")
    assert through_app["probability"] == expected
