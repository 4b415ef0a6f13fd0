"""The running app, called as scripts call it."""

import io
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
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


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A field of several patches, whose file says no scale."""
    path = tmp_path_factory.mktemp("large") / "large.jpg"
    with Image.open(PATCHES[0]) as patch:
        Image.fromarray(np.tile(np.asarray(patch.convert("RGB")), (4, 6, 1))).save(path)
    return path


def report_text(path):
    (page,) = PdfReader(path).pages
    return " ".join(page.extract_text().split())


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
            "points": [],
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


def test_a_scale_that_is_given_is_the_library_s(client, models, large, tmp_path):
    model, data = models[NAMES[0]], large.read_bytes()
    expected = model.predict(data, mpp=2)
    assert expected.tiles == 6
    answer = client.predict(handle_file(large), NAMES[0], 2, api_name="/predict")
    assert answer == in_json(expected)
    overlay, answer = client.predict(handle_file(large), mpp=2, api_name="/explain")
    assert answer == in_json(expected)
    with Image.open(overlay) as image:
        assert image.size == (300, 200)
    text = report_text(client.predict(handle_file(large), mpp=2, api_name="/report"))
    assert "2 µm a pixel, as given" in text
    assert f"{expected.malignant_tiles} of 6" in text


def test_without_a_scale_it_is_said_what_to_give(client, large):
    answer = client.predict(handle_file(large), api_name="/predict")
    assert (answer["decision"], answer["mpp"], answer["scale"]) == ("refer", None, "unknown")
    assert "micrometres a pixel" in answer["reasons"][0]
    text = report_text(client.predict(handle_file(large), api_name="/report"))
    assert "Because the image's scale is unknown" in text
    assert "Scale unknown" in text


def test_a_call_without_the_last_arguments_has_their_defaults(url, models):
    """As a script over plain HTTP makes it, that knows of no scale yet."""
    uploaded = httpx2.post(f"{url}gradio_api/upload", files={"files": PATCHES[0].read_bytes()})
    image = {"path": uploaded.json()[0], "meta": {"_type": "gradio.FileData"}}
    address = f"{url}gradio_api/call/predict"
    event = httpx2.post(address, json={"data": [image, NAMES[0]]}).json()["event_id"]
    stream = httpx2.get(f"{address}/{event}", timeout=60).text
    (answer,) = json.loads(stream.partition("data: ")[2].partition("\n")[0])
    assert answer == in_json(models[NAMES[0]].predict(PATCHES[0].read_bytes()))


@pytest.mark.parametrize("endpoint", ["/predict", "/explain", "/report"])
def test_a_scale_that_no_microscope_has_is_told(client, endpoint):
    with pytest.raises(AppError, match=r"^30 micrometres a pixel is no microscope's"):
        client.predict(handle_file(PATCHES[0]), mpp=30, api_name=endpoint)


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


@pytest.mark.parametrize("endpoint", ["/predict", "/explain", "/report"])
def test_an_operating_point_that_the_model_lacks_is_told(client, endpoint):
    with pytest.raises(AppError, match=r"^no operating point 'screening' of this model"):
        client.predict(handle_file(PATCHES[0]), point="screening", api_name=endpoint)


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
    (first, second, third, *_) = log.read_text().splitlines()
    assert second.startswith("Computing on "), first
    assert third == f"Open {url}"


@pytest.mark.slow
def test_the_first_admin_s_password_is_printed_once(url, log, folders, clinic, tmp_path):
    printed = log.read_text()
    assert printed.startswith("Made the account admin with the password")
    password = printed.partition("password ")[2].partition(",")[0]
    again = tmp_path / "log"
    with running_app(folders[:1], {"BCD_DATA_FOLDER": str(clinic.settings.data)}, again) as second:
        for address in (url, second):
            connect(address, auth=("admin", password)).close()
    assert again.read_text().splitlines()[1] == f"Open {second.strip()}"
