"""The bcd command in a process of its own, as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.images import open_image
from bcd_models.prediction import NOTICE
from tests.conftest import CARDS

MODEL = str(CARDS / "bcd-mobilenetv2")
COMMAND = [sys.executable, "-m", "bcd_models.cli"]


def bcd(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=240
    )


@pytest.fixture
def folder(tmp_path: Path, patches: list[Image.Image]) -> Path:
    """Two patches and a file that only pretends to be one."""
    inside = tmp_path / "patches"
    inside.mkdir()
    for i in range(2):
        patches[i].save(inside / f"{i}.png")
    (inside / "text.png").write_text("no picture")
    return inside


def test_json_says_it_all(patch_file: Path, light_model: BCDClassifier) -> None:
    done = bcd("predict", patch_file, "--model", MODEL, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    expected = light_model.predict(patch_file).to_dict()
    assert answer.pop("probability") == pytest.approx(expected.pop("probability"), abs=1e-5)
    assert answer == json.loads(json.dumps(expected))


def test_a_bad_file_is_reported_and_the_rest_done(folder: Path, tmp_path: Path) -> None:
    overlays = tmp_path / "overlays"
    done = bcd("predict", folder, "--model", MODEL, "--csv", "--overlay", overlays)
    assert done.returncode == 1
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [Path(row["path"]).name for row in rows] == ["0.png", "1.png"]
    assert "text.png is not a PNG" in done.stderr
    assert "1 of 3 images could not be used" in done.stderr
    assert "Traceback" not in done.stderr
    names = sorted(p.name for p in overlays.iterdir())
    assert names == ["0-bcd-mobilenetv2.png", "1-bcd-mobilenetv2.png"]
    assert open_image(overlays / names[0]).size == (50, 50)


def test_patterns_and_the_table(folder: Path) -> None:
    done = bcd("predict", folder / "[01].png", "--model", MODEL)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert NOTICE in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["predict", "none.png", "--model", MODEL], "no such file, folder or pattern: none.png"),
        (["predict", "{text}", "--model", MODEL], "is not a PNG"),
        (["predict", "{patch}", "--model", "nowhere/at/all"], "no model folder nowhere/at/all"),
        (["predict", "{empty}", "--model", MODEL], "no image in folder"),
        (["predict", "{patch}", "--model", MODEL, "--json", "--csv"], "one of --json and --csv"),
        (["predict", "{patch}"], "Missing option"),
        (["explain", "{patch}", "--model", MODEL, "--out", "/proc/no.png"], "can't be written"),
        (["explain", "{patch}", "--model", MODEL, "--out", "x.png", "--label", "cat"], "no label"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    tmp_path: Path, patch_file: Path, arguments: list[str], reason: str
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    places = {"patch": patch_file, "text": tmp_path / "text.png", "empty": tmp_path / "empty"}
    done = bcd(*(argument.format(**places) for argument in arguments))
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_explain_writes_an_overlay(patch_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "overlay.png"
    done = bcd("explain", patch_file, "--model", MODEL, "--out", out, "--label", "malignant")
    assert done.returncode == 0, done.stderr
    assert open_image(out).size == (50, 50)


def test_info_says_where_a_model_comes_from(light_model: BCDClassifier) -> None:
    done = bcd("info", MODEL)
    assert done.returncode == 0, done.stderr
    assert light_model.weights_sha256 in done.stdout
    document = json.loads(bcd("info", MODEL, "--json").stdout)
    assert document["name"] == "bcd-mobilenetv2"
    assert document["provenance"]["split"] == "grouped"


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    running = subprocess.Popen(
        [*COMMAND, "predict", *[str(folder / "0.png")] * 200, "--model", MODEL, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.read(1)
    running.stdout.close()
    assert running.wait(timeout=240) == 1
    assert b"Traceback" not in running.stderr.read()
    running.stderr.close()


def test_ctrl_c_ends_quietly(folder: Path) -> None:
    running = subprocess.Popen(
        [*COMMAND, "predict", *[str(folder / "0.png")] * 3000, "--model", MODEL, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=240)
    assert running.returncode == 130
    assert b"Traceback" not in errors
