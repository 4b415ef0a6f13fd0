"""A model is measured on a user's own labelled images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from bcd_models import BCDClassifier, local
from bcd_models.config import DecisionConfig
from bcd_models.errors import InputError
from bcd_models.images.image_list import LabelledImage
from bcd_models.local import ladder, page, validation
from bcd_models.local.answers import answer
from bcd_models.local.ladder import LADDER
from bcd_models.prediction import CAMERA, CAMERA_WORDS, NOTICE, Finding
from tests.conftest import CARDS
from tests.support import synthetic
from tests.support.command_line import bcd
from tests.support.labelled import Row, write_list

CARD = CARDS / "bcd-mobilenetv2"


@pytest.fixture(scope="module")
def images(drawn: tuple[Path, list[Row]]) -> list[LabelledImage]:
    return local.read_labelled(drawn[0] / "list.csv")[0]


@pytest.fixture(scope="module")
def found(telling: Path, images: list[LabelledImage]) -> local.Validation:
    model = BCDClassifier.from_pretrained(telling)
    return local.validate(model, images, folder=CARD, ladder_images=60)


def test_figures_are_those_of_the_models_answers(
    found: local.Validation, telling: Path, images: list[LabelledImage]
) -> None:
    model = BCDClassifier.from_pretrained(telling)
    answers = model.predict([one.file for one in images], mpp=4)
    probability = np.array([one.probability for one in answers])
    truth = np.array([one.label == "malignant" for one in images])
    figures = found.figures
    assert figures.auroc.value == pytest.approx(roc_auc_score(truth, probability), abs=1e-9)
    assert figures.auroc.low < figures.auroc.value < figures.auroc.high
    here = figures.points[figures.point]
    called = probability >= model.config.decision.threshold
    assert here.sensitivity.value == pytest.approx(called[truth].mean())
    assert here.specificity.value == pytest.approx((~called[~truth]).mean())
    referred = [one.decision == "refer" for one in answers]
    assert here.referred == pytest.approx(np.mean(referred))
    wrong = [
        one.decision not in ("refer", own.label) for one, own in zip(answers, images, strict=True)
    ]
    by_case: dict[str, list[bool]] = {}
    for own, is_wrong in zip(images, wrong, strict=True):
        by_case.setdefault(own.case_id, []).append(is_wrong)
    assert here.loss.value == pytest.approx(np.mean([np.mean(case) for case in by_case.values()]))
    assert here.loss.low <= here.loss.value <= here.loss.high
    assert here.error_among_decided is not None
    decided = len(images) - sum(referred)
    assert here.error_among_decided.value == pytest.approx(sum(wrong) / decided)
    assert (figures.counts.images, figures.counts.cases) == (60, 20)
    assert sum(figures.probabilities) == 60


def test_the_ladder_begins_with_the_images_as_they_are(found: local.Validation) -> None:
    climb = found.ladder
    assert climb is not None
    assert [rung.name for rung in climb.rungs] == [rung.name for rung in LADDER]
    figures, here = found.figures, found.figures.points[found.figures.point]
    assert climb.clean.auroc == figures.auroc  # of all 60, by the other way round
    assert climb.clean.recall == here.sensitivity
    assert climb.clean.specificity == here.specificity
    lost = {rung.name: -rung.minus_clean.auroc.value for rung in climb.rungs}
    assert lost["blur_1.5"] != 0
    assert (found.sample.images, found.sample.cases, found.sample.tiles) == (60, 20, 60)


def test_what_is_stated_stands_beside_and_worse_is_told(found: local.Validation) -> None:
    stated = json.loads((CARD / "metrics.json").read_text())["within"]["figures"]["auroc"]
    assert found.stated is not None
    assert found.stated.value == stated["value"]
    assert found.worse == ("auroc",) if found.figures.auroc.high < stated["value"] else ()
    assert found.probabilities is not None  # 60 images against the test part's 1,601
    assert found.probabilities.is_beyond_chance


def test_a_model_that_fails_here_ends_the_command_with_1(
    drawn: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    folder, rows = drawn
    other = {"benign": "malignant", "malignant": "benign"}
    flipped = [(path, other[label], case, mpp) for path, label, case, mpp in rows]
    for one in rows:
        shutil.copy(folder / one[0], tmp_path)
    listed = write_list(tmp_path, flipped)
    done = bcd("validate", listed, "--model", CARD, "--ladder-images", "0", "--json")
    told = json.loads(done.stdout)
    assert "auroc" in told["worse"]
    assert (done.returncode, told["ladder"], told["not_used"]) == (1, None, [])


def test_the_command_writes_both_reports_and_names_what_it_could_not_use(
    drawn: tuple[Path, list[Row]], telling: Path, tmp_path: Path
) -> None:
    folder, rows = drawn
    for one in rows:
        shutil.copy(folder / one[0], tmp_path)
    Image.new("RGB", (50, 50), (255, 0, 0)).save(tmp_path / "flat.png")
    more = [("flat.png", "benign", "c0", "4"), ("none.png", "benign", "c0", "4")]
    listed = write_list(tmp_path, [*rows, *more, ("1.png", "cyst", "c0", "4")])
    out = tmp_path / "report"
    done = bcd("validate", listed, "--model", CARD, "--out", out, "--ladder-images", "0")
    assert done.returncode == 1
    assert "'cyst' is neither benign nor malignant" in done.stderr
    assert done.stdout.startswith("AUROC ")
    told = local.Validation.model_validate_json((out / "validation.json").read_bytes())
    assert told.figures.counts.images == 61
    assert [line.split(":")[0].rpartition(", ")[2] for line in told.not_used] == [
        "line 64",
        "line 63",
    ]
    assert told.unsuitable["flat"] == 1
    html = (out / "validation.html").read_text()
    assert html == page.render(told)
    flat = "of 61 images look unsuitable and are referred: nearly one colour 1"
    assert any(flat in line for line in told.warnings)
    assert flat in done.stderr
    assert html.index(flat) < html.index("<h2>")  # at its head
    assert told.list_name == "list.csv"
    for text in (
        told.model.weights_sha256,
        told.date,
        "finds at least 95%",
        "What is referred",
        NOTICE,
        "nearly one colour",
        "screening",
        "wrong of a case",
        "cases above 20%",
        "calibration slope",
        "none.png",
    ):
        assert text in html
    assert set(told.figures.points) == {"balanced", "screening", "confirm"}
    assert told.figures.points["screening"].sensitivity_stated is not None
    assert told.colours.keys() == validation.COLOURS.keys()
    file = tmp_path / "none.txt"
    file.touch()
    same = bcd(
        *("validate", listed, "--model", CARD, "--json", "--ladder-images", "0", "--out", file)
    )
    assert json.loads(same.stdout) == json.loads((out / "validation.json").read_text())
    assert same.returncode == 2
    assert "can't be written" in same.stderr


@pytest.fixture
def unscaled(drawn: tuple[Path, list[Row]], tmp_path: Path) -> Path:
    """A list of which seven images of 60 are of no size that a patch has, and have no mpp."""
    folder, rows = drawn
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for path, *_ in rows[:7]:
        Image.open(folder / path).resize((150, 150)).save(tmp_path / path)
    return write_list(tmp_path, [(*row[:3], "" if n < 7 else "4") for n, row in enumerate(rows)])


def test_images_without_a_scale_are_counted_at_the_head(unscaled: Path, telling: Path) -> None:
    done = bcd("validate", unscaled, "--model", telling, "--ladder-images", "0", "--json")
    told = local.Validation.model_validate_json(done.stdout)
    said = "7 of 60 images have no known scale and are referred"
    assert (told.unscaled, said in told.warnings[0]) == (7, True)
    assert f"warning: {said}" in done.stderr
    assert "column mpp" in done.stderr
    html = page.render(told)
    assert html.index(said) < html.index("<h2>")
    assert "<td>unknown scale</td><td>7</td>" in html
    refused = bcd("calibrate", unscaled, "--model", telling, "--out", unscaled.parent / "ours")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "7 of 60 images have no known scale, more than a tenth" in refused.stderr
    assert not (unscaled.parent / "ours").exists()


def test_a_microscope_camera_s_images_are_named_too(
    telling: Path, images: list[LabelledImage]
) -> None:
    said = answer(BCDClassifier.from_pretrained(telling), images[:2])
    found = Finding(CAMERA, 0.2, 0.8, CAMERA_WORDS)
    taken = replace(said.predictions[0], findings=(found,), reasons=(CAMERA_WORDS,))
    told = replace(said, predictions=(taken, said.predictions[1])).describe_referred()
    assert list(told) == [
        f"1 of 2 images look unsuitable and are referred: {CAMERA_WORDS} 1",
    ]


def test_a_model_measured_on_what_it_was_calibrated_on_is_told(
    telling: Path, images: list[LabelledImage], tmp_path: Path
) -> None:
    ours, found, _ = local.recalibrate(BCDClassifier.from_pretrained(telling), images)
    local.write_folder(ours, found, tmp_path / "ours")
    listed = images[0].file.parent / "list.csv"
    done = bcd("validate", listed, "--model", tmp_path / "ours", "--ladder-images", "0", "--json")
    assert "warning: The model was calibrated on these very images" in done.stderr
    told = local.Validation.model_validate_json(done.stdout)
    assert told.model.calibrated == (ours.config.calibrated[0].words,)
    assert "on these very images" in page.render(told).partition("<h2>")[0]
    other = local.validate(ours, images[:-1], ladder_images=0)
    assert not any("these very images" in line for line in other.warnings)


def test_the_ladder_s_end_is_told_where_enough_is_malignant(found: local.Validation) -> None:
    (line,) = [one for one in page.summarise(found) if "usable" in one]
    assert found.sample.malignant == found.figures.counts.malignant == 30
    assert line.startswith("Stops being usable under (30 malignant of 60 images): ")
    few = found.model_copy(update={"sample": found.sample.model_copy(update={"malignant": 29})})
    (line,) = [one for one in page.summarise(few) if "usable" in one]
    assert "too few to say" in line
    text = page.render(found)
    assert re.search(r"\d% \(difference [+-]\d+\.\d to [+-]\d+\.\d points\)", text)
    assert "auroc" not in text


def test_an_image_counts_once(drawn: tuple[Path, list[Row]], telling: Path, tmp_path: Path) -> None:
    folder, rows = drawn
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "3.png", tmp_path / "copy.png")
    more = [(rows[0][0], rows[0][1], "another", "4"), ("copy.png", "benign", "c1", "4")]
    listed, _ = local.read_labelled(write_list(tmp_path, [*rows, *more]))
    model = BCDClassifier.from_pretrained(telling)
    found = local.validate(model, listed, ladder_images=0)
    assert (found.figures.counts.images, found.figures.counts.cases) == (60, 20)
    lines = [one.replace(f"list {tmp_path / 'list.csv'}, ", "") for one in found.not_used]
    assert lines == [
        "line 62: the same image as in line 2",
        "line 63: the same image as in line 5",
    ]
    again = local.validate(model, listed[:60], ladder_images=0)
    assert found.fingerprint == again.fingerprint


def test_images_that_could_not_be_used_are_told_where_too_few_are_left(
    drawn: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    folder, rows = drawn
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for path, label, *_ in rows:
        if label == "malignant":
            (tmp_path / path).unlink()
    done = bcd("validate", tmp_path / "list.csv", "--model", CARD, "--ladder-images", "0")
    assert done.returncode == 2
    assert "images are benign" in done.stderr
    assert "30 of the listed could not be used, as" in done.stderr


@pytest.mark.parametrize("verb", [["validate"], ["calibrate", "--out", "none"]])
def test_every_line_s_fault_is_told_where_no_line_is_good(tmp_path: Path, verb: list[str]) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    rows = [("0.png", "Malignant", "a", "4"), ("0.png", "benign", "b", "4,0")]
    listed = write_list(tmp_path, [*rows, ("pipe.png", "benign", "c", "4")])
    done = bcd(verb[0], listed, "--model", CARD, *verb[1:])
    assert done.returncode == 2
    for reason in ("'Malignant' is neither", "mpp '4,0'", "is a pipe or device"):
        assert reason in done.stderr


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label,case,Case\n0.png,benign,a,b\n")
    with pytest.raises(InputError, match="two columns case"):
        local.read_labelled(tmp_path / "list.csv")


@pytest.mark.parametrize(
    "text",
    [
        "path,label,case,mpp\n0.png;benign;a;4\n",
        "path,label,case,mpp\n0.png,benign,a,4\n1.png;benign;a;4,5\n",
        "path,label,case\n0.png\tbenign\ta\n",
        "path,label,case\n0.png|benign|a\n",
        "path;label;case\n0.png,benign,a\n",
        "path\tlabel\tcase\n0.png\tbenign\ta\n",
    ],
)
def test_a_list_that_is_separated_otherwise_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    line = text.count("\n") if text.startswith("path,") else 1
    with pytest.raises(InputError, match=rf"line {line}: .*separate columns by commas"):
        local.read_labelled(tmp_path / "list.csv")
    done = bcd("predict", tmp_path / "list.csv", "--model", CARD)
    assert done.returncode == 2
    assert "separate columns by commas" in done.stderr


def test_a_name_with_a_semicolon_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label,case,mpp\na;b.png,benign,a\n")
    images, faults = local.read_labelled(tmp_path / "list.csv")
    assert ([one.name for one in images], faults) == (["a;b.png"], [])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--point", "none"], "no operating point 'none'"),
        (["--difference", "0"], "must be between 0 and 1"),
        (["--ladder-images", "9"], "draw more with --ladder-images"),
    ],
)
def test_what_cannot_be_measured_ends_with_2(
    drawn: tuple[Path, list[Row]], arguments: list[str], reason: str
) -> None:
    done = bcd("validate", drawn[0] / "list.csv", "--model", CARD, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def test_larger_fields_count_by_their_most_suspicious_tile(
    telling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "LADDER", LADDER[:2])
    images = []
    for number in range(13):
        kind = synthetic.KINDS[number % 2]
        pixels = synthetic.patch(kind, number, pixels=(150, 100), width_um=600)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        label = "malignant" if number == 12 else kind
        images.append((f"{number}.png", label, f"c{number % 12}", "4"))
    listed, _ = local.read_labelled(write_list(tmp_path, images))
    model = BCDClassifier.from_pretrained(telling)
    found = local.validate(model, listed, ladder_images=13)
    assert found.larger_fields == 13
    assert found.sample.tiles == 13 * 6
    assert found.ladder is not None
    assert found.ladder.clean.auroc == found.figures.auroc
    own = DecisionConfig(threshold=0.4)
    model.config = model.config.model_copy(update={"tile_decision": own})
    Image.fromarray(synthetic.patch("benign", 1)).save(tmp_path / "small.png")
    small = replace(listed[0], file=tmp_path / "small.png")
    with pytest.raises(InputError, match="1 images show one field of the model's and 13 show more"):
        local.validate(model, [*listed, small], ladder_images=0)


def sample(images: int = 400, each: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    probability = rng.random(images)
    labels = np.where(rng.random(images) < probability, "malignant", "benign")
    return probability, labels, np.arange(images) // each


def test_arrays_alone_are_measured() -> None:
    found = local.measure(*sample(), DecisionConfig(threshold=0.5, refer=(0.4, 0.6)))
    assert found.slope.low < 1 < found.slope.high
    assert found.in_the_large.low < 0 < found.in_the_large.high
    assert found.point == "own"
    assert found.points["own"].referred == pytest.approx(0.2, abs=0.05)
    referred = np.arange(400) < 100
    also = local.measure(*sample(), DecisionConfig(), referred=referred).points["own"]
    assert also.referred == 0.25
    plain = local.measure(*sample(), DecisionConfig()).points["own"]
    assert also.sensitivity == plain.sensitivity  # referred images count by their probability
    assert also.loss.value < plain.loss.value  # and are not decided
    whole = DecisionConfig(threshold=0.5, refer=(0, 1))
    nothing = local.measure(*sample(), whole).points["own"]
    assert (nothing.loss.value, nothing.error_among_decided) == (0, None)


def test_a_quarter_of_the_difference_takes_sixteen_times_the_cases() -> None:
    coarse, fine = (
        {one.figure: one for one in local.measure(*sample(), DecisionConfig(), difference=d).needed}
        for d in (0.08, 0.02)
    )
    for name, one in fine.items():
        assert coarse[name].needed is not None
        assert one.needed == pytest.approx(16 * coarse[name].needed, rel=0.2)
    # Of 40 cases the interval is w wide: its standard error is w / 3.92.
    found = local.measure(*sample(), DecisionConfig(), difference=0.02)
    error = (found.auroc.high - found.auroc.low) / 3.92
    assert fine["auroc"].needed == pytest.approx(40 * (2.8 * error / 0.02) ** 2, abs=1)


def test_arrays_that_say_nothing_are_refused() -> None:
    probability, labels, cases = sample()
    with pytest.raises(InputError, match="images of both labels are needed"):
        local.measure(probability, ["benign"] * 400, cases, DecisionConfig())
    with pytest.raises(InputError, match="no label 'tumour'"):
        local.measure(
            probability, np.where(labels == "benign", "benign", "tumour"), cases, DecisionConfig()
        )
    with pytest.raises(InputError, match="at least 10 are needed, 6 more"):
        local.measure(probability, labels, cases // 10, DecisionConfig())
    with pytest.raises(InputError, match="one value for each image"):
        local.measure(probability[1:], labels, cases, DecisionConfig())
    with pytest.raises(InputError, match="between 0 and 1"):
        local.measure(probability + 1, labels, cases, DecisionConfig())
    with pytest.raises(InputError, match="must be numbers"):
        local.measure(["0.5", "high"], labels[:2], cases[:2], DecisionConfig())
    with pytest.raises(InputError, match="image 3 has no case"):
        local.measure(probability, labels, [0.0] * 3 + [np.nan] * 397, DecisionConfig())
    for same in (0.0, 0.3, 1.0):
        with pytest.raises(InputError, match=rf"all 400 answers are {same:g}: they tell no image"):
            local.measure(np.full(400, same), labels, cases, DecisionConfig())


@pytest.mark.parametrize("which", range(3))
def test_arrays_with_another_axis_are_refused(which: int) -> None:
    arrays = [one[:, None] if place == which else one for place, one in enumerate(sample())]
    for ask in (local.measure, local.calibrate):
        with pytest.raises(InputError, match=r"one value for each image, shape \(N,\)"):
            ask(*arrays, DecisionConfig())
    columns = [one[:, None] for one in sample()]
    with pytest.raises(InputError, match="one value for each image"):
        local.measure(*columns, DecisionConfig())


def test_figures_need_neither_torch_nor_scipy_nor_pandas() -> None:
    code = (
        "import sys; from bcd_models import local, BCDClassifier;"
        "print(*sorted({'torch', 'scipy', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_ladder_names_what_it_needs(
    telling: Path, images: list[LabelledImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "find_spec", lambda _name: None)
    model = BCDClassifier.from_pretrained(telling)
    with pytest.raises(InputError, match=r"pip install 'bcd-models\[validate\]'"):
        local.validate(model, images)
    assert local.validate(model, images, ladder_images=0).ladder is None
