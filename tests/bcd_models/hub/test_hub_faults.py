"""What goes wrong between a Hub and a cache: one clear line each, and the next load works."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from tests.conftest import CARDS
from tests.support.hub import Hub, running_hub
from tests.support.hub_client import Client, running_client

LIGHT = CARDS / "bcd-mobilenetv2"
LOADING = """
from bcd_models import BCDClassifier
def load(repo_id, **options):
    return BCDClassifier.from_pretrained(repo_id, **options).weights_sha256
"""
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture(scope="module")
def client(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    with running_client(hub.environment(home), home / "log") as running:
        running.run(LOADING)
        yield running
        said = running.log.read_text()
        assert not [t for t in (hub.token, hub.read_token, "hf_invalid") if t in said]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: (LIGHT / name).read_bytes() for name in ("config.json", "model.safetensors")}


@pytest.fixture
def repo(hub: Hub, files: dict[str, bytes]) -> str:
    """The id of a sound model that no other test knows."""
    hub.heal()
    hub.requests.clear()
    repo_id = f"org/model{next(NUMBERS)}"
    hub.add_repo(repo_id, files)
    return repo_id


def refusal(client: Client, hub: Hub, repo: str, **options: object) -> str:
    """What a load that must fail says: one line of ours, without a token."""
    told = client.fails(f"load({repo!r}, **{options!r})")
    assert told.startswith("ModelFolderError: no model folder "), told
    assert "\n" not in told
    assert "hf_" not in told
    return told


def loads(client: Client, repo: str, cache: Path, light_sha256: str, **options: object) -> None:
    """A load works and leaves nothing half-done in the cache."""
    given = {"cache_dir": str(cache), **options}
    assert client.run(f"value = load({repo!r}, **{given!r})") == light_sha256
    assert client.run(f"value = load({repo!r}, **{given!r}, local_files_only=True)") == light_sha256
    assert not list(cache.rglob("*.incomplete"))


@pytest.fixture(scope="module")
def light_sha256(files: dict[str, bytes]) -> str:
    return sha256(files["model.safetensors"]).hexdigest()


def test_tokens_and_rights(
    hub: Hub, client: Client, files: dict[str, bytes], tmp_path: Path, light_sha256: str
) -> None:
    hub.add_repo("org/private", files, private=True)
    hub.add_repo("org/gated", files, gated=True)
    cache = {"cache_dir": str(tmp_path)}
    no_such = "the Hub has no org/{}, or it is private: check the name, or pass a token"
    for repo, options, reason in [
        ("org/absent", {}, no_such.format("absent")),
        ("org/absent", {"token": hub.token}, no_such.format("absent")),
        ("org/private", {}, no_such.format("private")),
        ("org/private", {"token": hub.stranger_token}, no_such.format("private")),
        ("org/private", {"token": "hf_invalid"}, "the Hub refuses the token"),
        ("org/private", {"token": hub.token + "\n"}, "no token has"),
        ("org/private", {"token": True}, "no token is saved on this machine"),
        ("org/gated", {}, "gated: ask for access"),
        ("org/gated", {"token": hub.stranger_token}, "gated: ask for access"),
        ("org/--bad--", {}, "is no Hub id"),
    ]:
        assert reason in refusal(client, hub, repo, **cache, **options)
    for repo in ("org/private", "org/gated"):
        loads(client, repo, tmp_path, light_sha256, token=hub.read_token)


def test_pushing_without_the_right_to(hub: Hub, client: Client) -> None:
    hub.heal()
    client.run(f"model = BCDClassifier.from_pretrained({str(LIGHT)!r})")
    for token, reason in [
        (hub.read_token, "the Hub forbids this for org/new: You don't have the rights"),
        ("hf_invalid", "the Hub refuses the token"),
        ("hf_two\nlines", "no token has"),
    ]:
        told = client.fails(f"model.push_to_hub('org/new', token={token!r})")
        assert told.startswith("HubError: ")
        assert reason in told
        assert "hf_" not in told
    hub.full = True
    told = client.fails(f"model.push_to_hub('org/new', token={hub.token!r})")
    assert "Storage limit reached" in told
    hub.heal()
    client.run(f"model.push_to_hub('org/new', token={hub.token!r})")
    assert len(hub.commits("org/new")) == 1


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_connection_cut_within_a_file(
    hub: Hub, client: Client, repo: str, name: str, tmp_path: Path, light_sha256: str
) -> None:
    cache = {"cache_dir": str(tmp_path)}
    hub.cut(f"GET .*{name}", after=0, times=100)
    assert "the connection to the Hub failed" in refusal(client, hub, repo, **cache)
    hub.heal()
    hub.cut(f"GET .*{name}", after=1000, times=2)
    hub.requests.clear()
    client.run("""
from huggingface_hub import constants
usual, constants.DOWNLOAD_CHUNK_SIZE = constants.DOWNLOAD_CHUNK_SIZE, 500
""")
    loads(client, repo, tmp_path, light_sha256)
    client.run("constants.DOWNLOAD_CHUNK_SIZE = usual")
    statuses = [r.status for r in hub.find_requests(f"GET .*{name}") if r.status != 302]
    assert statuses == [200, 206, 206]  # it goes on from where it was


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_bytes_that_do_not_match_their_hash(
    hub: Hub, client: Client, repo: str, name: str, tmp_path: Path, light_sha256: str
) -> None:
    hub.corrupt(f"GET .*{name}", times=2)
    told = refusal(client, hub, repo, cache_dir=str(tmp_path))
    assert f"{name} don't match their hash: try again later" in told
    hub.heal()
    hub.corrupt(f"GET .*{name}")  # once only: the second try gets the right ones
    loads(client, repo, tmp_path, light_sha256)


def test_a_cache_damaged_on_disk_mends_itself(
    hub: Hub, client: Client, repo: str, tmp_path: Path, light_sha256: str
) -> None:
    loads(client, repo, tmp_path, light_sha256)
    (weights,) = tmp_path.rglob("model.safetensors")
    weights.resolve().write_bytes(b"rust")
    told = refusal(client, hub, repo, cache_dir=str(tmp_path), local_files_only=True)
    assert "is not in the cache" in told
    loads(client, repo, tmp_path, light_sha256)


def test_a_slow_hub(hub: Hub, client: Client, repo: str, tmp_path: Path, light_sha256: str) -> None:
    client.run("""
import huggingface_hub
huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT = 0.2
""")
    hub.slow("GET /cdn/", seconds=1, times=100)
    assert "ReadTimeout" in refusal(client, hub, repo, cache_dir=str(tmp_path))
    hub.heal()
    client.run("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT = 10")
    loads(client, repo, tmp_path, light_sha256)


def test_a_hub_that_is_down(
    hub: Hub, client: Client, repo: str, tmp_path: Path, light_sha256: str
) -> None:
    cache = {"cache_dir": str(tmp_path)}
    hub.fail("resolve", status=503, times=100)
    told = refusal(client, hub, repo, **cache)
    assert "not in the cache, and the Hub answers 503: connect and load it once" in told
    hub.heal()
    loads(client, repo, tmp_path, light_sha256)
    hub.fail("resolve", status=503, times=100)
    loads(client, repo, tmp_path, light_sha256)  # what is in the cache does


def test_a_repository_with_a_pickle_only(
    hub: Hub, client: Client, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.heal()
    pickle = tmp_path / "pytorch_model.bin"
    torch.save({"bias": torch.zeros(2)}, pickle)
    hub.add_repo(
        "org/pickle",
        {"config.json": files["config.json"], "pytorch_model.bin": pickle.read_bytes()},
    )
    told = refusal(client, hub, "org/pickle", cache_dir=str(tmp_path))
    assert "has no model.safetensors" in told
    assert "never pickles" in told
    assert not hub.find_requests("pytorch_model")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"bcd": {"schema_version": 99}}, "schema version 99.*upgrade with pip install -U"),
        ({"architecture": "resnet18"}, "no 'bcd' object"),
        ({"bcd_ensemble": {"members": ["../../x", "b"]}}, "must be sub-folders' names"),
    ],
)
def test_a_config_that_is_newer_or_of_something_else(
    hub: Hub, client: Client, repo: str, config: object, reason: str, tmp_path: Path
) -> None:
    hub.add_repo(repo, {"config.json": json.dumps(config).encode()})
    told = client.fails(f"load({repo!r}, cache_dir={str(tmp_path)!r})")
    assert told.startswith("ModelFolderError: ")
    assert "\n" not in told
    assert re.search(reason, told)


def test_a_full_disk(
    hub: Hub, client: Client, repo: str, tmp_path: Path, light_sha256: str
) -> None:
    client.run("""
import resource
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
""")
    told = refusal(client, hub, repo, cache_dir=str(tmp_path))
    client.run("resource.setrlimit(resource.RLIMIT_FSIZE, before)")
    assert told.endswith("can't be written: File too large")
    loads(client, repo, tmp_path, light_sha256)


@pytest.mark.slow
def test_two_processes_load_at_once_and_one_is_killed(
    hub: Hub, client: Client, repo: str, tmp_path: Path, light_sha256: str
) -> None:
    hub.slow("GET /cdn/", seconds=0.5, times=2)
    cache = tmp_path / "cache"
    with running_client(hub.environment(tmp_path), tmp_path / "log") as other:
        other.run(LOADING)
        for one in (client, other):
            one.start(f"value = load({repo!r}, cache_dir={str(cache)!r})")
        assert [client.finish(), other.finish()] == [light_sha256] * 2
        loads(client, repo, cache, light_sha256)
        hub.heal()
        hub.slow("GET /cdn/", seconds=2)
        other.start(f"load({repo!r}, cache_dir={str(tmp_path / 'torn')!r})")
        while hub.faults[0].times:
            time.sleep(0.05)
    torn = {"cache_dir": str(tmp_path / "torn")}
    assert client.run(f"value = load({repo!r}, **{torn!r})") == light_sha256


@pytest.mark.slow
def test_no_network(hub: Hub, client: Client, repo: str, tmp_path: Path, light_sha256: str) -> None:
    warm, cold = {"cache_dir": str(tmp_path / "warm")}, {"cache_dir": str(tmp_path / "cold")}
    loads(client, repo, tmp_path / "warm", light_sha256)
    environment = {**hub.environment(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    with running_client(environment, tmp_path / "log") as cut_off:
        cut_off.run(LOADING)
        assert refusal(cut_off, hub, repo, **cold) == (
            f"ModelFolderError: no model folder {repo}, and the Hub's {repo} is not in the cache, "
            "and the Hub can't be reached: connect and load it once, or download the folder"
        )
        told = refusal(cut_off, hub, repo, **warm, force_download=True)
        assert "the connection to the Hub failed (ConnectError): try again" in told
        assert cut_off.run(f"value = load({repo!r}, **{warm!r})") == light_sha256
        cut_off.run("import huggingface_hub; huggingface_hub.constants.HF_HUB_OFFLINE = True")
        assert cut_off.run(f"value = load({repo!r}, **{warm!r})") == light_sha256
        told = refusal(cut_off, hub, repo, **cold)
        assert "load it once without local_files_only and HF_HUB_OFFLINE" in told
        told = refusal(cut_off, hub, repo, **warm, force_download=True)
        assert "HF_HUB_OFFLINE is set: unset it" in told
