"""A data source is one entry of the registry; several folders and archives of it are one source."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image as Picture

from bcd_models.errors import InputError
from tests.support import synthetic
from training import command
from training.corpus import build as corpus
from training.corpus import splits
from training.corpus.sources import SOURCES
from training.corpus.sources.files import list_png_files
from training.corpus.sources.source import Image, Refused, Source
from training.publish import dataset


def read_biopsies(path: Path, chunk: int = 0, chunks: int = 1) -> Iterator[Image | Refused]:
    """PNG files named ``<case>-<label>-<number>.png``."""
    for name, content in list_png_files(path, chunk, chunks):
        case, label, _ = name.rpartition("/")[2].split("-")
        yield Image(name, content(), label, f"biopsies/{case}")


BIOPSIES = Source(
    name="biopsies",
    short="Biopsies",
    title="Biopsies of one clinic",
    licence="CC-BY-SA-4.0",
    citation="Nobody, A Data Set, 2026",
    url="https://biopsies.example",
    expected={"benign": 24, "malignant": 24},
    expected_cases=12,
    labels_mean="what was reported",
    case_is="a biopsy: a patient may have had several",
    caution="",
    one_label_a_case=False,
    size=None,
    mpp={"": 4.0},
    jpeg_quality=None,
    is_by_camera=False,
    read=read_biopsies,
)


def draw_biopsies(folder: Path) -> Path:
    folder.mkdir()
    for number in range(48):
        label = ("benign", "malignant")[number // 12 % 2]
        colour = (200, number, 200)
        Picture.new("RGB", (40, 40), colour).save(folder / f"{number % 12}-{label}-{number}.png")
    return folder


def run_command(*arguments: str | Path) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        command.run(corpus.make_command(), list(map(str, arguments)))
    return end.value.code


def test_one_entry_makes_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    biopsies, out = draw_biopsies(tmp_path / "biopsies"), tmp_path / "corpus"
    assert run_command("--biopsies", biopsies, "--out", out) == 2, "not registered yet"
    monkeypatch.setitem(SOURCES, "biopsies", BIOPSIES)
    assert not run_command("--help")
    assert "--biopsies" in capsys.readouterr().out
    idc = synthetic.idc_zip(tmp_path / "idc.zip", cases=12, patches_per_case=6, seed=3)
    paths = ["--idc", idc, "--biopsies", biopsies]
    assert not run_command(*paths, "--out", out, "--processes", "1")
    assert "biopsies: the full set: 48 of the full set's 48 images" in capsys.readouterr().out
    page = (out / "corpus.md").read_text()
    assert f"## biopsies: {BIOPSIES.title}" in page
    assert BIOPSIES.licence in page
    assert (out / "biopsies-malignant.png").is_file()
    rows, about = corpus.load(out)
    assert about["sources"]["biopsies"]["images"] == 48
    for kind in ("grouped", "random"):
        split = splits.read(out, rows, kind, about["fingerprint"])
        parts = split.part[splits.read_table(rows)["source"] == "biopsies"]
        assert set(parts) == set(splits.SHARES)
    (tmp_path / "published").mkdir()
    dataset.stage(out, tmp_path / "published", "org/name")
    card = (tmp_path / "published" / "README.md").read_text()
    for said in (BIOPSIES.title, BIOPSIES.citation, BIOPSIES.case_is, "cc-by-sa-4.0"):
        assert said in card


def test_several_paths_are_one_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half in a folder, half in an archive, one image in both: found by its pixels."""
    whole = tmp_path / "whole"
    files = synthetic.idc_tree(whole, cases=6, patches_per_case=8, seed=5)
    first = tmp_path / "first"
    with zipfile.ZipFile(tmp_path / "second.zip", "w") as second:
        for number, file in enumerate(files):
            name = file.relative_to(whole)
            if number % 2 or number == 0:
                second.write(file, name)
            if number % 2 == 0:
                (first / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, first / name)
    about = corpus.build({"idc": [whole]}, tmp_path / "of-one", processes=1)
    for number, order in enumerate(([first, second.filename], [second.filename, first])):
        out = tmp_path / f"of-two-{number}"
        paths = [word for path in order for word in ("--idc", path)]
        assert not run_command(*paths, "--out", out, "--processes", "1")
        both = json.loads((out / corpus.ABOUT).read_text())
        assert both["fingerprint"] == about["fingerprint"]
        assert both["skipped"] == {corpus.REPEATED: 1}
        assert f"skipped 1: {corpus.REPEATED}" in capsys.readouterr().out


def test_each_of_several_paths_is_checked(tmp_path: Path) -> None:
    good = tmp_path / "good"
    synthetic.idc_tree(good, cases=2, patches_per_case=4, seed=5)
    with pytest.raises(InputError, match=r"no such folder or archive: .*absent"):
        corpus.build({"idc": [good, tmp_path / "absent"]}, tmp_path / "corpus", processes=1)


def test_another_second_path_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of an interrupted build are those of its own paths, each by its own stamp."""
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    for seed, folder in enumerate((first, second, other)):
        synthetic.idc_tree(folder, cases=2, patches_per_case=4, seed=seed)
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_merge", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            corpus.build({"idc": [first, second]}, tmp_path / "corpus", processes=1)
    kept = list((tmp_path / ".corpus.building").rglob("*.arrow"))
    assert len(kept) == 2 * corpus.CHUNKS
    again = corpus.build({"idc": [first, other]}, tmp_path / "corpus", processes=1)
    direct = corpus.build({"idc": [first, other]}, tmp_path / "direct", processes=1)
    assert again["fingerprint"] == direct["fingerprint"]
