"""The running app, called as scripts call it."""

import io
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError, AuthenticationError
from PIL import Image
from pypdf import PdfReader

from bcd_models import BCDClassifier, ImageError
from tests.support.clinic import NAMES, PATCHES, installation_at
from tests.support.running_app import running_app, save_small_model
from tests.support.scripts import client_of, connect
from tests.support.serving import PASSWORD, add_account


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    backbones = ("mobilenetv2", "efficientnet_b2")
    return [save_small_model(root, *pair) for pair in zip(NAMES, backbones, strict=True)]


@pytest.fixture(scope="module")
def models(folders):
    return {folder.name: BCDClassifier.from_pretrained(folder) for folder in folders}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "log"


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    with installation_at(tmp_path_factory.mktemp("clinic")) as opened:
        yield opened


@pytest.fixture(scope="module")
def url(folders, clinic, log):
    with running_app(folders, {"BCD_DATA_FOLDER": str(clinic.settings.data)}, log) as address:
        yield address


@pytest.fixture(scope="module")
def client(url, tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    with client_of(url, download_files=str(downloads)) as client:
        yield client


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
    assert answer == in_json(models[name].predict(PATCHES[0].read_bytes()))


def test_the_first_model_is_the_default(client, models):
    answer = client.predict(handle_file(PATCHES[1]), api_name="/predict")
    assert answer == in_json(models[NAMES[0]].predict(PATCHES[1].read_bytes()))


@pytest.mark.parametrize(("label", "wanted"), [("predicted", None), ("benign", "benign")])
def test_explain_is_the_library_s_without_loss(client, models, label, wanted):
    overlay, answer = client.predict(
        handle_file(PATCHES[2]), NAMES[0], label, 0.75, api_name="/explain"
    )
    explanation = models[NAMES[0]].explain(PATCHES[2].read_bytes(), label=wanted)
    assert answer == in_json(explanation.prediction)
    with Image.open(overlay) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), np.asarray(explanation.overlay(0.75)))


def test_report(client, models):
    path = client.predict(handle_file(PATCHES[3]), NAMES[1], api_name="/report")
    assert Path(path).name.startswith("bcd-report-")
    (page,) = PdfReader(io.BytesIO(Path(path).read_bytes())).pages
    text = page.extract_text()
    assert PATCHES[3].stem not in text  # names stay with the user
    assert models[NAMES[1]].weights_sha256 in text


@pytest.mark.parametrize("endpoint", ["/predict", "/explain", "/report"])
def test_a_broken_file_is_told_as_the_library_tells_it(client, models, endpoint, tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not an image")
    with pytest.raises(ImageError) as expected:
        models[NAMES[0]].predict(path.read_bytes())
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
    request = urllib.request.Request(
        f"{url}gradio_api/call/predict",
        json.dumps({"data": data}).encode(),
        {"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(request)


def test_concurrent_calls_are_not_mixed_up(client, models):
    calls = [(path, name) for path in PATCHES for name in NAMES]
    expected = [in_json(models[name].predict(path.read_bytes())) for path, name in calls]
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


def test_a_doctor_s_scripts_sign_in(url, clinic):
    ada = add_account(clinic)
    with client_of(url, auth=(ada.name, PASSWORD)) as client:
        named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
        made = client.predict("AB-1234", 1957, "", api_name="/create_patient")
    assert sorted(named) == [
        "/create_patient",
        "/examination_report",
        "/explain",
        "/models",
        "/predict",
        "/record_read",
        "/report",
        "/save_examination",
    ]
    assert made["patient"].startswith("P-")


def test_no_script_signs_in_with_a_wrong_password(url, clinic):
    with pytest.raises(AuthenticationError):
        connect(url, auth=(add_account(clinic).name, "wrong"))


def test_what_users_hand_in_and_type_is_in_no_log(client, url, log, tmp_path):
    path = tmp_path / "Jane Doe 1957.png"
    path.write_text("not an image")
    with pytest.raises(AppError):
        client.predict(handle_file(path), api_name="/predict")
    for data in (["Jane Doe", NAMES[0]], [None, "Jane Doe", "x"], [{"path": "Jane Doe"}]):
        for address in ("call/predict", "call/v2/predict", "call/Jane", "queue/join?Jane=Jane"):
            body = {"data": data, "session_hash": "Jane", "fn_index": 0}
            send(f"{url}gradio_api/{address}", json.dumps(body).encode())
    for path in ("login", "Jane%20Doe", "gradio_api/upload", "files/Jane"):
        send(f"{url}{path}", b"username=Jane&password=Jane")
        send(f"{url}{path}", None)
    client.predict(api_name="/models")  # what came before has been logged
    assert "unexpected " in log.read_text()
    assert "Jane" not in log.read_text()


def send(address, body):
    """Send whatever; an error is an answer too."""
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request).close()
    except urllib.error.HTTPError as error:
        error.close()


def test_it_starts_without_a_word_too_many(log, url):
    (first, second, *_) = log.read_text().splitlines()
    assert second == f"Open {url}", first


@pytest.mark.slow
def test_the_first_admin_s_password_is_printed_once(url, log, folders, clinic, tmp_path):
    printed = log.read_text()
    assert printed.startswith("Made the account admin with the password")
    password = printed.partition("password ")[2].partition(",")[0]
    again = tmp_path / "log"
    with running_app(folders[:1], {"BCD_DATA_FOLDER": str(clinic.settings.data)}, again) as second:
        for address in (url, second):
            connect(address, auth=("admin", password)).close()
    assert again.read_text().startswith(f"Open {second}")
