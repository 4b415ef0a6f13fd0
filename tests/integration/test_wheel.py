"""What goes to a package index works alone, in an environment that holds nothing else of ours."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from bcd_models import BCDClassifier, __version__
from tests.conftest import CARDS, ROOT
from tests.support.running_app import EXAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PREDICT = """
import importlib.util, json, sys
from bcd_models import BCDClassifier
model = BCDClassifier.from_pretrained(sys.argv[1])
answer = model.predict(sys.argv[2]).to_dict()
absent = [name for name in ("gradio", "datasets", "training") if not importlib.util.find_spec(name)]
import bcd_models
print(json.dumps([answer, absent, bcd_models.__file__]))
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` builds."""
    out = tmp_path_factory.mktemp("dist")
    run = [sys.executable, "-m", "build", "--outdir", str(out)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def test_the_wheel_holds_the_library_alone_and_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 1_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {
        "bcd_models",
        f"bcd_models-{__version__}.dist-info",
    }
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "bcd_models").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("bcd_models/")} == modules
    assert "bcd_models/py.typed" in names


def test_the_sdist_holds_what_the_wheel_is_built_from(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    assert {"bcd_models", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= tops
    assert not tops & {"tests", "training", "space", "cards"}


def test_twine_finds_nothing_wrong(dist: Path) -> None:
    run = [sys.executable, "-m", "twine", "check", "--strict", *map(str, dist.iterdir())]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_alone_loads_a_model_and_predicts(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    pip = [
        binaries / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "-c",
        ROOT / "constraints.txt",
    ]
    subprocess.run([*pip, wheel], check=True, cwd=tmp_path)
    image, model = EXAMPLES / "synthetic-malignant-1.png", CARDS / "bcd-mobilenetv2"
    done = subprocess.run(
        [binaries / "python", "-I", "-c", PREDICT, model, image],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer, absent, where = json.loads(done.stdout)
    expected = BCDClassifier.from_pretrained(model).predict(image)
    assert answer["probability"] == pytest.approx(expected.probability, abs=1e-4)
    assert answer["weights_sha256"] == expected.weights_sha256
    assert absent == ["gradio", "datasets", "training"]
    assert Path(where).is_relative_to(tmp_path)
    command = subprocess.run(
        [binaries / "bcd", "predict", image, "--model", model, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(command.stdout)["label"] == expected.label
    doctor = subprocess.run(
        [binaries / "bcd", "doctor", "--model", model, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    states = {check["name"]: check["state"] for check in json.loads(doctor.stdout)["checks"]}
    assert states["packages"] == states["runtime"] == states["model"] == "ok"
    assert states["packages torch"] == states["torch"] == "missing"
    assert states["packages slides"] == states["openslide"] == states["DICOM slides"] == "missing"
