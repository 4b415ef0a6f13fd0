"""The running app, called as scripts call it."""

import io
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from pypdf import PdfReader

from bcd_models import BCDClassifier, ImageError
from tests.ui.running_app import EXAMPLES, running_app, save_small_model

NAMES = ("small-one", "small-b2")
PATCHES = sorted(EXAMPLES.glob("*.png"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    backbones = ("mobilenetv2", "efficientnet_b2")
    return [save_small_model(root, *pair) for pair in zip(NAMES, backbones, strict=True)]


@pytest.fixture(scope="module")
def models(folders):
    return {folder.name: BCDClassifier.from_pretrained(folder) for folder in folders}


@pytest.fixture(scope="module")
def url(folders):
    with running_app(folders) as address:
        yield address


@pytest.fixture(scope="module")
def client(url, tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    client = Client(url, verbose=False, download_files=str(downloads))
    yield client
    client.close()


def in_json(prediction):
    return json.loads(prediction.to_json())


def test_models(client, models):
    assert client.predict(api_name="/models") == [
        {
            "name": name,
            "title": title,
            "version": "1.2.3",
            "weights_sha256": models[name].weights_sha256,
            "threshold": 0.4,
        }
        for name, title in zip(NAMES, ("MobileNetV2", "EfficientNet-B2"), strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_predict_is_the_library_s(client, models, name):
    answer = client.predict(handle_file(PATCHES[0]), name, api_name="/predict")
    assert answer == in_json(models[name].predict(PATCHES[0]))


def test_the_first_model_is_the_default(client, models):
    answer = client.predict(handle_file(PATCHES[1]), api_name="/predict")
    assert answer == in_json(models[NAMES[0]].predict(PATCHES[1]))


@pytest.mark.parametrize(("label", "wanted"), [("predicted", None), ("benign", "benign")])
def test_explain_is_the_library_s_without_loss(client, models, label, wanted):
    overlay, answer = client.predict(
        handle_file(PATCHES[2]), NAMES[0], label, 0.75, api_name="/explain"
    )
    explanation = models[NAMES[0]].explain(PATCHES[2], wanted)
    assert answer == in_json(explanation.prediction)
    with Image.open(overlay) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), np.asarray(explanation.overlay(0.75)))


def test_report(client, models):
    path = client.predict(handle_file(PATCHES[3]), NAMES[1], api_name="/report")
    assert Path(path).name.startswith("bcd-report-")
    (page,) = PdfReader(io.BytesIO(Path(path).read_bytes())).pages
    text = page.extract_text()
    assert PATCHES[3].name in text
    assert models[NAMES[1]].weights_sha256 in text


@pytest.mark.parametrize("endpoint", ["/predict", "/explain", "/report"])
def test_a_broken_file_is_told_as_the_library_tells_it(client, models, endpoint, tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not an image")
    with pytest.raises(ImageError) as expected:
        models[NAMES[0]].predict(path)
    with pytest.raises(AppError) as told:
        client.predict(handle_file(path), api_name=endpoint)
    assert str(told.value) == str(expected.value)


def test_no_file_is_told(client):
    with pytest.raises(AppError, match=r"^no image yet: choose a file first$"):
        client.predict(None, api_name="/predict")


def test_an_unknown_model_is_told_with_those_there_are(client):
    with pytest.raises(AppError, match=r"other .*small-one"):
        client.predict(handle_file(PATCHES[0]), "other", api_name="/predict")


def test_the_server_s_own_files_cannot_be_named(url, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PATCHES[0].read_bytes())
    data = [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}, NAMES[0]]
    address = f"{url}gradio_api/call/predict"
    request = urllib.request.Request(
        address, json.dumps({"data": data}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        event = json.load(reply)["event_id"]
    with urllib.request.urlopen(f"{address}/{event}") as reply:
        stream = reply.read().decode()
    assert "event: error" in stream
    assert "probability" not in stream


def test_concurrent_calls_are_not_mixed_up(client, models):
    calls = [(path, name) for path in PATCHES for name in NAMES]
    expected = [in_json(models[name].predict(path)) for path, name in calls]
    assert len({answer["probability"] for answer in expected}) == len(calls)
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(client.predict, handle_file(path), name, api_name="/predict")
            for path, name in calls
        ]
        assert [job.result() for job in jobs] == expected


def test_only_these_endpoints_are_public(client):
    api = client.view_api(return_format="dict", print_info=False)
    assert sorted(api["named_endpoints"]) == ["/explain", "/models", "/predict", "/report"]
    assert not api["unnamed_endpoints"]


def test_uploads_are_bounded(url):
    with urllib.request.urlopen(f"{url}config") as reply:
        assert json.load(reply)["max_file_size"] == 64 * 1024 * 1024
