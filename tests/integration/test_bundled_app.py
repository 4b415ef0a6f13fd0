"""`make demo`'s app with the models it comes with, asked by gradio_client."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.images.open import open_image
from tests.conftest import CARDS, MODELS, ROOT
from tests.support.running_app import EXAMPLES, running_app
from tests.support.scripts import client_of


@pytest.fixture(scope="module")
def app() -> Iterator[Client]:
    with running_app([CARDS / name for name in MODELS]) as url, client_of(url) as client:
        yield client


def agrees(app: Client, model: BCDClassifier, image: Path) -> None:
    answer = app.predict(handle_file(image), model.config.name, api_name="/predict")
    expected = model.predict(image)
    assert answer["probability"] == pytest.approx(expected.probability, abs=1e-4)
    assert answer["label"] == expected.label
    assert answer["weights_sha256"] == model.weights_sha256


def test_answers_as_the_library_does(app: Client, model: BCDClassifier) -> None:
    agrees(app, model, EXAMPLES / "synthetic-malignant-1.png")


def test_readmes_five_lines_of_gradio_client_run(app: Client) -> None:
    _, lines, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = lines.replace("http://127.0.0.1:7860", app.src)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "weights_sha256" in done.stdout


@pytest.mark.real
def test_answers_about_a_real_patch(
    app: Client, model: BCDClassifier, real_sample: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(real_sample / "idc-sample.zip") as archive:
        name = "8863/0/8863_idx5_x1151_y1301_class0.png"
        path = tmp_path / Path(name).name
        path.write_bytes(archive.read(name))
    agrees(app, model, path)
    overlay, _ = app.predict(handle_file(path), model.config.name, api_name="/explain")
    with Image.open(overlay) as shown:
        assert shown.size == open_image(path).size == (50, 50)
