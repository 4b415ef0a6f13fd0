"""`bcd doctor` says what this machine has, and by its exit code whether images are answered."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from bcd_models import __version__
from tests.conftest import CARDS, ROOT
from tests.support.command_line import COMMAND, bcd
from tests.support.hub import running_hub

MODEL = CARDS / "bcd-mobilenetv2"
BLOCKED = """
import sys
for name in {names}: sys.modules[name] = None
from bcd_models.cli import main
main()
"""


def examine(
    *arguments: str | Path, environment: Mapping[str, str] = os.environ, blocked: str = ""
) -> tuple[int, dict[str, dict[str, Any]], bool]:
    """Run the command in a process of its own; returns exit code, checks by name, and verdict."""
    names = tuple(blocked.split())
    begin = (sys.executable, "-c", BLOCKED.format(names=names)) if names else COMMAND
    done = subprocess.run(
        [*begin, "doctor", "--json", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), **environment},
        timeout=300,
    )
    found = json.loads(done.stdout)
    return done.returncode, {one["name"]: one for one in found["checks"]}, found["works"]


def test_a_machine_that_has_everything() -> None:
    code, checks, works = examine("--model", MODEL)
    assert (code, works) == (0, True)
    assert __version__ in checks["bcd-models"]["says"]
    for group, name in (("", "numpy"), (" torch", "timm"), (" slides", "openslide-python")):
        assert f"{name} {version(name)}" in checks[f"packages{group}"]["says"]
    states = {name: check["state"] for name, check in checks.items()}
    assert states.pop("Hub") == "not asked"
    for name in ("disk", "memory", "Hub cache"):  # what else runs here is not the test's to say
        states.pop(name)
    assert states.pop("device") in ("ok", "missing")
    assert set(states.values()) == {"ok"}
    assert "answers a drawn patch by onnx float32" in checks["model"]["says"]
    assert not any(check["remedy"] for check in checks.values() if check["state"] == "ok")


def test_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_DATABASE_URL", "postgresql://clinic:secret@host/clinic")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("BCD_RUNTIME", "onnx")
    done = bcd("doctor")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert all(line.startswith(("ok ", "missing ", "problem ", "not asked ")) for line in lines)
    (settings,) = [line for line in lines if " settings " in line]
    assert "BCD_DATABASE_URL is set, BCD_RUNTIME=onnx, " in settings
    assert "HF_TOKEN is set" in settings
    assert "secret" not in done.stdout


def test_without_torch_images_are_answered_all_the_same() -> None:
    code, checks, works = examine("--model", MODEL, blocked="torch timm onnx torchvision")
    assert (code, works) == (0, True)
    assert checks["torch"]["state"] == "missing"
    assert checks["torch"]["remedy"] == "pip install -U 'bcd-models[torch]'"
    assert checks["runtime"]["state"] == "ok"


def test_without_openslide_it_is_said_how_to_get_it() -> None:
    code, checks, _ = examine(blocked="openslide")
    assert code == 0
    for name in ("openslide", "DICOM slides"):
        assert checks[name]["state"] == "missing"
        assert "bcd-models[slides]" in checks[name]["remedy"]


@pytest.mark.parametrize(
    ("blocked", "runtime"),
    [("torch onnxruntime", "auto"), ("torch", "torch"), ("onnxruntime", "onnx"), ("", "abacus")],
)
def test_no_runtime_is_exit_code_1(blocked: str, runtime: str) -> None:
    environment = {**os.environ, "BCD_RUNTIME": runtime}
    code, checks, works = examine(environment=environment, blocked=blocked)
    assert (code, works) == (1, False)
    assert checks["runtime"]["state"] == "problem"
    assert runtime in checks["runtime"]["says"]


def test_a_runtime_whose_library_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise OSError('libonnxruntime.so: cannot open')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    _, checks, _ = examine(environment=environment)
    assert checks["onnxruntime"]["state"] == "problem"
    assert "libonnxruntime.so: cannot open" in checks["onnxruntime"]["says"]


@pytest.mark.parametrize("model", ["nowhere/at/all", "org/never-downloaded", "{spoilt}"])
def test_a_model_that_cannot_be_used_is_exit_code_1(model: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = bcd("doctor", "--model", model.format(spoilt=tmp_path), "--json")
    assert done.returncode == 1
    (check,) = [one for one in json.loads(done.stdout)["checks"] if one["name"] == "model"]
    assert check["state"] == "problem"
    assert check["remedy"]


def test_bad_usage_is_exit_code_2() -> None:
    done = bcd("doctor", "--device", "tpu")
    assert done.returncode == 2
    assert done.stderr == "error: no device 'tpu': choose one of auto, cpu, cuda, mps\n"


def test_a_device_that_is_not_here_is_exit_code_1() -> None:
    code, checks, _ = examine(
        "--device", "cuda", environment={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    assert code == 1
    assert checks["device"]["state"] == "problem"


def test_the_hub_is_asked_once_and_only_when_told(tmp_path: Path) -> None:
    with running_hub() as hub:
        environment = hub.environment(tmp_path)
        code, checks, _ = examine("--model", "org/never-downloaded", environment=environment)
        assert code == 1
        assert hub.requests == []
        assert checks["Hub"]["state"] == "not asked"
        code, checks, _ = examine("--hub", environment=environment)
        assert code == 0
        assert [(one.method, one.path) for one in hub.requests] == [("HEAD", "/")]
        assert checks["Hub"]["says"] == f"{hub.url} answers"
        assert checks["Hub cache"]["says"].startswith(f"{tmp_path}/hub: nothing yet")
        hub.fail("HEAD /", status=503)
        code, checks, _ = examine("--hub", environment=environment)
        assert code == 1
        assert checks["Hub"]["state"] == "problem"
        assert "503" in checks["Hub"]["says"]


def test_a_hub_that_is_out_of_reach_or_switched_off(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        nowhere = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}"}
        code, checks, _ = examine("--hub", environment=nowhere)
        assert code == 1
        assert "connection to the Hub failed" in checks["Hub"]["says"]
        code, checks, _ = examine("--hub", environment={**nowhere, "HF_HUB_OFFLINE": "1"})
        assert code == 1
        assert "HF_HUB_OFFLINE is set" in checks["Hub"]["says"]


def test_what_the_cache_holds_is_counted(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--org--model"
    blob, snapshot = repo / "blobs" / ("0" * 40), repo / "snapshots" / ("a" * 40)
    for folder in (blob.parent, snapshot):
        folder.mkdir(parents=True)
    blob.write_bytes(bytes(60_000_000))
    (snapshot / "model.safetensors").symlink_to(blob)
    _, checks, _ = examine(environment={**os.environ, "HF_HOME": str(tmp_path)})
    assert "1 repositories, 0.1 GB" in checks["Hub cache"]["says"]
    assert f"HF_HOME={tmp_path}" in checks["settings"]["says"]
