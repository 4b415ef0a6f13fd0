"""A split of a user's own images is checked before a model is measured on it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bcd_models.errors import InputError
from bcd_models.local import check_split, measure_images, read_split
from tests.support import synthetic
from tests.support.command_line import bcd

HEADER = ("path", "label", "case", "split", "source", "mpp")
Row = tuple[str, ...]


def write(folder: Path, rows: Sequence[Row], header: Row = HEADER) -> Path:
    path = folder / "list.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """Thirty cases of two images, ten of them in each part."""
    folder = tmp_path_factory.mktemp("drawn")
    rows: list[Row] = []
    for number in range(60):
        kind = synthetic.KINDS[number % 2]
        Image.fromarray(synthetic.patch(kind, number)).save(folder / f"{number}.png")
        part = ("train", "validation", "test")[number // 20]
        rows.append((f"{number}.png", kind, f"c{number // 2}", part, "", "4"))
    return folder, rows


def check(folder: Path, rows: Sequence[Row]) -> tuple[int, dict[str, Any]]:
    done = bcd("check-split", write(folder, rows), "--json")
    return done.returncode, json.loads(done.stdout)


def test_a_clean_split(drawn: tuple[Path, list[Row]]) -> None:
    folder, rows = drawn
    code, found = check(folder, rows)
    assert code == 0
    floor = found.pop("colour_floor")
    assert floor.keys() == {"validation", "test"}
    assert all(0 <= one <= 1 for one in floor.values())
    part = {"images": 20, "cases": 10, "benign": 10, "malignant": 10}
    assert found == {
        "clean": True,
        "parts": dict.fromkeys(("train", "validation", "test"), part),
        "cases_in_several_parts": [],
        "pixels_in_several_parts": [],
        "source_floor": None,
        "not_used": [],
    }
    told = bcd("check-split", folder / "list.csv")
    assert told.returncode == 0
    assert "cases in several parts: none" in told.stdout
    assert told.stdout.count("a model must do better") == 2


def test_a_case_in_two_parts_is_found(drawn: tuple[Path, list[Row]]) -> None:
    folder, rows = drawn
    moved = [(*row[:3], "test", *row[4:]) if row[0] == "3.png" else row for row in rows]
    code, found = check(folder, moved)
    assert (code, found["clean"]) == (1, False)
    (case,) = found["cases_in_several_parts"]
    assert [(Path(one["path"]).name, one["part"]) for one in case] == [
        ("2.png", "train"),
        ("3.png", "test"),
    ]
    assert found["pixels_in_several_parts"] == []
    told = bcd("check-split", folder / "list.csv")
    assert told.returncode == 1
    assert "case images/c1: 1 in train, 1 in test" in told.stdout


def test_a_case_of_another_source_is_another_case(drawn: tuple[Path, list[Row]]) -> None:
    folder, rows = drawn
    named = [
        (row[0], row[1], f"c{number // 2 % 10}", row[3], f"clinic-{row[3]}", "")
        for number, row in enumerate(rows)
    ]
    code, found = check(folder, named)
    assert code == 0
    assert found["source_floor"] == {"validation": 0.5, "test": 0.5}


def test_a_source_that_tells_the_label_is_found(drawn: tuple[Path, list[Row]]) -> None:
    folder, rows = drawn
    told = [(*row[:4], "one" if row[1] == "benign" else "other", "") for row in rows]
    assert check(folder, told)[1]["source_floor"] == {"validation": 1.0, "test": 1.0}


def test_the_same_pixels_in_two_parts_are_found_whatever_the_file(
    drawn: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    folder, rows = drawn
    with Image.open(folder / "5.png") as image:
        image.save(folder / "again.tif")
        image.save(folder / "5.jpg", quality=50)
    with Image.open(folder / "45.png") as image:
        image.save(folder / "45.bmp")
    copies = [
        ("again.tif", "malignant", "new1", "test", "", ""),
        ("5.jpg", "malignant", "new2", "test", "", ""),  # other pixels
        ("45.bmp", "malignant", "new3", "test", "", ""),  # as 45.png, of the same part
    ]
    code, found = check(folder, [*rows, *copies])
    assert code == 1
    (alike,) = found["pixels_in_several_parts"]
    assert [Path(one["path"]).name for one in alike] == ["5.png", "again.tif"]
    assert found["cases_in_several_parts"] == []


def test_a_colour_that_tells_the_label_is_measured(tmp_path: Path) -> None:
    rows = []
    for number in range(60):
        kind = synthetic.KINDS[number % 2]
        shade = (250, 150, 180) if kind == "benign" else (180, 150, 250)
        pixels = synthetic.patch("benign", number).astype(int) + shade
        Image.fromarray((pixels // 2).astype("uint8")).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", kind, f"{number}", "train" if number < 40 else "test"))
    done = bcd("check-split", write(tmp_path, rows, HEADER[:4]), "--json")
    assert json.loads(done.stdout)["colour_floor"]["test"] > 0.95


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: (*row[:1], "benign", *row[2:]),  # one label
        lambda row: (*row[:2], f"few-{row[3]}-{int(row[2][1:]) % 9}", *row[3:]),  # nine cases
    ],
)
def test_a_floor_that_cannot_be_estimated_is_none(
    drawn: tuple[Path, list[Row]], spoil: Any
) -> None:
    folder, rows = drawn
    spoilt = [spoil(row) if row[3] == "test" else row for row in rows]
    floor = check(folder, spoilt)[1]["colour_floor"]
    assert floor["test"] is None
    assert floor["validation"] is not None
    assert "on test: not estimable" in bcd("check-split", folder / "list.csv").stdout


def test_bad_lines_are_named_and_the_rest_is_checked(drawn: tuple[Path, list[Row]]) -> None:
    folder, rows = drawn
    (folder / "text.png").write_text("no picture")
    bad = [
        ("none.png", "benign", "a", "test", "", ""),
        ("text.png", "benign", "b", "test", "", ""),
        ("1.png", "cancer", "c", "test", "", ""),
        ("1.png", "benign", "", "test", "", ""),
        ("1.png", "benign", "d", "holdout", "", ""),
        ("1.png", "benign", "e", "", "", ""),
        ("1.png", "benign", "f", "train", "", "0,5"),
    ]
    done = bcd("check-split", write(folder, [*rows, *bad]), "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert not found["clean"]
    assert found["parts"]["test"]["images"] == 20
    assert found["cases_in_several_parts"] == found["pixels_in_several_parts"] == []
    reasons = [
        ("line 62", "no such file"),
        ("line 63", "not a PNG"),
        ("line 64", "label 'cancer' is neither"),
        ("line 65", "no case"),
        ("line 66", "split 'holdout' is none of train, validation, test"),
        ("line 67", "no split"),
        ("line 68", "'0,5' is no number"),
    ]
    *errors, last = done.stderr.splitlines()
    assert last == "7 of 67 lines could not be used"
    assert len(errors) == len(found["not_used"]) == len(reasons)
    for line, reason in reasons:
        assert sum(f"list.csv, {line}: " in one and reason in one for one in errors) == 1


def test_many_are_counted_and_ten_are_named(drawn: tuple[Path, list[Row]]) -> None:
    folder, rows = drawn
    parts = ("train", "test")
    torn = [(*row[:3], parts[number % 2], *row[4:]) for number, row in enumerate(rows)]
    done = bcd("check-split", write(folder, torn))
    assert "cases in several parts: 30" in done.stdout
    assert done.stdout.count("  case images/") == 10
    assert "and 20 more: --json names all" in done.stdout
    assert len(check(folder, torn)[1]["cases_in_several_parts"]) == 30


@pytest.mark.parametrize(
    ("header", "rows", "reason"),
    [
        (HEADER[:3], [("0.png", "benign", "1")], "no column split"),
        (HEADER[:4], [("0.png", "benign", "1", "train")], "images of train alone make no split"),
        (HEADER[:4], [("none.png", "benign", "1", "train")], "names no image that can be used"),
        (HEADER[:4], [], "names no image that can be used"),
    ],
)
def test_what_is_no_split_is_bad_usage(
    drawn: tuple[Path, list[Row]], header: Row, rows: list[Row], reason: str
) -> None:
    folder, _ = drawn
    done = bcd("check-split", write(folder, rows, header))
    assert done.returncode == 2
    assert done.stdout == ""
    assert reason in done.stderr.splitlines()[-1]


def test_a_list_that_is_not_there() -> None:
    done = bcd("check-split", "nowhere.csv")
    assert done.returncode == 2
    assert "list nowhere.csv can't be read" in done.stderr


def test_in_python(drawn: tuple[Path, list[Row]]) -> None:
    folder, rows = drawn
    images, faults = read_split(write(folder, rows))
    assert faults == []
    measured = [one for one in measure_images(images) if not isinstance(one, str)]
    assert check_split(images, measured).is_clean
    with pytest.raises(InputError, match="no part alone"):
        check_split([], [])
