"""Answers about many images as Parquet, by one process or several, before and after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from copy import copy
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage.data import chelsea

from bcd_models import BCDClassifier, InputError
from bcd_models.batch import FILE_PATTERN, Share, predict_into
from bcd_models.config import OperatingPoint
from bcd_models.prediction import COLUMNS
from tests.support.processes import running
from tests.support.running_app import EXAMPLES, save_small_model

IMAGES = sorted(EXAMPLES.glob("*.png"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models"), "small")


@pytest.fixture(scope="module")
def model(folder: Path) -> BCDClassifier:
    return BCDClassifier.from_pretrained(folder)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images, and one file that is none."""
    made = tmp_path_factory.mktemp("many")
    for number in range(25):
        shutil.copy(IMAGES[number % len(IMAGES)], made / f"{number:03}.png")
    (made / "012.png").write_bytes(b"no image")
    return sorted(made.iterdir())


def rows(out: Path) -> list[dict[str, object]]:
    """All lines, in the order of the parts' names."""
    return [
        row for part in sorted(out.glob(FILE_PATTERN)) for row in pq.read_table(part).to_pylist()
    ]


def test_every_image_has_a_line_in_order(model, paths, tmp_path) -> None:
    done = predict_into(model, paths, tmp_path / "new" / "out", images_per_file=10)
    assert (done.answered, done.kept) == (25, 0)
    assert len(done.failed) == 1
    found = rows(tmp_path / "new" / "out")
    assert [row["path"] for row in found] == list(map(str, paths))
    assert {tuple(row) for row in found} == {("path", *COLUMNS, "failed")}
    assert {row["threshold"] for row in found} == {model.config.decision.threshold}
    for row, path in zip(found, paths, strict=True):
        if path.name == "012.png":
            assert row["probability"] is row["label"] is row["decision"] is None
            assert "is not a" in row["failed"]
        else:
            answer = model.predict(path)
            assert row["probability"] == pytest.approx(answer.probability, abs=1e-6)
            told = answer.to_row() | {"probability": row["probability"], "failed": None}
            assert row == {"path": str(path)} | told


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_are_all_of_it_and_each_once(model, paths, tmp_path, processes: int) -> None:
    outcomes = [
        predict_into(model, paths, tmp_path, Share(rank, processes), images_per_file=4)
        for rank in range(processes)
    ]
    assert sum(one.answered for one in outcomes) == len(paths)
    assert [row["path"] for row in rows(tmp_path)] == list(map(str, paths))


def test_what_is_there_is_not_computed_again(model, paths, tmp_path) -> None:
    predict_into(model, paths, tmp_path, images_per_file=10)
    first, second, _ = sorted(tmp_path.glob(FILE_PATTERN))
    written = first.stat().st_mtime_ns
    second.unlink()
    done = predict_into(model, paths, tmp_path, Share(0, 1), images_per_file=10)
    assert (done.answered, done.kept) == (10, 15)
    assert first.stat().st_mtime_ns == written
    assert len(rows(tmp_path)) == 25


def test_other_answers_are_not_mixed_in(model, paths, tmp_path) -> None:
    predict_into(model, paths, tmp_path, images_per_file=10)
    with pytest.raises(InputError, match="other images"):
        predict_into(model, paths[1:], tmp_path, images_per_file=10)


def test_every_line_has_the_threshold_of_the_point_asked_for(model, paths, tmp_path) -> None:
    rule = model.config.decision.model_copy(
        update={"points": {"confirm": OperatingPoint(threshold=0.9)}}
    )
    asked = copy(model)
    asked.config = model.config.model_copy(update={"decision": rule})
    predict_into(asked, paths[10:15], tmp_path, point="confirm")
    assert [row["threshold"] for row in rows(tmp_path)] == [0.9] * 5  # one of no image
    with pytest.raises(InputError, match="another model, or about other images"):
        predict_into(asked, paths[10:15], tmp_path)


def test_what_is_answered_all_the_same_is_recorded_and_not_mixed_in(
    light_model, tmp_path, patch_file
) -> None:
    photograph = tmp_path / "cat.png"
    Image.fromarray(chelsea()).resize((50, 50)).save(photograph)
    both = [photograph, patch_file]
    predict_into(light_model, both, tmp_path / "refer")
    predict_into(light_model, both, tmp_path / "ignore", suitability="ignore")
    refused, answered = rows(tmp_path / "refer"), rows(tmp_path / "ignore")
    assert (refused[0]["decision"], refused[0]["ignored"]) == ("refer", "")
    assert answered[0]["decision"] == answered[0]["label"]
    assert [row["ignored"] for row in answered] == ["drawn or photographed, not tissue", ""]
    with pytest.raises(InputError, match="asked for otherwise"):
        predict_into(light_model, both, tmp_path / "refer", suitability="ignore")


def test_a_folder_that_can_not_be_used_is_told(model, paths, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be used"):
        predict_into(model, paths, tmp_path / "file")


@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({}, Share()),
        ({"RANK": "1", "WORLD_SIZE": "4"}, Share(1, 4)),
        ({"RANK": "x", "WORLD_SIZE": "4"}, Share()),
    ],
)
def test_the_launcher_tells_the_share(environment, share: Share) -> None:
    assert Share.from_environment(environment) == share


def predict(*arguments: object) -> list[str]:
    return ["-m", "bcd_models.cli", "predict", *map(str, arguments)]


@pytest.mark.slow
def test_two_processes_by_accelerate(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]  # CPUs too
    launch += ["--num_processes", "2"]
    many = tmp_path / "many"
    many.mkdir()
    for number in range(600):  # more than one part
        shutil.copy(IMAGES[number % len(IMAGES)], many / f"{number:03}.png")
    command = predict(many, "--model", folder, "--parquet", out)
    done = subprocess.run([*launch, *command], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "512 images (process 1 of 2)" in done.stdout
    assert "88 images (process 2 of 2)" in done.stdout
    assert [row["path"] for row in rows(out)] == [str(path) for path in sorted(many.iterdir())]


@pytest.mark.slow
def test_a_killed_run_goes_on(folder: Path, tmp_path: Path) -> None:
    many, out = tmp_path / "many", tmp_path / "out"
    many.mkdir()
    for number in range(1500):
        shutil.copy(IMAGES[number % len(IMAGES)], many / f"{number:04}.png")
    command = [sys.executable, *predict(many, "--model", folder, "--parquet", out)]
    with running(command, signal.SIGKILL, stdout=subprocess.PIPE) as predicting:
        while not list(out.glob(FILE_PATTERN)) and predicting.poll() is None:
            time.sleep(0.05)
    written = {part.name: part.stat().st_mtime_ns for part in out.glob(FILE_PATTERN)}
    assert 1 <= len(written) < 3
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert f"{512 * len(written)} were there" in done.stdout
    assert len(rows(out)) == 1500
    kept = {part.name: part.stat().st_mtime_ns for part in out.glob(FILE_PATTERN)}
    assert written.items() <= kept.items()
