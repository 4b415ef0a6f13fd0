"""Sources to corpus: what is kept, what is left out and why, and that order does not matter."""

from __future__ import annotations

import gzip
import json
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bcd_models.errors import InputError
from tests.conftest import ROOT
from tests.support import synthetic
from tests.support.processes import running
from training import command
from training.corpus import build as corpus
from training.corpus import page as corpus_page
from training.corpus import splits
from training.corpus.sources import breakhis as breakhis_source
from training.corpus.sources import idc as idc_source
from training.corpus.sources.source import FOREIGN, Refused
from training.corpus.tiles import TOO_SMALL


def test_counts_and_rows(corpus_folder: Path) -> None:
    rows, about = corpus.load(corpus_folder)
    assert about["rows"] == len(rows) == 24 * 14 + 8
    assert about["skipped"] == {"not 50x50 pixels": 4, TOO_SMALL: 4}
    assert about["sources"]["idc"]["cases"] == 24
    assert about["sources"]["idc"]["full_set"]["labels"] == {"benign": 198738, "malignant": 78786}
    assert about["sources"]["breakhis"]["cases"] == 4
    assert about["sources"]["breakhis"]["magnifications"] == {"40X": {"images": 4, "rows": 8}}
    row = rows[0]
    assert row["image"].size == (50, 50)
    assert set(row) == set(corpus.row_features())
    assert set(rows["mpp"]) == {4.0}


def test_folder_and_archive_give_one_fingerprint(
    archives: dict[str, Path], corpus_folder: Path, tmp_path: Path
) -> None:
    unpacked = {name: tmp_path / name for name in archives}
    with zipfile.ZipFile(archives["idc"]) as archive:
        archive.extractall(unpacked["idc"])
    with tarfile.open(archives["breakhis"]) as archive:
        archive.extractall(unpacked["breakhis"], filter="data")
    reverse = dict(reversed(unpacked.items()))
    about = corpus.build({name: [path] for name, path in reverse.items()}, tmp_path / "corpus")
    _, before = corpus.load(corpus_folder)
    assert about["fingerprint"] == before["fingerprint"]
    for split in ("grouped.json", "random.json"):
        same = (tmp_path / "corpus" / split).read_bytes()
        assert same == (corpus_folder / split).read_bytes()


def test_images_are_kept_as_they_were(tmp_path: Path, corpus_folder: Path) -> None:
    files = synthetic.idc_tree(tmp_path / "tree", cases=2, patches_per_case=4, seed=8)
    corpus.build({"idc": [tmp_path / "tree"]}, tmp_path / "corpus", processes=1)
    rows, _ = corpus.load(tmp_path / "corpus")
    by_name = {row["name"].rpartition("/")[2]: row["image"] for row in rows}
    for file in files:
        assert np.array_equal(np.asarray(by_name[file.name]), np.asarray(Image.open(file)))


def tree(root: Path) -> Path:
    synthetic.idc_tree(root, cases=3, patches_per_case=6, seed=2)
    return root


def skipped(root: Path, out: Path) -> dict[str, int]:
    return corpus.build({"idc": [root]}, out, processes=1)["skipped"]


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
    assert reasons.pop(FOREIGN) == 1
    assert sum(count for reason, count in reasons.items() if reason.startswith("unreadable")) == 1


def test_same_pixels_under_both_labels_are_both_dropped(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    benign = min(root.rglob("*class0.png"))
    case = benign.parts[-3]
    shutil.copy(benign, benign.parent.parent / "1" / f"{case}_idx5_x9999_y9999_class1.png")
    before = len(list(root.rglob("*.png")))
    about = corpus.build({"idc": [root]}, tmp_path / "corpus", processes=1)
    assert about["rows"] == before - 2
    assert about["skipped"] == {corpus.CONTRADICTED: 2}


def hole(data: bytes) -> bytes:
    """A file whose middle never arrived."""
    half = len(data) // 2
    return data[:half] + bytes(2000) + data[half + 2000 :]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def other_header(packed: bytes) -> bytes:
    """A tar whose last headers no longer fit their checksums."""
    pieces = gzip.decompress(packed).split(b"ustar")
    return b"uztar".join([b"ustar".join(pieces[:7]), *pieces[7:]])


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("source", "spoil", "reason"),
    [
        ("idc", lambda _: b"", "neither a folder nor a zip or tar"),
        ("idc", lambda _: b"text", "neither a folder nor a zip or tar"),
        ("idc", half, "cut short: download it again"),
        ("idc", hole, "damaged or cut short"),
        ("breakhis", half, "damaged or cut short"),
        ("breakhis", hole, "damaged or cut short"),
        ("breakhis", lambda data: half(gzip.decompress(data)), "damaged or cut short"),
        ("breakhis", other_header, "damaged or cut short"),
    ],
)
def test_archives_that_cannot_be_read(
    archives: dict[str, Path], tmp_path: Path, source: str, spoil, reason: str, processes: int
) -> None:
    path = tmp_path / archives[source].name
    path.write_bytes(spoil(archives[source].read_bytes()))
    with pytest.raises(InputError, match=reason) as refusal:
        corpus.build({source: [path]}, tmp_path / "corpus", processes)
    assert str(path) in str(refusal.value)
    assert [p for p in tmp_path.iterdir() if p != path] == []


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    for problem, folder in (("no PNG", tmp_path / "empty"), ("no such", tmp_path / "none")):
        if problem == "no PNG":
            folder.mkdir()
        with pytest.raises(InputError, match=problem):
            corpus.build({"idc": [folder]}, tmp_path / "corpus", processes=1)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    Image.new("RGB", (50, 50)).save(foreign / "holiday.png")
    with pytest.raises(InputError, match=r"no usable image; 1 files.*holiday.png: not named"):
        corpus.build({"idc": [foreign]}, tmp_path / "corpus", processes=1)


def test_a_corpus_needs_both_labels_and_a_new_folder(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    for file in root.rglob("*class1.png"):
        file.unlink()
    with pytest.raises(InputError, match="no malignant image"):
        corpus.build({"idc": [root]}, tmp_path / "corpus", processes=1)
    with pytest.raises(InputError, match="never overwritten"):
        corpus.build({"idc": [root]}, root)


def test_command_says_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent, out = str(tmp_path / "none"), str(tmp_path / "c")
    with pytest.raises(SystemExit) as end:
        command.run(corpus.make_command(), ["--idc", absent, "--out", out])
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


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "tree")
    out = tmp_path / "corpus"

    def interrupted(parts: list[Path]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_merge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            corpus.build({"idc": [root]}, out, processes=1)
    assert not out.exists()
    kept = {f: f.stat().st_mtime_ns for f in (tmp_path / ".corpus.building").rglob("*.arrow")}
    assert len(kept) == corpus.CHUNKS
    next(iter(kept)).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_merge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            corpus.build({"idc": [root]}, out, processes=1)
    again = {f: f.stat().st_mtime_ns for f in kept}
    assert sum(again[f] != kept[f] for f in kept) == 1
    resumed = corpus.build({"idc": [root]}, out, processes=1)
    assert (
        resumed["fingerprint"]
        == corpus.build({"idc": [root]}, tmp_path / "o", processes=1)["fingerprint"]
    )
    assert not (tmp_path / ".corpus.building").exists()


def test_a_changed_folder_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "tree")
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_merge", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            corpus.build({"idc": [root]}, tmp_path / "corpus", processes=1)
    deep = min(root.rglob("*class0.png"))
    Image.new("RGB", (50, 50), "pink").save(deep)
    corpus.build({"idc": [root]}, tmp_path / "corpus", processes=1)
    rows, _ = corpus.load(tmp_path / "corpus")
    row = next(row for row in rows if row["name"].endswith(deep.name))
    assert row["image"].getpixel((0, 0)) == (255, 192, 203)


def command_line(
    *arguments: str | Path, most_bytes: int = -1
) -> AbstractContextManager[subprocess.Popen[str]]:
    """``training.corpus`` in a process that may write files of so many bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return running(
        [sys.executable, "-m", "training.corpus", *arguments],
        preexec_fn=limit,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.slow
@pytest.mark.parametrize("most_bytes", [20_000, 1_500_000])
def test_a_full_disk_loses_nothing(
    archives: dict[str, Path], corpus_folder: Path, tmp_path: Path, most_bytes: int
) -> None:
    """Full while a part is written, and full while the corpus is."""
    out = tmp_path / "corpus"
    arguments = ["--idc", archives["idc"], "--breakhis", archives["breakhis"], "--out", out]
    with command_line(*arguments, most_bytes=most_bytes) as cut:
        said = cut.communicate()[1].strip().splitlines()
    assert cut.returncode == 2
    assert re.fullmatch(r"error: .*corpus can't be written: .*run the same again", said[-1])
    assert not any("Traceback" in line for line in said)
    assert not out.exists()
    read = [f for f in tmp_path.rglob("*.arrow") if f.parent.name != corpus.READY]
    with command_line(*arguments) as again:
        printed, errors = again.communicate()
    assert again.returncode == 0, errors
    assert json.loads((corpus_folder / "corpus.json").read_text())["fingerprint"][:16] in printed
    assert len(read) == (33 if most_bytes > 10**6 else 0)
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


def test_a_killed_build_goes_on(archives: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    arguments = ["--idc", archives["idc"], "--out", out, "--processes", "2"]
    with command_line(*arguments) as begun:
        while len(list(tmp_path.rglob("*.arrow"))) < 3 and begun.poll() is None:
            time.sleep(0.002)
        with pytest.raises(InputError, match="being built by another process"):
            corpus.build({"idc": [archives["idc"]]}, out)
        begun.kill()
    assert not out.exists()
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.arrow")}
    about = corpus.build({"idc": [archives["idc"]]}, out)
    assert len(before) >= 3
    assert about["sources"]["idc"]["images"] == 24 * 14


def test_what_part_of_the_full_set_it_is(
    archives: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--idc", str(archives["idc"]), "--out", str(tmp_path / "c"), "--processes", "1"]
    with pytest.raises(SystemExit) as end:
        command.run(corpus.make_command(), arguments)
    assert not end.value.code
    # The four slivers are of the data set too: found, and then left out.
    said = "a part of the full set: 340 of the full set's 277,524 images (0.1%), 24 of 279 cases"
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "c" / "corpus.md").read_text()
    full = {"found": 7909, "cases": 82, "full_set": {"labels": {"b": 2480, "m": 5429}, "cases": 82}}
    assert corpus_page.describe_extent(full).startswith(
        "the full set: 7,909 of the full set's 7,909"
    )
    assert corpus_page.describe_extent(full | {"found": 7910}).startswith("more than the full set")


def breakhis_file(root: Path, name: str, colour: str) -> None:
    """A BreaKHis image of one colour in its official folder."""
    kind = {"B": "benign", "M": "malignant"}[name.split("_")[1]]
    path = root / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (140, 92), colour).save(path)


def test_a_patient_both_benign_and_malignant_is_refused(tmp_path: Path) -> None:
    breakhis_file(tmp_path, "SOB_B_A-14-22549AB-40-001.png", colour="pink")
    breakhis_file(tmp_path, "SOB_M_DC-14-22549CD-40-001.png", colour="plum")
    with pytest.raises(InputError, match="case breakhis/14-22549 is both benign and malignant"):
        corpus.build({"breakhis": [tmp_path]}, tmp_path / "corpus", processes=1)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.slow
def test_the_kaggle_archive_at_its_full_size(tmp_path: Path) -> None:
    """All 555,048 names and both counts, each patch one of few pictures for speed."""
    path = tmp_path / "idc.zip"
    expected = idc_source.IDC.expected
    labels = [label for label, count in enumerate(expected.values()) for _ in range(count)]
    with zipfile.ZipFile(path, "w") as archive:
        for i, label in enumerate(labels):
            case = 8863 + i % 279
            name = f"{case}/{label}/{case}_idx5_x{i}_y1_class{label}.png"
            for folder in ("", "IDC_regular_ps50_idx5/"):
                archive.writestr(zipfile.ZipInfo(folder + name), b"%d" % i)
    names: set[str] = set()
    for part in range(corpus.CHUNKS):
        found = list(idc_source.read(path, part, corpus.CHUNKS))
        assert len(found) == pytest.approx(len(labels) / corpus.CHUNKS, rel=0.05)
        names.update(image.name for image in found)
        assert all(image.data.decode() in image.name for image in found)
    assert len(names) == len(labels) == 277_524


@pytest.mark.real
def test_the_real_sample(real_sample: Path, tmp_path: Path) -> None:
    about = corpus.build(
        {
            "idc": [real_sample / "idc-sample.zip"],
            "breakhis": [real_sample / "breakhis-sample.tar.gz"],
        },
        tmp_path / "corpus",
    )
    assert about["sources"]["idc"]["images"] == 9767
    assert about["sources"]["idc"]["cases"] == 226
    assert about["sources"]["breakhis"]["found"] == 100
    assert about["sources"]["breakhis"]["labels"] == {"benign": 17, "malignant": 48}
    assert about["sources"]["breakhis"]["cases"] == 9  # six have images at 400X alone
    assert about["skipped"] == {"not 50x50 pixels": 84, TOO_SMALL: 35}
    grouped = json.loads((tmp_path / "corpus" / "grouped.json").read_text())
    assert grouped["only_trained_on"] == ["breakhis"]
    parts = [part for part, _ in grouped["units"].values()]
    for part, share in splits.SHARES.items():
        assert parts.count(part) / len(parts) == pytest.approx(share, abs=0.03)
