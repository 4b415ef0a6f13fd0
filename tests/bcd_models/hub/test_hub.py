"""Models go to the Hub and come back whole; the Hub is one on loopback."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from bcd_models import BCDClassifier, HubError, ModelFolderError
from bcd_models.hub.folder import GRAPHS
from bcd_models.hub.repository import SCHEMA_TAG, check_token
from tests.conftest import CARDS
from tests.support.hub import Hub, run_client, running_hub
from tests.support.hub_client import Client, running_client

LIGHT = CARDS / "bcd-mobilenetv2"
LOADING = """
from bcd_models import BCDClassifier, BCDEnsemble

def load(repo_id, kind=BCDClassifier, **options):
    model = kind.from_pretrained(repo_id, **options)
    answer = model.predict(patch)
    return [answer.probability, answer.weights_sha256]
"""
RESOLVE = "(GET|HEAD) /(org/[a-z]+/resolve|cdn)/"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture(scope="module")
def patch(tmp_path_factory: pytest.TempPathFactory, patches: list[Image.Image]) -> Path:
    path = tmp_path_factory.mktemp("patch") / "patch.png"
    patches[1].save(path)
    return path


@pytest.fixture(scope="module")
def client(hub: Hub, patch: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    with running_client(hub.environment(home), home / "log") as running:
        running.run(f"{LOADING}\npatch = {str(patch)!r}")
        yield running


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """What a published model holds."""
    names = ("README.md", "config.json", "metrics.json", *GRAPHS, "model.safetensors")
    return {name: (LIGHT / name).read_bytes() for name in names}


@pytest.fixture
def answer(light_model: BCDClassifier, patch: Path) -> list[object]:
    """What the bundled model says of the patch."""
    told = light_model.predict(patch)
    return [pytest.approx(told.probability, abs=1e-6), told.weights_sha256]


NUMBERS = itertools.count()


@pytest.fixture
def repo(hub: Hub, files: dict[str, bytes]) -> str:
    """The id of a published model that no other test knows."""
    repo_id = f"org/model{'abcdefghijklmnopqrstuvwxyz'[next(NUMBERS)]}"
    hub.add_repo(repo_id, files)
    hub.requests.clear()
    return repo_id


def test_a_model_comes_back_by_its_id(
    hub: Hub, client: Client, repo: str, answer: list[object], tmp_path: Path
) -> None:
    assert client.run(f"value = load({repo!r}, cache_dir={str(tmp_path)!r})") == answer
    commit = hub.commits(repo)[-1].oid
    snapshot = next(tmp_path.glob("models--*/snapshots/*"))
    assert snapshot.name == commit
    assert {path.name for path in snapshot.iterdir()} == {
        "config.json", "metrics.json", *GRAPHS, "model.safetensors",
    }  # fmt: skip
    paths = [request.path for request in hub.find_requests("HEAD .*resolve")]
    assert f"/resolve/{SCHEMA_TAG}/config.json" in paths[0]  # nothing is tagged so
    assert "/resolve/main/config.json" in paths[1]
    assert all(commit in path for path in paths[2:])  # one commit for all that follows


def test_a_library_asks_for_what_its_own_schema_reads(
    hub: Hub,
    client: Client,
    repo: str,
    files: dict[str, bytes],
    answer: list[object],
    tmp_path: Path,
) -> None:
    hub.tag(repo, SCHEMA_TAG)
    newer = json.loads(files["config.json"])
    newer["bcd"]["schema_version"] += 1
    hub.add_repo(repo, {"config.json": json.dumps(newer).encode()})
    options = f"{repo!r}, cache_dir={str(tmp_path)!r}"
    assert client.run(f"value = load({options})") == answer
    assert client.run(f"value = load({options}, local_files_only=True)") == answer
    refused = client.fails(f"load({options}, revision='main')")
    assert f"schema version {newer['bcd']['schema_version']}" in refused


def test_revisions_by_branch_tag_and_commit(
    hub: Hub, client: Client, repo: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.tag(repo, "v1")
    first = hub.commits(repo)[-1].oid
    version = json.loads(files["config.json"])["bcd"]["version"]
    newer = files["config.json"].replace(f'"{version}"'.encode(), b'"9.9.9"')
    hub.add_repo(repo, {"config.json": newer})
    asked = ["main", "v1", first, hub.commits(repo)[-1].oid]
    options = f"cache_dir={str(tmp_path)!r}"
    code = f"""
value = [
    BCDClassifier.from_pretrained({repo!r}, revision=revision, {options}).config.version
    for revision in {asked}
]"""
    assert client.run(code) == ["9.9.9", version, version, "9.9.9"]
    error = client.fails(f"load({repo!r}, revision='v2', {options})")
    assert error.startswith(
        f"ModelFolderError: no model folder {repo}, and the Hub's {repo} has no"
    )
    assert "revision v2" in error


def test_a_commit_that_arrives_while_loading_is_not_mixed_in(
    hub: Hub, client: Client, repo: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    code = f"""
import huggingface_hub
whole = huggingface_hub.hf_hub_download
seen = []

def then_a_commit_arrives(*args, **options):
    path = whole(*args, **options)
    if not seen:
        huggingface_hub.HfApi(token={hub.token!r}).upload_file(
            path_or_fileobj=b"other", path_in_repo="model.safetensors", repo_id={repo!r}
        )
    seen.append(path)
    return path

huggingface_hub.hf_hub_download = then_a_commit_arrives
try:
    value = load({repo!r}, cache_dir={str(tmp_path)!r})[1]
finally:
    huggingface_hub.hf_hub_download = whole
"""
    assert client.run(code) == hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert hub.files(repo)["model.safetensors"] == b"other"


def test_an_existing_folder_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, light_model: BCDClassifier
) -> None:
    light_model.save_pretrained(tmp_path / "org" / "light")
    monkeypatch.chdir(tmp_path)
    loaded = BCDClassifier.from_pretrained("org/light")
    assert loaded.weights_sha256 == light_model.weights_sha256


@pytest.mark.parametrize("holds", [[], ["notes.txt"]])
def test_a_folder_that_is_no_model_but_named_like_one_says_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "light").mkdir(parents=True)
    for name in holds:
        (tmp_path / "org" / "light" / name).touch()
    for asked in ("org/light", "org/lights"):
        with pytest.raises(ModelFolderError) as told:
            BCDClassifier.from_pretrained(asked)
        for words in ("org/light", f"the Hub's {asked}", "another folder"):
            assert words in str(told.value)


def test_a_mistyped_folder_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cards" / "bcd-mobilenetv2").mkdir(parents=True)
    for name, told in {
        "cards/bcd-mobilenet": r"cards/bcd-mobilenet: did you mean cards/bcd-mobilenetv2\?",
        "~/bcd-mobilenetv2": "it is no Hub id",
        "./bcd-mobilenetv2": "it is no Hub id",
    }.items():
        with pytest.raises(ModelFolderError, match=told):
            BCDClassifier.from_pretrained(name)


def test_a_warm_cache_needs_no_network_and_force_asks_again(
    hub: Hub, client: Client, repo: str, answer: list[object], tmp_path: Path
) -> None:
    hub.tag(repo, SCHEMA_TAG)
    options = f"{repo!r}, cache_dir={str(tmp_path)!r}"
    cold = client.fails(f"load({options}, local_files_only=True)")
    assert "not in the cache, and the network may not be used" in cold
    assert "load it once without local_files_only" in cold
    assert hub.requests == []
    assert client.run(f"value = load({options})") == answer
    hub.requests.clear()
    assert client.run(f"value = load({options}, local_files_only=True)") == answer
    assert hub.requests == []
    assert client.run(f"value = load({options})") == answer
    # Is the tag still where it was?
    assert [r.method for r in hub.find_requests(RESOLVE)] == ["HEAD"]
    client.run(f"load({options}, force_download=True)")
    assert len(hub.find_requests("GET .*(config.json|metrics.json|model.safetensors)")) == 3
    both = client.fails(f"load({options}, force_download=True, local_files_only=True)")
    assert "contradict each other" in both


def test_figures_that_are_not_there_are_not_asked_for_twice(
    hub: Hub, client: Client, repo: str, answer: list[object], tmp_path: Path
) -> None:
    hub.remove_file(repo, "metrics.json")
    for _ in range(2):
        assert client.run(f"value = load({repo!r}, cache_dir={str(tmp_path)!r})") == answer
    assert len(hub.find_requests("metrics.json")) == 1


def test_the_token_opens_a_private_model_and_goes_to_the_hub_alone(
    hub: Hub, client: Client, files: dict[str, bytes], answer: list[object], tmp_path: Path
) -> None:
    hub.add_repo("org/private", files, private=True)
    hub.requests.clear()
    options = f"'org/private', token={hub.read_token!r}, cache_dir={str(tmp_path)!r}"
    assert client.run(f"value = load({options})") == answer
    assert all(request.token for request in hub.find_requests("/org/private/"))
    assert hub.find_requests("/cdn/")
    assert not any(request.token for request in hub.find_requests("/cdn/"))


def test_push_makes_one_commit_or_none(
    hub: Hub, client: Client, files: dict[str, bytes], answer: list[object], tmp_path: Path
) -> None:
    push = f"value = model.push_to_hub('org/pushed', token={hub.token!r}, private=True)"
    client.run(f"model = BCDClassifier.from_pretrained({str(LIGHT)!r})")
    address = client.run(push)
    (commit,) = hub.commits("org/pushed")
    assert address == f"{hub.url}/org/pushed/commit/{commit.oid}"
    version = json.loads(files["config.json"])["bcd"]["version"]
    assert commit.title == f"bcd-mobilenetv2 {version}, weights {answer[1]}"
    assert hub.repo("org/pushed").private
    assert hub.repo("org/pushed").tags[SCHEMA_TAG].oid == commit.oid
    stored = hub.files("org/pushed")
    assert stored.keys() == {"config.json", *GRAPHS, "model.safetensors"}
    assert stored["model.safetensors"] == files["model.safetensors"]
    assert client.run(push) == address
    assert len(hub.commits("org/pushed")) == 1
    options = f"'org/pushed', token={hub.token!r}, cache_dir={str(tmp_path)!r}"
    assert client.run(f"value = load({options})") == answer


def test_an_ensemble_goes_to_the_hub_and_comes_back(
    hub: Hub, client: Client, answer: list[object], tmp_path: Path
) -> None:
    code = f"""
from bcd_models.models.ensemble import EnsembleConfig
member = BCDClassifier.from_pretrained({str(LIGHT)!r})
config = EnsembleConfig(name="twins", version="1", members=("one", "two"))
twins = BCDEnsemble(config, [member, member])
twins.push_to_hub("org/twins", token={hub.token!r})
there = twins.predict(patch)
options = dict(cache_dir={str(tmp_path)!r})
value = [[there.probability, there.weights_sha256], load("org/twins", BCDEnsemble, **options)]
"""
    before, after = client.run(code)
    assert before == after
    assert before[0] == answer[0]
    assert len(hub.commits("org/twins")) == 1
    error = client.fails(f"load('org/twins', cache_dir={str(tmp_path)!r})")
    assert "holds an ensemble: load it with BCDEnsemble" in error


def test_busy_moments_of_the_hub_are_waited_for(hub: Hub, client: Client, tmp_path: Path) -> None:
    client.run(f"""
model = BCDClassifier.from_pretrained({str(LIGHT)!r})
model.network.classifier.bias.data += 1  # so that the weights are none the Hub holds already
model = BCDClassifier(model.config, model.network)
""")
    hub.fail("POST /api/repos/create", status=503)
    hub.fail("POST .*/commit/", status=429, times=2, retry_after=7)
    hub.cut("POST .*/commit/", after=0)  # the commit is made, and nobody told
    hub.fail("PUT /upload/", status=500)
    code = f"""
import time
waited, before, time.sleep = [], time.sleep, lambda seconds: waited.append(seconds)
model.push_to_hub('org/busy', token={hub.token!r})
time.sleep, value = before, waited
"""
    assert client.run(code).count(7) == 2  # what the Hub asks for
    assert len(hub.commits("org/busy")) == 1
    hub.fail("HEAD .*config.json", status=429, retry_after=1)
    hub.fail("GET /cdn/", status=503)
    client.run(f"load('org/busy', cache_dir={str(tmp_path)!r})")
    assert all(fault.times == 0 for fault in hub.faults)


@pytest.mark.parametrize("token", ["", " ", "hf_secret\n", "hf_gehëim"])
def test_a_token_that_none_can_be_is_refused_unseen(token: str) -> None:
    with pytest.raises(HubError, match="no token has") as caught:
        check_token(token)
    assert "hf_" not in str(caught.value)
    with pytest.raises(ModelFolderError, match="no token has"):
        BCDClassifier.from_pretrained("org/none", token=token)


@pytest.mark.slow
def test_timm_and_transformers_load_the_same_logits(
    hub: Hub, repo: str, patch: Path, tmp_path: Path
) -> None:
    code = f"""
import timm, torch
from PIL import Image
from transformers import pipeline
from bcd_models import BCDClassifier

ours = BCDClassifier.from_pretrained({repo!r})
by_timm = timm.create_model("hf-hub:{repo}", pretrained=True).eval()
pipe = pipeline("image-classification", model={repo!r})
pixels = torch.randn(2, 3, 224, 224)
with torch.inference_mode():
    logits = ours(pixels)
    assert torch.equal(by_timm(pixels), logits)
    assert torch.equal(pipe.model.float()(pixel_values=pixels).logits, logits)
    uncalibrated = torch.softmax(ours(ours.preprocess({str(patch)!r})), 1)[0, 1].item()
told = {{answer["label"]: answer["score"] for answer in pipe({str(patch)!r})}}
assert abs(told["malignant"] - uncalibrated) < 2e-3, (told, uncalibrated)
print("equal")
"""
    done = run_client(code, hub.environment(tmp_path), timeout=600)
    assert done.stdout.split() == ["equal"], done.stderr
