"""The bcd command: in a process of its own where that matters, else in the tests' own."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage.data import chelsea

from bcd_models import BCDClassifier, BCDEnsemble
from bcd_models.cli.arguments import Found, find_images
from bcd_models.hub.folder import read_config
from bcd_models.images.open import open_image
from bcd_models.models.ensemble import EnsembleConfig
from bcd_models.prediction import COLUMNS, NOTICE
from tests.conftest import CARDS
from tests.support import synthetic
from tests.support.command_line import COMMAND, Done, bcd
from tests.support.processes import running
from tests.support.running_app import EXAMPLES, POINTS, save_small_model

MODEL = str(CARDS / "bcd-mobilenetv2")
FORMATS = [(), ("--csv",), ("--json",)]


def bcd_process(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], text=True, encoding="utf-8", timeout=600, **streams
    )


def is_one_line(done: Done | subprocess.CompletedProcess[str]) -> bool:
    """Whether it failed with a single line that names its reason."""
    return done.returncode == 2 and re.fullmatch(r"error: .+\n", done.stderr) is not None


def save(image: Image.Image, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        image.save(path)


@pytest.fixture
def folder(tmp_path: Path, patches: list[Image.Image]) -> Path:
    """Two patches with two files in between that can't be used."""
    inside = tmp_path / "patches"
    for i in range(2):
        save(patches[i], inside / f"{i}.png")
    (inside / "0-text.png").write_text("no picture")
    # Large enough for Pillow to warn about it before we refuse it.
    save(Image.new("1", (10_000, 10_000)), inside / "0-huge.png")
    return inside


def test_json_says_it_all(patch_file: Path, light_model: BCDClassifier) -> None:
    done = bcd_process("predict", patch_file, "--model", MODEL, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer.pop("path") == str(patch_file)
    expected = light_model.predict(patch_file).to_dict()
    assert (expected["point"], expected["missed_of_100"]) == ("balanced", 11)
    assert answer.pop("probability") == pytest.approx(expected.pop("probability"), abs=1e-5)
    assert answer.pop("runtime") == "onnx float32"
    expected.pop("runtime")  # another test may have taken the network
    assert answer == json.loads(json.dumps(expected))


def test_what_was_missed_in_testing_stands_once_under_a_table_with_negatives(
    tmp_path: Path,
) -> None:
    model = save_small_model(tmp_path, "small", points=POINTS)
    images = [*EXAMPLES.glob("*.png")]
    for point, missed in (((), "(balanced) the model missed 11"), (("--point", "none"), "75")):
        done = bcd("predict", *images, "--model", model, "--mpp", "4", *point)
        assert done.stdout.count("benign ") > 1, done.stdout
        (told,) = [line for line in done.stderr.splitlines() if "missed" in line]
        assert f"{missed} of 100 carcinoma patches in out-of-fold testing" in told
    done = bcd("predict", *images, "--model", model, "--mpp", "4", "--point", "all")
    assert "missed" not in done.stderr  # nothing is negative here
    out = tmp_path / "map.png"
    done = bcd(
        "explain", images[0], "--model", model, "--mpp", "4", "--point", "none", "--out", out
    )
    assert "(none) the model missed 75 of 100" in done.stderr


def test_bad_files_are_reported_at_the_end_and_the_rest_done(folder: Path) -> None:
    done = bcd_process("predict", folder, "--model", MODEL, "--csv", stderr=subprocess.STDOUT)
    assert done.returncode == 1
    _, first, second, *errors = done.stdout.splitlines()
    assert first.startswith(f"{folder / '0.png'},")
    assert second.startswith(f"{folder / '1.png'},")
    assert errors == [
        f"error: {folder}/0-huge.png: 0-huge.png is too large: 10000x10000 pixels, at most "
        "50,000,000 in all; cut out the region of interest",
        f"error: {folder}/0-text.png: 0-text.png is not a PNG, JPEG, TIFF, BMP or WEBP image",
        NOTICE,
        "2 of 4 images could not be used",
    ]


def test_overlays_never_share_a_name(tmp_path: Path) -> None:
    sizes = {  # names that might meet, told apart by their images' widths
        "1.png": 20,
        "1.png.png": 21,
        "a/1.jpg": 22,
        "a/1.png": 23,
        "b/1.png": 24,
        "b/2.png": 25,
        "b/a-1.png": 26,
    }
    for name, width in sizes.items():
        save(Image.new("RGB", (width, 20)), tmp_path / "in" / name)
    inside, out = tmp_path / "in", tmp_path / "deep" / "out"
    twice = inside / "b" / ".." / "b" / "2.png"
    done = bcd("predict", inside, twice, "--model", MODEL, "--overlay", out)
    assert done.returncode == 0, done.stderr
    widths = {str(p.relative_to(out)): open_image(p).width for p in out.rglob("*.png")}
    assert widths == {
        "1.png-bcd-mobilenetv2.png": 20,
        "1.png.png-bcd-mobilenetv2.png": 21,
        "a/1.jpg-bcd-mobilenetv2.png": 22,
        "a/1.png-bcd-mobilenetv2.png": 23,
        "b/1.png-bcd-mobilenetv2.png": 24,
        "2-bcd-mobilenetv2.png": 25,
        "a-1-bcd-mobilenetv2.png": 26,
    }


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_overlay(tmp_path: Path, patches: list[Image.Image]) -> None:
    save(Image.new("RGB", (16, 16)), tmp_path / "0.png")
    save(patches[0].resize((200, 200)), tmp_path / "1.png")
    limited = ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *COMMAND]  # 8 blocks: 4 KiB
    out = tmp_path / "out"
    arguments = [tmp_path / "0.png", tmp_path / "1.png", "--model", MODEL, "--overlay", out]
    done = subprocess.run(
        [*limited, "predict", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "BCD_RUNTIME": "torch"},
    )
    assert is_one_line(done), done.stderr
    assert "1-bcd-mobilenetv2.png can't be written: File too large" in done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert [p.name for p in out.iterdir()] == ["0-bcd-mobilenetv2.png"]
    assert open_image(out / "0-bcd-mobilenetv2.png").size == (16, 16)


def test_overlays_never_replace_an_image(tmp_path: Path) -> None:
    blank = Image.new("RGB", (20, 20))
    save(blank, tmp_path / "0.png", tmp_path / "0-bcd-mobilenetv2.png")
    before = (tmp_path / "0-bcd-mobilenetv2.png").read_bytes()
    done = bcd("predict", tmp_path, "--model", MODEL, "--overlay", tmp_path)
    assert is_one_line(done), done.stderr
    assert "0-bcd-mobilenetv2.png is an image to look at" in done.stderr
    assert done.stdout == ""
    assert (tmp_path / "0-bcd-mobilenetv2.png").read_bytes() == before


def test_patterns_and_the_table(folder: Path) -> None:
    done = bcd("predict", folder / "[01].png", "--model", MODEL)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert NOTICE in done.stderr


def test_a_pattern_takes_each_image_once(folder: Path, patches: list[Image.Image]) -> None:
    save(patches[0], folder / "deep" / "a.PNG", folder / "[01].png")
    (folder / "empty").mkdir()
    for name in ("0-huge.png", "0-text.png"):
        (folder / name).unlink()
    found = {str(one.path.relative_to(folder)) for one in find_images([str(folder / "**")])}
    assert found == {"0.png", "1.png", "[01].png", "deep/a.PNG"}
    assert len(find_images([str(folder / "**")])) == 4
    literally = [Found(folder / "[01].png")]  # as it exists
    assert find_images([str(folder / "[01].png")]) == literally
    assert find_images([str(folder / "d*")]) == [Found(folder / "deep" / "a.PNG")]


def test_a_scale_is_given_computed_or_listed(tmp_path: Path, patches: list[Image.Image]) -> None:
    for name, times in (("small", 1), ("large", 4)):
        enlarged = np.repeat(np.repeat(np.array(patches[1]), times, 0), times, 1)
        save(Image.fromarray(enlarged), tmp_path / f"{name}.png")
    images = tmp_path / "list.csv"
    images.write_text("path,mpp\nsmall.png,\nlarge.png,1\n", "utf-8-sig")
    small, large = (tmp_path / f"{name}.png" for name in ("small", "large"))

    def answer(*arguments: str | Path) -> list[dict[str, Any]]:
        done = bcd("predict", *arguments, "--model", MODEL, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    expected, unknown = answer(small, large)
    assert unknown["decision"] == "refer"
    assert unknown["mpp"] is None
    optics = ("--objective", "20", "--camera-pixel", "10", "--adapter", "0.5")
    by_camera = answer(large, *optics)[0]
    for same, source in (
        (answer(large, "--mpp", "1")[0], "given"),
        (answer(images)[1], "given"),
        (by_camera, "objective and camera"),
    ):
        assert (same["mpp"], same["scale"]) == (1, source)
        assert same["probability"] == pytest.approx(expected["probability"], abs=1e-6)
    assert "not validated for microscope cameras" in by_camera["reasons"]
    in_words = bcd("predict", small, large, "--model", MODEL)
    assert "scale is unknown" in in_words.stderr
    done = bcd("explain", large, "--model", MODEL, "--mpp", "1", "--out", tmp_path / "map.png")
    assert done.returncode == 0
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.size == (200, 200)
    images.write_text("path, MPP\nlarge.png, 1\n")
    assert answer(images)[0]["mpp"] == 1
    wrongs = (
        ("path,mpp\nlarge.png,x\n", "line 2: 'x' is no number"),
        (
            "path,mpp\nlarge.png,1,5\n",
            "line 2: more cells than columns: separate columns by commas",
        ),
        ('path,mpp\nlarge.png,"1,5"\n', "'1,5' is no number: write decimals with a point"),
        (
            "path;mpp\nlarge.png;1,5\n",
            "separate columns by commas, and write decimals with a point",
        ),
        ('path\n"large.png\n', "can't be read"),
        ("name\nlarge.png\n", "line 1: no column path"),
    )
    for wrong, told in wrongs:
        images.write_text(wrong)
        done = bcd("predict", images, "--model", MODEL)
        assert is_one_line(done)
        assert told in done.stderr
    images.write_text("path,mpp\nlarge.png,1\nnone.png,1\n")
    done = bcd("predict", images, "--model", MODEL)
    assert f"error: no such file: {tmp_path / 'none.png'}\n" in done.stderr
    images.write_text("path,mpp\nlarge.png,1\nlarge.png,2\n")
    done = bcd("predict", images, "--model", MODEL, "--overlay", tmp_path / "maps")
    assert done.returncode == 2
    assert "two scales" in done.stderr


def test_the_table_says_scale_tiles_and_reasons(tmp_path: Path) -> None:
    kinds = ("malignant", "benign", "malignant")
    field = np.hstack([synthetic.patch(kind, seed) for seed, kind in enumerate(kinds, 2)])
    save(Image.fromarray(field), tmp_path / "field.png")
    save(Image.fromarray(field[:, :50]), tmp_path / "patch.png")
    (tmp_path / "list.csv").write_text("path,mpp\nfield.png,4\nfield.png,\npatch.png,\n")
    done = bcd("predict", tmp_path / "list.csv", "--model", MODEL)
    assert done.returncode == 0, done.stderr
    _, stated, unknown, patch = done.stdout.splitlines()
    assert re.search(r"4, given +\S+/field.png \(2 of 3 tiles malignant, 67%\)$", stated)
    assert re.search(r"^refer +0\.\d+ +unknown +\S+/field.png$", unknown)
    assert re.search(r"4, taken as the model's own +\S+/patch.png$", patch)
    referred, point, notice = done.stderr.splitlines()
    assert referred.startswith(f"refer: {tmp_path}/field.png: the image's scale is unknown")
    rule = read_config(Path(MODEL)).decision
    low, high = rule.refer or ()
    band = f"refer from {low:.3f} to {high:.3f}"
    assert point == f"Operating point balanced: malignant from {rule.threshold:.3f}, {band}."
    assert notice == NOTICE


def test_a_reason_that_images_share_stands_once(tmp_path: Path, patches: list[Image.Image]) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    save(patches[0].resize((200, 200)), *paths)
    done = bcd("predict", *paths, "--model", MODEL)
    (told,) = [line for line in done.stderr.splitlines() if "scale is unknown" in line]
    assert told.startswith(f"refer: {paths[0]}, {paths[1]}, {paths[2]} and 2 more: ")
    assert done.stdout.count("unknown") == 5


def test_an_unsuitable_image_is_no_answer(tmp_path: Path) -> None:
    """No table gives it a label or a probability, and it has no map but where that is asked for."""
    photograph, out = tmp_path / "cat.png", tmp_path / "map.png"
    Image.fromarray(chelsea()).resize((50, 50)).save(photograph)
    why = "the image looks unsuitable: drawn or photographed, not tissue"
    asked = ("predict", photograph, "--model", MODEL)
    table = bcd(*asked)
    assert re.search(rf"\nrefer +- +4, .+{photograph}: {why}\n$", table.stdout)
    assert table.stderr == f"{NOTICE}\n"
    (row,) = csv.DictReader(io.StringIO(bcd(*asked, "--csv").stdout))
    assert (row["decision"], row["reasons"]) == ("refer", why)
    assert row["findings"] == "drawn or photographed, not tissue"
    assert {row[name] for name in ("label", "probability", "share")} == {""}
    assert json.loads(bcd(*asked, "--json").stdout)["label"] in ("benign", "malignant")
    refused = bcd("explain", photograph, "--model", MODEL, "--out", out)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"error: {photograph}: {why}; --suitability ignore explains it all the same\n"
    )
    assert not out.exists()


def test_csv_has_the_columns_of_an_answer(patch_file: Path, light_model: BCDClassifier) -> None:
    head, row = csv.reader(
        io.StringIO(bcd("predict", patch_file, "--model", MODEL, "--csv").stdout)
    )
    assert head == ["path", *COLUMNS]
    told = dict(zip(head, row, strict=True))
    expected = light_model.predict(patch_file).to_row()
    assert float(told.pop("probability")) == pytest.approx(expected.pop("probability"), abs=1e-5)
    assert told == {"path": str(patch_file)} | {
        name: str(value) for name, value in expected.items()
    }
    assert head[-2:] == ["point", "findings"]
    assert told["point"] == "balanced"


def test_a_file_that_is_there_is_not_written_over(patch_file: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    for verb in (("explain", patch_file), ("export", "--self-contained")):
        done = bcd(*verb, "--model", MODEL, "--out", there)
        assert is_one_line(done)
        assert f"{there} is there already" in done.stderr
        assert there.read_text() == "mine"
    overlay = tmp_path / f"{patch_file.stem}-bcd-mobilenetv2.png"
    overlay.write_text("an earlier run's")
    assert bcd("predict", patch_file, "--model", MODEL, "--overlay", tmp_path).returncode == 0
    assert open_image(overlay).size == (50, 50)


ODD_NAMES = [
    "two words.png",
    "new\nline.png",
    "clear\x1b[2J.png",
    "[b].png",
    'å,".png',
    "\udcff.png",
]


def test_odd_names_come_out_readable(tmp_path: Path, patches: list[Image.Image]) -> None:
    paths = [tmp_path / "in" / name for name in ODD_NAMES]
    for path in paths:
        save(patches[0], path)
    (tmp_path / "in" / "bad\n.png").touch()
    out = {form: bcd("predict", tmp_path / "in", "--model", MODEL, *form) for form in FORMATS}
    assert {done.returncode for done in out.values()} == {1}
    told = [line for done in out.values() for line in done.stderr.splitlines()]
    assert sum(not line.startswith("refer: ") for line in told) == 2 + 4 + 3
    answers = map(json.loads, out["--json",].stdout.splitlines())
    assert {Path(answer["path"]) for answer in answers} == set(paths)
    rows = list(csv.DictReader(io.StringIO(out["--csv",].stdout, newline="")))
    table = out[()].stdout
    assert len(rows) == len(table.splitlines()) - 1 == len(paths)
    assert re.search(r"clear\\x1b\[2J", table)
    in_utf_8 = {name.replace("\udcff", r"\udcff") for name in ODD_NAMES}
    assert {Path(row["path"]).name for row in rows} == in_utf_8


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["predict", "none.png", "--model", MODEL], "no such file, folder or pattern: none.png"),
        (["predict", "{text}", "--model", MODEL], "is not a PNG"),
        (["predict", "{patch}", "--model", "nowhere/at/all"], "no model folder nowhere/at/all"),
        (["predict", "{empty}", "--model", MODEL], "no image in folder"),
        (
            ["predict", "{patch}", "--model", MODEL, "--json", "--csv"],
            "one of --json, --csv and --parquet",
        ),
        (["predict", "{patch}"], "Missing option"),
        (["predict", "{patch}", "--model", MODEL, "--overlay", "{text}"], "File exists"),
        (["predict", "{patch}", "--model", MODEL, "--overlay", "/proc/no"], "can't be written"),
        (["predict", "{patch}", "--model", "{empty}"], "empty has no config.json: download or"),
        (["info", "{cut}"], "model.onnx is of other weights than those in model.safetensors"),
        (["explain", "{patch}", "--model", MODEL, "--out", "{patch}"], "is an image to look at"),
        (["explain", "{patch}", "--model", MODEL, "--out", "/proc/no.png"], "can't be written"),
        (["explain", "{patch}", "--model", MODEL, "--out", "/dev/null"], "other than a file"),
        (["explain", "{patch}", "--model", MODEL, "--out", "x.png", "--label", "cat"], "no label"),
        (["predict", "{patch}", "--model", MODEL, "--objective", "20"], "one alone gives no scale"),
        (["predict", "{patch}", "--model", MODEL, "--mpp", "353"], "353 micrometres a pixel"),
        (["predict", "{patch}", "--model", MODEL, "--mpp", "0,5"], "as in 0.5"),
        (["predict", "{patch}", "--model", "{empty}y"], "did you mean"),
        (["predict", "{patch}", "--model", MODEL, "--point", "all"], "no operating point 'all'"),
        (["predict", "{patch}", "--model", MODEL, "--device", "tpu"], "no device 'tpu'"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    tmp_path: Path, patch_file: Path, arguments: list[str], reason: str
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    shutil.copytree(MODEL, tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "model.safetensors", 100_000)
    places = {"patch": patch_file, "text": tmp_path / "text.png", "empty": tmp_path / "empty"}
    done = bcd(*(argument.format(**places, cut=tmp_path / "cut") for argument in arguments))
    assert is_one_line(done) or "Missing option" in reason or "is not a PNG" in reason
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not re.search(r"\d\.\d{4}", done.stdout)  # found out before anything is predicted


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
    assert document["provenance"]["split"] == light_model.config.provenance.split


def test_info_lists_each_operating_point(light_model: BCDClassifier) -> None:
    lines = bcd("info", MODEL).stdout.splitlines()
    for name, point in light_model.config.decision.points.items():
        (line,) = [one for one in lines if one.startswith(f"point {name} ")]
        for number in (point.threshold, *(point.refer or ())):
            assert f"{number:.3f}" in line
        for measured in (point.sensitivity, point.specificity):
            assert measured
            value, low, high = (100 * one for one in (measured.value, measured.low, measured.high))
            assert f"{value:.1f}% ({low:.1f} to {high:.1f})" in line


def test_what_is_answered_all_the_same_is_told_in_each_form(tmp_path: Path) -> None:
    photograph = tmp_path / "cat.png"
    Image.fromarray(chelsea()).resize((50, 50)).save(photograph)
    found = "drawn or photographed, not tissue"
    asked = ("predict", photograph, "--model", MODEL)
    ignoring = (*asked, "--suitability", "ignore")
    table = bcd(*ignoring)
    told = f"answered all the same: {photograph}: the image looks unsuitable: {found}"
    assert told in table.stderr
    assert "refer:" not in table.stderr
    said = json.loads(bcd(*ignoring, "--json").stdout)
    assert said["decision"] == said["label"]
    assert [one["words"] for one in said["ignored"]] == [found]
    (row,) = csv.DictReader(io.StringIO(bcd(*ignoring, "--csv").stdout))
    assert row["ignored"] == found
    drawn = bcd(*ignoring, "--overlay", tmp_path / "overlays")
    assert told in drawn.stderr
    parquet = bcd(*ignoring, "--parquet", tmp_path / "answers")
    assert parquet.returncode == 0, parquet.stderr
    (part,) = (tmp_path / "answers").iterdir()
    assert [row["ignored"] for row in pq.read_table(part).to_pylist()] == [found]
    explain = ("explain", photograph, "--model", MODEL, "--suitability", "ignore")
    assert told in bcd(*explain, "--out", tmp_path / "map.png").stderr
    slide = ("slide", photograph, "--model", MODEL, "--out", tmp_path)
    for verb in (asked, (*explain[:-2], "--out", tmp_path / "other.png"), slide):
        assert is_one_line(bcd(*verb, "--suitability", "never"))


def test_info_says_whether_unsuitable_images_are_referred(
    light_model: BCDClassifier, tmp_path: Path
) -> None:
    older = copy.copy(light_model)
    older.config = light_model.config.model_copy(update={"suitability": None})
    older.save_pretrained(tmp_path / "older")
    assert "refers what is no H&E-stained tissue" in bcd("info", MODEL).stdout
    assert "not judged: the folder holds no statistics" in bcd("info", tmp_path / "older").stdout


def test_an_ensemble_is_named_as_a_model_is(tmp_path: Path, patch_file: Path) -> None:
    members = [BCDClassifier.from_pretrained(MODEL) for _ in range(2)]
    config = EnsembleConfig(name="pair", version="1.5", members=("one", "two"))
    ensemble = BCDEnsemble(config, members)
    ensemble.save_pretrained(tmp_path / "pair")
    done = bcd("predict", patch_file, "--model", tmp_path / "pair", "--json")
    answer = json.loads(done.stdout)
    assert answer["probability"] == ensemble.predict(patch_file).probability
    assert answer["weights_sha256"] == ensemble.weights_sha256
    told = bcd("info", tmp_path / "pair").stdout
    assert "pair 1.5" in told
    assert f"bcd-mobilenetv2 {members[0].config.version}" in told
    assert json.loads(bcd("info", tmp_path / "pair", "--json").stdout)["members"] == ["one", "two"]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_a_full_output_is_one_line_and_exit_code_2(patch_file: Path, form: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = bcd_process("predict", patch_file, "--model", MODEL, *form, stdout=full)
    assert is_one_line(done), done.stderr
    assert "standard output: No space left on device" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_alone(patch_file: Path, terminal: bool) -> None:
    reading, writing = pty.openpty() if terminal else os.pipe()
    done = bcd_process("predict", *[patch_file] * 3, "--model", MODEL, "--csv", stderr=writing)
    os.close(writing)
    shown = os.read(reading, 100_000).decode()
    os.close(reading)
    assert len(done.stdout.splitlines()) == 4
    assert "predicting" not in done.stdout
    assert ("predicting" in shown) == ("100%" in shown) == terminal
    assert NOTICE in shown


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_a_reader_that_leaves_is_no_error(folder: Path, form: tuple[str, ...]) -> None:
    with running(
        [*COMMAND, "predict", *[str(folder / "0.png")] * 70, "--model", MODEL, *form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as predicting:
        predicting.stdout.read(1)
        predicting.stdout.close()
        assert predicting.wait() == 1
        assert predicting.stderr.read() == b""


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_ctrl_c_ends_quietly(folder: Path, form: tuple[str, ...]) -> None:
    with running(
        [*COMMAND, "predict", *[str(folder / "0.png")] * 3000, "--model", MODEL, *form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever started the tests in the background has Ctrl-C ignored, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as predicting:
        predicting.stdout.readline()
        predicting.send_signal(signal.SIGINT)
        _, errors = predicting.communicate()
        assert predicting.returncode == 130
        assert errors == b""


@pytest.fixture
def folder_without_graph(tmp_path: Path) -> Path:
    folder = save_small_model(tmp_path, "small")
    (folder / "model.onnx").unlink()
    return folder


def test_export_writes_what_onnx_runtime_runs(tmp_path: Path, light_model: BCDClassifier) -> None:
    out = tmp_path / "new" / "model.onnx"
    done = bcd("export", "--model", MODEL, "--self-contained", "--out", out)
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    side = light_model.config.preprocess.input_size
    assert (pixels.name, pixels.shape[1:]) == ("pixels", [3, side, side])
    assert isinstance(pixels.shape[0], str)  # any number of images


def test_export_gives_a_folder_its_graph(tmp_path: Path, folder_without_graph: Path) -> None:
    assert "none: torch answers" in bcd("info", folder_without_graph).stdout
    done = bcd("export", "--model", folder_without_graph)
    assert done.returncode == 0, done.stderr
    assert "model.onnx" in bcd("info", folder_without_graph).stdout
    assert BCDClassifier.from_pretrained(folder_without_graph).has_export
    bad = bcd("export", "--model", folder_without_graph, "--self-contained")
    assert is_one_line(bad)
    assert "needs --out" in bad.stderr


def test_parquet_tells_what_failed_and_goes_with_no_other_form(
    patch_file: Path, tmp_path: Path
) -> None:
    some = tmp_path / "some"
    some.mkdir()
    shutil.copy(patch_file, some / "a.png")
    (some / "b.png").write_bytes(b"no image")
    done = bcd("predict", some, "--model", MODEL, "--parquet", tmp_path / "out")
    assert done.returncode == 1
    assert "2 images" in done.stdout
    assert "b.png is not a" in done.stderr
    assert "1 of 2 images could not be used" in done.stderr
    assert [part.suffix for part in (tmp_path / "out").iterdir()] == [".parquet"]
    both = bcd("predict", patch_file, "--model", MODEL, "--parquet", tmp_path / "out", "--json")
    assert is_one_line(both)


def test_a_large_jpeg_with_its_scale_is_answered_alike_in_python_and_on_the_command_line(
    tmp_path: Path,
) -> None:
    """4,000 x 4,000 pixels at a micrometre each: 400 tiles of 200 micrometres."""
    tile = Image.fromarray(synthetic.patch("malignant", 1)).resize((200, 200))
    path = tmp_path / "field.jpg"
    Image.fromarray(np.tile(np.asarray(tile), (20, 20, 1))).save(path, quality=90)
    ours = BCDClassifier.from_pretrained(MODEL).predict(path, mpp=1)
    assert len(ours.tile_probabilities) == len(ours.tile_probabilities[0]) == 20
    done = bcd("predict", path, "--model", MODEL, "--mpp", "1", "--json")
    assert done.returncode == 0
    theirs = json.loads(done.stdout)
    assert theirs["probability"] == pytest.approx(ours.probability, abs=1e-6)
    assert theirs["tiles"] == ours.tiles
