"""Large fields become tiles at the trained scale; older corpora, of whole images, still open."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bcd_models.config import HeldOut
from bcd_models.errors import InputError
from tests.support import small_runs, synthetic
from training.corpus import build as corpus
from training.corpus import splits
from training.corpus.selection import open_corpus, select_data
from training.corpus.sources.breakhis import BREAKHIS
from training.corpus.tiles import BLANK, TOO_SMALL
from training.recipes import schema as recipe

SIZE = 700, 460


def draw(zoom: int, seed: int, malignant: bool) -> Image.Image:
    """A field of the official size at its own scale."""
    mpp = BREAKHIS.mpp[f"{zoom}X"]
    return Image.fromarray(synthetic.tissue(seed, size=SIZE, mpp=mpp, malignant=malignant))


def save(root: Path, name: str, image: Image.Image) -> None:
    path = root / {"B": "benign", "M": "malignant"}[name.split("_")[1]] / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def build(root: Path, out: Path) -> tuple[dict[str, Image.Image], dict[str, int]]:
    """The tiles of a BreaKHis folder by name, and what was left out."""
    corpus.build({"breakhis": [root]}, out, processes=1)
    rows, about = corpus.load(out)
    assert about["sources"]["breakhis"]["rows"] == len(rows)
    return {row["name"]: row["image"] for row in rows}, about["skipped"]


def test_each_magnification_gives_its_tiles(tmp_path: Path) -> None:
    """Fields of 1,540, 616, 308 and 154 micrometres across; the last is too small."""
    whole = {zoom: draw(zoom, zoom, malignant=True) for zoom in (40, 100, 200, 400)}
    for zoom, image in whole.items():
        name = ("SOB_B_A-14-1", "SOB_M_DC-14-2")[zoom > 100]
        save(tmp_path / "in", f"{name}-{zoom}-001", image)
    tiles, skipped = build(tmp_path / "in", tmp_path / "corpus")
    assert skipped == {TOO_SMALL: 1}
    assert {tile.size for tile in tiles.values()} == {(50, 50)}
    counts = {zoom: sum(f"-{zoom}-" in name for name in tiles) for zoom in whole}
    assert counts == {40: 8 * 5, 100: 3 * 2, 200: 2, 400: 0}
    rows, about = corpus.load(tmp_path / "corpus")
    assert about["sources"]["breakhis"]["images"] == 3
    assert about["sources"]["breakhis"]["found"] == 4
    assert about["sources"]["breakhis"]["labels"] == {"benign": 2, "malignant": 1}
    assert about["sources"]["breakhis"]["label_rows"] == {"benign": 46, "malignant": 2}
    assert set(rows["case_id"]) == {"breakhis/14-1", "breakhis/14-2"}
    page = (tmp_path / "corpus" / "corpus.md").read_text()
    assert "| benign | 2 | 2,480 | 46 |" in page
    assert "| 40X | 1 | | 40 |" in page

    # 616 x 405 micrometres are 154 x 101 pixels, which three tiles by two fit but for a few.
    reduced = np.asarray(whole[100].resize((154, 101), Image.Resampling.BOX), int)
    first = np.asarray(tiles["SOB_B_A-14-1-100-001.png#r0c0"], int)
    assert np.abs(first - reduced[:50, 2:52]).mean() < 1.5


def test_tiles_of_glass_are_no_rows(tmp_path: Path) -> None:
    save(tmp_path / "in", "SOB_M_DC-14-2-100-001", draw(100, 1, malignant=True))
    half = draw(100, 2, malignant=False)
    half.paste("white", (0, 0, 350, 460))
    save(tmp_path / "in", "SOB_B_A-14-1-100-001", half)
    lamp = half.convert("RGB", (0.84, 0, 0, 0, 0, 0.89, 0, 0, 0, 0, 0.83, 0))  # as some images have
    save(tmp_path / "in", "SOB_B_F-14-3-100-001", lamp)
    save(tmp_path / "in", "SOB_B_A-14-1-100-002", Image.new("RGB", SIZE, "white"))
    tiles, skipped = build(tmp_path / "in", tmp_path / "corpus")
    assert skipped == {BLANK: 1}
    columns = {name[-1] for name in tiles if "SOB_B" in name}
    assert "0" not in columns
    assert "2" in columns
    by_lamp = {kind: [n[-5:] for n in tiles if f"SOB_B_{kind}" in n] for kind in "AF"}
    assert by_lamp["A"] == by_lamp["F"]


@pytest.mark.parametrize(
    ("twin", "kept", "reason"),
    [("SOB_M_LC-14-3", 2, corpus.REPEATED), ("SOB_B_F-14-3", 0, corpus.CONTRADICTED)],
)
def test_the_same_field_twice(tmp_path: Path, twin: str, kept: int, reason: str) -> None:
    save(tmp_path / "in", "SOB_B_A-14-1-200-001", draw(200, 1, malignant=False))
    save(tmp_path / "in", "SOB_M_DC-14-2-200-001", draw(200, 2, malignant=True))
    same = draw(200, 3, malignant=True)
    save(tmp_path / "in", "SOB_M_DC-14-3-200-001" if kept else "SOB_M_DC-14-4-200-001", same)
    save(tmp_path / "in", f"{twin}-200-002", same)
    tiles, skipped = build(tmp_path / "in", tmp_path / "corpus")
    assert len(tiles) == 4 + kept
    assert skipped == {reason: 2 if kept else 4}


def test_a_copy_that_was_a_jpeg_gives_nearly_the_same_tiles(tmp_path: Path) -> None:
    """Nearer than a tile is to what it was before any compression."""
    image = draw(100, 5, malignant=True)
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=90)
    copies = {"as-it-was": image, "through-jpeg": Image.open(packed)}
    found = {}
    for name, copy in copies.items():
        save(tmp_path / name, "SOB_M_DC-14-2-100-001", copy)
        save(tmp_path / name, "SOB_B_A-14-1-100-001", draw(100, 6, malignant=False))
        found[name], _ = build(tmp_path / name, tmp_path / f"{name}-corpus")
    name = "SOB_M_DC-14-2-100-001.png#r0c1"
    first, second = (np.asarray(tiles[name], int) for tiles in found.values())
    never = np.asarray(image.resize((154, 101), Image.Resampling.BOX), int)[:50, 52:102]
    assert np.abs(first - second).mean() < np.abs(first - never).mean() / 2


def test_an_older_corpus_opens(older_corpus: Path, tmp_path: Path) -> None:
    rows, about = corpus.load(older_corpus)
    table = splits.read_table(rows)
    assert corpus.compute_fingerprint(table) == about["fingerprint"]
    assert dict(table.groupby("magnification")["mpp"].unique().str[0]) == pytest.approx(
        {"": 4.0, "40X": 2.2, "100X": 0.88}
    )
    for kind in splits.KINDS:
        split = splits.read(older_corpus, rows, kind, about["fingerprint"])
        assert set(split.part) == set(splits.SHARES)
    folder = shutil.copytree(older_corpus, tmp_path / "corpus")
    plan = recipe.read(small_runs.write(tmp_path / "recipe.yaml"))
    data = select_data(open_corpus(folder, plan.split), plan, HeldOut())
    assert len(data.training.frame) + len(data.held_out.frame) < len(rows)
    assert list(folder.glob(".pixels-*"))


def test_another_magnification_is_foreign(tmp_path: Path) -> None:
    save(tmp_path / "in", "SOB_M_DC-14-2-150-001", draw(100, 1, malignant=True))
    with pytest.raises(InputError, match=r"no usable image; 1 files.*not named"):
        corpus.build({"breakhis": [tmp_path / "in"]}, tmp_path / "corpus", processes=1)
