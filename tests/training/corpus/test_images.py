"""Anybody's own labelled images, named by a CSV list, become a source of a corpus."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bcd_models.errors import ImageError, InputError
from bcd_models.images.image_list import COLUMNS
from bcd_models.images.scale import give_scale
from tests.support import synthetic
from training import command
from training.card import provenance
from training.corpus import build as corpus
from training.corpus import splits, tiles
from training.corpus.chunks import make_rows
from training.corpus.sources import get_source, images
from training.publish import dataset

HEADER = ("path", "label", "case", "source", "mpp", "split")
GOOD = ("a.png", "benign", "1", "clinic", "", "")


def draw(path: Path, seed: int, size: tuple[int, int] = (50, 50), mpp: float = 4.0) -> Path:
    pixels = synthetic.tissue(seed, size=size, mpp=mpp, malignant=bool(seed % 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, lines: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        command.run(corpus.make_command(), [*map(str, arguments), "--processes", "1"])
    return int(end.value.code or 0)


def test_a_list_is_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Patches and a field; a damaged, a repeated and an unscaled image; parts as stated."""
    parts, lines = list(splits.SHARES), []
    for seed in range(12):
        label, name = ("benign", "malignant")[seed % 2], f"in/p{seed}.png"
        draw(tmp_path / name, seed)
        lines.append((name, label, str(seed // 2), "clinic", "", parts[seed // 2 % 3]))
    field = draw(tmp_path / "field.png", 99, (300, 200), mpp=2.0)
    lines.append((str(field), "malignant", "field", "", "2", ""))
    draw(tmp_path / "unscaled.png", 98, (300, 200), mpp=2.0)
    lines.append(("unscaled.png", "malignant", "field", "", "", ""))
    shutil.copy(tmp_path / "in/p0.png", tmp_path / "again.png")
    lines.append(("again.png", "benign", "0", "clinic", "", ""))
    (tmp_path / "cut.png").write_bytes(field.read_bytes()[:200])
    lines.append(("cut.png", "benign", "0", "clinic", "", ""))
    out = tmp_path / "corpus"
    assert run("--images", write(tmp_path / "list.csv", lines), "--out", out) == 0
    assert "clinic: what was handed in: 12 images of 6 cases" in capsys.readouterr().out

    rows, about = corpus.load(out)
    table = splits.read_table(rows)
    counts = Counter(table["source"])
    assert counts == {"clinic": 12, "images": 3 * 2}
    assert {row["image"].size for row in rows} == {(50, 50)}
    reasons = dict(about["skipped"])
    assert reasons.pop(corpus.REPEATED) == 1
    assert reasons.pop(tiles.UNKNOWN_SCALE) == 1
    assert sum(count for reason, count in reasons.items() if reason.startswith("unreadable")) == 1
    assert corpus.compute_fingerprint(table) == about["fingerprint"]

    split = splits.read(out, rows, "grouped", about["fingerprint"])
    clinic = table["source"] == "clinic"
    expected = table["case_id"][clinic].str.removeprefix("clinic/").astype(int) % 3
    assert list(split.part[clinic]) == [parts[number] for number in expected]
    assert ((split.fold >= 0) == (split.part != "test"))[clinic].all()
    manifest = json.loads((out / "grouped.json").read_text())
    assert manifest["only_trained_on"] == ["images"]

    page = (out / "corpus.md").read_text()
    assert "## clinic: clinic" in page
    assert "as stated by whoever handed it in" in page
    assert "| benign | 6 | unknown |" in page
    (tmp_path / "published").mkdir()
    dataset.stage(out, tmp_path / "published", "org/name")
    card = (tmp_path / "published" / "README.md").read_text()
    assert "license:\n- other\n" in card
    assert "- Licence: as stated by whoever handed it in.\n" in card


def test_sources_of_several_lists_beside_a_public_one(tmp_path: Path) -> None:
    """The public source keeps its number, so that its part of the fingerprint stays."""
    root = tmp_path / "idc"
    synthetic.idc_tree(root, cases=3, patches_per_case=4, seed=2)
    first = write(
        tmp_path / "1.csv", [(draw(tmp_path / "a.png", 1).name, "malignant", "x")], COLUMNS
    )
    second = write(tmp_path / "2.csv", [(draw(tmp_path / "b.png", 2).name, "benign", "x")], COLUMNS)
    out = tmp_path / "corpus"
    assert run("--idc", root, "--images", first, "--images", second, "--out", out) == 0
    rows, about = corpus.load(out)
    assert {name: one["images"] for name, one in about["sources"].items()} == {
        "idc": 12,
        "images": 2,
    }
    assert rows.features["source"].names == ["idc", "breakhis", "images"]
    assert set(rows.filter(lambda row: row["source"] == 2)["case_id"]) == {"images/x"}


@pytest.mark.parametrize(
    ("lines", "header", "said"),
    [
        ([GOOD[:2]], HEADER[:2], "line 1: no column case"),
        ([GOOD, ("a.png", "tumour", *GOOD[2:])], HEADER, "line 3: label 'tumour'"),
        ([("", *GOOD[1:])], HEADER, "line 2: no path"),
        ([("none.png", *GOOD[1:])], HEADER, "line 2: .*none.png is missing"),
        ([(".", *GOOD[1:])], HEADER, "line 2: .* is no file"),
        ([("a" * 300, *GOOD[1:])], HEADER, "line 2: .* is missing"),
        ([(*GOOD[:2], " ", *GOOD[3:])], HEADER, "line 2: no case"),
        ([(*GOOD[:3], "IDC", "", "")], HEADER, "line 2: IDC is a data set"),
        ([(*GOOD[:3], "a/b", "", "")], HEADER, "line 2: source 'a/b'"),
        ([(*GOOD[:4], "0.5um", "")], HEADER, "line 2: mpp '0.5um'"),
        ([(*GOOD[:4], "250", "")], HEADER, "line 2: mpp '250'.*no microscope"),
        ([(*GOOD[:4], "nan", "")], HEADER, "line 2: mpp 'nan'"),
        ([(*GOOD[:5], "held-out")], HEADER, "line 2: split 'held-out'"),
        (
            [(*GOOD[:5], "train"), (*GOOD[:5], "test")],
            HEADER,
            "line 3: .* in test, and in train by",
        ),
        (
            [(*GOOD[:4], "0.5", ""), GOOD],
            HEADER,
            "line 3: a.png has no mpp, and mpp 0.5 by .*list.csv, line 2",
        ),
        ([(*GOOD, "more")], HEADER, "line 2: more cells than columns"),
        ([(*GOOD[:4], "0,5", "")], HEADER, "line 2: mpp '0,5'.*decimals with a point"),
        ([(";".join(GOOD),)], (";".join(HEADER),), "line 1: .*separate columns by commas"),
    ],
)
def test_bad_lists_are_refused_by_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lines: list[tuple[str, ...]],
    header: tuple[str, ...],
    said: str,
) -> None:
    draw(tmp_path / "a.png", 1)
    path = write(tmp_path / "list.csv", lines, header)
    assert run("--images", path, "--out", tmp_path / "corpus") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)
    assert str(path) in line
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "list.csv"}


@pytest.mark.parametrize(
    "data", [None, b"path,label,case\n", b"\xff\xfep\0a\0", b'path,label,case\n"a']
)
def test_lists_that_cannot_be_read(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "list.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=r"list.csv (can't be read|names no image)"):
        images.list_sources([path], ())


def test_a_pipe_is_no_list(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(InputError, match="no file"):
        images.list_sources([tmp_path / "list.csv"], ())


def test_images_at_a_known_scale_are_cut_as_the_library_does(tmp_path: Path) -> None:
    field = draw(tmp_path / "field.png", 3, (300, 205), mpp=2.0)
    with Image.open(field) as image:
        glass = Image.new("RGB", image.size, "white")
        glass.paste(image.crop((100, 0, 300, 205)), (100, 0))
        cut = tiles.cut_rows(glass, give_scale(2.0))
    assert [(tile.row, tile.column) for tile in cut] == [(r, c) for r in (0, 1) for c in (1, 2)]
    reduced = np.asarray(glass.resize((150, 102), Image.Resampling.BOX))
    assert np.array_equal(cut[0].pixels, reduced[1:51, 50:100])


@pytest.mark.parametrize(
    ("size", "mpp", "reason"),
    [
        ((300, 200), None, tiles.UNKNOWN_SCALE),
        ((300, 200), 0.25, tiles.TOO_SMALL),
        ((300, 200), 8.0, tiles.TOO_COARSE),
        ((300, 200), 4.0, tiles.BLANK),
    ],
)
def test_images_that_give_no_row(size: tuple[int, int], mpp: float | None, reason: str) -> None:
    with pytest.raises(ImageError) as refusal:
        tiles.cut_rows(Image.new("RGB", size, "white"), give_scale(mpp) if mpp else None)
    assert str(refusal.value) == reason


@pytest.mark.parametrize("side", [40, 50, 60])
def test_an_image_of_the_patches_size_is_one_row(side: int) -> None:
    image = Image.fromarray(synthetic.tissue(1, size=(side, side), mpp=4.0, malignant=True))
    (tile,) = tiles.cut_rows(image, None)
    assert tile.pixels.shape == (50, 50, 3)


def test_the_scale_of_the_files_metadata(tmp_path: Path) -> None:
    pixels = synthetic.tissue(1, size=(200, 200), mpp=2.0, malignant=True)
    Image.fromarray(pixels).save(tmp_path / "a.tif", resolution=5000, resolution_unit=3)
    path = write(tmp_path / "list.csv", [("a.tif", "malignant", "1")], COLUMNS)
    source = images.describe("images")
    rows = (row for one in source.read(path, 0, 1) for row in make_rows(source, one))
    found = [row["name"] for row in rows]
    assert found == [f"a.tif#r{row}c{column}" for row in (0, 1) for column in (0, 1)]


def test_a_changed_image_is_read_again(tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png", 1)
    path = write(tmp_path / "list.csv", [("a.png", "malignant", "1")], COLUMNS)
    before = images.stamp(path)
    draw(image, 7)
    assert images.stamp(path) != before


def test_cards_name_images_handed_in() -> None:
    assert provenance.name_source("clinic") == get_source("clinic").title == "clinic"
