"""`make demo`'s app with the models it comes with, asked by gradio_client."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.images import open_image
from tests.conftest import CARDS, MODELS
from tests.ui.running_app import EXAMPLES, running_app


@pytest.fixture(scope="module")
def app() -> Iterator[Client]:
    with running_app([CARDS / name for name in MODELS]) as url:
        client = Client(url, verbose=False)
        yield client
        client.close()


def agrees(app: Client, model: BCDClassifier, image: Path) -> None:
    answer = app.predict(handle_file(image), model.config.name, api_name="/predict")
    expected = model.predict(image)
    assert answer["probability"] == pytest.approx(expected.probability, abs=1e-4)
    assert answer["label"] == expected.label
    assert answer["weights_sha256"] == model.weights_sha256


def test_answers_as_the_library_does(app: Client, model: BCDClassifier) -> None:
    agrees(app, model, EXAMPLES / "synthetic-malignant-1.png")


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
