"""Sources to corpus: what is kept, what is left out and why, and that order does not matter."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bcd_models.errors import InputError
from tests.support import synthetic
from training import command, corpus, splits
from training.sources import Refused
from training.sources import breakhis as breakhis_source
from training.sources import idc as idc_source


def test_counts_and_rows(corpus_folder: Path) -> None:
    rows, about = corpus.load(corpus_folder)
    assert about["rows"] == len(rows) == 24 * 14 + 8
    assert about["skipped"] == {"not 50x50 pixels": 4}
    assert about["sources"]["idc"]["cases"] == 24
    assert about["sources"]["idc"]["full_set"]["labels"] == {"benign": 198738, "malignant": 78786}
    assert about["sources"]["breakhis"]["cases"] == 4
    row = rows[0]
    assert row["image"].size == (140, 92)
    assert set(row) == set(corpus.FEATURES)


def test_folder_and_archive_give_one_fingerprint(
    archives: dict[str, Path], corpus_folder: Path, tmp_path: Path
) -> None:
    unpacked = {name: tmp_path / name for name in archives}
    with zipfile.ZipFile(archives["idc"]) as archive:
        archive.extractall(unpacked["idc"])
    with tarfile.open(archives["breakhis"]) as archive:
        archive.extractall(unpacked["breakhis"], filter="data")
    reverse = dict(reversed(unpacked.items()))
    about = corpus.build(reverse, tmp_path / "corpus")
    _, before = corpus.load(corpus_folder)
    assert about["fingerprint"] == before["fingerprint"]
    for split in ("grouped.json", "random.json"):
        same = (tmp_path / "corpus" / split).read_bytes()
        assert same == (corpus_folder / split).read_bytes()


def test_images_are_kept_as_they_were(tmp_path: Path, corpus_folder: Path) -> None:
    files = synthetic.idc_tree(tmp_path / "tree", cases=2, patches_per_case=4, seed=8)
    corpus.build({"idc": tmp_path / "tree"}, tmp_path / "corpus", processes=1)
    rows, _ = corpus.load(tmp_path / "corpus")
    by_name = {row["name"].rpartition("/")[2]: row["image"] for row in rows}
    for file in files:
        assert np.array_equal(np.asarray(by_name[file.name]), np.asarray(Image.open(file)))


def tree(root: Path) -> Path:
    synthetic.idc_tree(root, cases=3, patches_per_case=6, seed=2)
    return root


def skipped(root: Path, out: Path) -> dict[str, int]:
    return corpus.build({"idc": root}, out, processes=1)["skipped"]


def test_damaged_and_mislabelled_files_are_listed(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    first, second, third, fourth = sorted(root.rglob("*class0.png"))[:4]
    first.write_bytes(first.read_bytes()[:80])
    shutil.move(second, second.parent.parent / "1" / second.name)
    shutil.copy(third, third.with_name("picture.png"))
    case = fourth.parts[-3]
    shutil.copy(fourth, fourth.with_name(f"{case}_idx5_x9999_y9999_class0.png"))
    reasons = skipped(root, tmp_path / "corpus")
    assert reasons.pop("same pixels as another image") == 1
    assert reasons.pop("folder and file name disagree on case or class") == 1
    assert sum(count for reason, count in reasons.items() if reason.startswith("name is not")) == 1
    assert sum(count for reason, count in reasons.items() if reason.startswith("unreadable")) == 1


def test_same_pixels_under_both_labels_are_both_dropped(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    benign = min(root.rglob("*class0.png"))
    case = benign.parts[-3]
    shutil.copy(benign, benign.parent.parent / "1" / f"{case}_idx5_x9999_y9999_class1.png")
    before = len(list(root.rglob("*.png")))
    about = corpus.build({"idc": root}, tmp_path / "corpus", processes=1)
    assert about["rows"] == before - 2
    assert about["skipped"] == {corpus.CONTRADICTED: 2}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "no such folder or archive"),
        (lambda path: path.write_bytes(path.read_bytes()[:4000]), "damaged|neither a folder"),
        (lambda path: path.write_text("text"), "neither a folder nor a zip or tar"),
    ],
)
def test_archives_that_cannot_be_read(tmp_path: Path, spoil, reason: str) -> None:
    path = synthetic.idc_zip(tmp_path / "idc.zip", cases=2, patches_per_case=4)
    spoil(path)
    with pytest.raises(Exception, match=reason):
        corpus.build({"idc": path}, tmp_path / "corpus", processes=1)
    assert not (tmp_path / "corpus").exists()
    assert [p for p in tmp_path.iterdir() if p != path] == []


def test_a_corpus_needs_both_labels_and_a_new_folder(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    for file in root.rglob("*class1.png"):
        file.unlink()
    with pytest.raises(InputError, match="no malignant image"):
        corpus.build({"idc": root}, tmp_path / "corpus", processes=1)
    with pytest.raises(InputError, match="never overwritten"):
        corpus.build({"idc": root}, root)


def test_command_says_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.run(corpus.main, ["--idc", str(tmp_path / "none"), "--out", str(tmp_path / "c")])
    assert end.value.code == 2
    assert "no such folder or archive" in capsys.readouterr().err


def test_breakhis_blocks_are_one_case(tmp_path: Path) -> None:
    synthetic.breakhis_tree(tmp_path, patients_per_class=2, images_per_patient=4, size=(70, 46))
    found = list(breakhis_source.read(tmp_path))
    assert not any(isinstance(image, Refused) for image in found)
    slides = {image.name.split("-")[2] for image in found}
    assert any(slide.isdigit() for slide in slides)
    assert any(not slide.isdigit() for slide in slides)
    assert len({image.case_id for image in found}) == 4


def test_the_page_shows_what_is_there(corpus_folder: Path) -> None:
    page = (corpus_folder / "corpus.md").read_text()
    about = json.loads((corpus_folder / "corpus.json").read_text())
    for source in about["sources"].values():
        assert all(f"| {label} | {count:,} |" in page for label, count in source["labels"].items())
    assert "| not 50x50 pixels | 4 |" in page
    for sheet in ("idc-benign", "idc-malignant", "breakhis-benign", "breakhis-malignant"):
        with Image.open(corpus_folder / f"{sheet}.png") as image:
            assert image.size == (768, 384)
            assert np.asarray(image.convert("RGB")).std() > 10


def test_kaggle_twins_are_read_once(archives: dict[str, Path]) -> None:
    names = [image.name for image in idc_source.read(archives["idc"])]
    assert len(names) == len(set(names)) == 24 * 14 + 4


@pytest.mark.real
def test_the_real_sample(real_sample: Path, tmp_path: Path) -> None:
    about = corpus.build(
        {
            "idc": real_sample / "idc-sample.zip",
            "breakhis": real_sample / "breakhis-sample.tar.gz",
        },
        tmp_path / "corpus",
    )
    assert about["sources"]["idc"]["images"] == 9767
    assert about["sources"]["idc"]["cases"] == 226
    assert about["sources"]["breakhis"]["labels"] == {"benign": 23, "malignant": 77}
    assert about["sources"]["breakhis"]["cases"] == 15
    assert about["skipped"] == {"not 50x50 pixels": 84}
    grouped = json.loads((tmp_path / "corpus" / "grouped.json").read_text())
    assert grouped["only_trained_on"] == ["breakhis"]
    parts = [part for part, _ in grouped["units"].values()]
    for part, share in splits.SHARES.items():
        assert parts.count(part) / len(parts) == pytest.approx(share, abs=0.03)


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "tree")
    out = tmp_path / "corpus"

    def interrupted(parts: list[Path]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_merge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            corpus.build({"idc": root}, out, processes=1)
    assert not out.exists()
    kept = {f: f.stat().st_mtime_ns for f in (tmp_path / ".corpus.building").rglob("*.arrow")}
    assert len(kept) == corpus.PARTS
    next(iter(kept)).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_merge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            corpus.build({"idc": root}, out, processes=1)
    again = {f: f.stat().st_mtime_ns for f in kept}
    assert sum(again[f] != kept[f] for f in kept) == 1
    resumed = corpus.build({"idc": root}, out, processes=1)
    assert (
        resumed["fingerprint"]
        == corpus.build({"idc": root}, tmp_path / "o", processes=1)["fingerprint"]
    )
    assert not (tmp_path / ".corpus.building").exists()
