"""A case stays in one part, wherever it is and whatever comes beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bcd_models.errors import InputError
from training.corpus import build as corpus
from training.corpus import splits


def frame(cases: dict[str, int]) -> pd.DataFrame:
    """A table of so many images of each case, labels in turn."""
    lines = [
        {
            "source": case.split("/")[0],
            "case_id": case,
            "label": ("benign", "malignant")[i % 2],
            "name": f"{case}/{i}.png",
            "sha256": f"{case}#{i}",
        }
        for case, images in cases.items()
        for i in range(images)
    ]
    return pd.DataFrame(lines)


GOLDEN = [("train", 1), ("train", 1), ("train", 0), ("train", 4), ("train", 1)]
CASES = st.dictionaries(
    st.integers(0, 10**6).map("idc/{}".format), st.integers(2, 5), min_size=20, max_size=60
)


@given(CASES, CASES)
@settings(max_examples=40, deadline=None)
def test_adding_cases_moves_no_other(some: dict[str, int], more: dict[str, int]) -> None:
    before = splits.make_manifest(frame(some), "grouped", "f")["units"]
    after = splits.make_manifest(frame(some | more), "grouped", "f")["units"]
    assert all(after[case] == where for case, where in before.items())
    assert set(before) == set(some)


def test_folds_cover_what_is_not_test() -> None:
    placed = [splits.place(f"idc/{i}") for i in range(3000)]
    for part, share in splits.SHARES.items():
        assert sum(p == part for p, _ in placed) / 3000 == pytest.approx(share, abs=0.03)
    assert all((fold == -1) == (part == "test") for part, fold in placed)
    for fold in range(splits.FOLDS):
        assert sum(f == fold for _, f in placed) / 3000 == pytest.approx(0.17, abs=0.03)


def test_placement_never_changes() -> None:
    """Golden values: these may never move, published figures rest on them."""
    assert [splits.place(f"idc/{case}") for case in (8863, 9383, 10253, 12930, 16896)] == GOLDEN


def test_small_sources_are_only_trained_on() -> None:
    table = frame({f"idc/{i}": 4 for i in range(30)} | {f"breakhis/{i}": 4 for i in range(5)})
    manifest = splits.make_manifest(table, "grouped", "f")
    assert manifest["only_trained_on"] == ["breakhis"]
    assert all(manifest["units"][f"breakhis/{i}"] == ("train", -1) for i in range(5))
    everywhere = splits.make_manifest(table, "random", "f")
    assert everywhere["only_trained_on"] == []
    assert len(everywhere["units"]) == len(table)


def test_tiles_of_an_image_stay_together_in_the_random_split() -> None:
    """Other rows are placed by their pixels, as they were before there were tiles."""
    table = frame({f"idc/{i}": 40 for i in range(20)})
    tiled = table["case_id"].str[-1] == "3"
    number = table.groupby("case_id").cumcount()
    names = [f"{i // 8}.png#r{i % 2}c{i % 8 // 2}" for i in number]
    table["name"] = (table["case_id"] + "/" + pd.Series(names)).where(tiled, table["name"])
    units = splits.make_manifest(table, "random", "f")["units"]
    placed = table["sha256"].map(units)
    by_image = placed[tiled].groupby(table["case_id"] + (number // 8).astype(str))
    assert (by_image.nunique() == 1).all()
    assert placed[tiled].nunique() > 1
    assert all(units[pixels] == splits.place(pixels) for pixels in table["sha256"][~tiled])


def test_manifests_are_checked(corpus_folder: Path, tmp_path: Path) -> None:
    rows, about = corpus.load(corpus_folder)
    for kind in ("grouped", "random"):
        split = splits.read(corpus_folder, rows, kind, about["fingerprint"])
        assert set(split.part) == set(splits.SHARES)
    with pytest.raises(InputError, match="another corpus"):
        splits.read(corpus_folder, rows, "grouped", "elsewhere")
    with pytest.raises(InputError, match="no split 'sideways'"):
        splits.read(corpus_folder, rows, "sideways", about["fingerprint"])


def unplaced(text: str, case: str) -> str:
    document = json.loads(text)
    del document["units"][case]
    return json.dumps(document)


def twice(text: str, case: str) -> str:
    return text.replace('"units": {', f'"units": {{"{case}": ["test", -1],', 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (unplaced, "does not place idc/"),
        (twice, "places idc/[0-9]+ twice"),
        (lambda text, _: text.replace('"train"', '"trains"', 1), "in no known part and fold"),
        (lambda text, _: text[:200], "is no split manifest"),
        (lambda *_: "[]", "is no split manifest"),
    ],
)
def test_spoilt_manifests_are_refused(
    corpus_folder: Path, tmp_path: Path, change, reason: str
) -> None:
    rows, about = corpus.load(corpus_folder)
    path = tmp_path / "grouped.json"
    case = next(row["case_id"] for row in rows if row["case_id"].startswith("idc"))
    path.write_text(change((corpus_folder / "grouped.json").read_text(), case))
    with pytest.raises(InputError, match=reason):
        splits.read(tmp_path, rows, "grouped", about["fingerprint"])


@given(CASES, st.sampled_from(["grouped", "random"]))
@settings(max_examples=40, deadline=None)
def test_no_unit_is_in_two_parts(cases: dict[str, int], kind: str) -> None:
    table = frame(cases)
    placed = splits.make_manifest(table, kind, "f")["units"]
    units = table["case_id" if kind == "grouped" else "sha256"]
    assert set(placed) == set(units)
    assert all((fold == -1) == (part == "test") for part, fold in placed.values())
    by_case = units.map(placed).str[0].groupby(table["case_id"]).nunique()
    assert kind == "random" or (by_case == 1).all()


@given(st.integers(0, 10**9), st.sampled_from(["grouped", "random"]))
@settings(max_examples=15, deadline=None)
def test_parts_hold_like_shares_of_both_labels(first: int, kind: str) -> None:
    """Ids decide alone, so shares vary as drawn lots do: five standard deviations are allowed."""
    table = frame({f"idc/{first + i}": 4 for i in range(500)})
    placed = splits.make_manifest(table, kind, "f")["units"]
    part = table["case_id" if kind == "grouped" else "sha256"].map(placed).str[0]
    for name, share in splits.SHARES.items():
        for label in ("benign", "malignant"):
            found = (part[table["label"] == label] == name).mean()
            assert abs(found - share) < 5 * (share * (1 - share) / 500) ** 0.5


def test_neighbouring_case_ids_share_a_fold(corpus_folder: Path) -> None:
    numbers = (8863, 8864, 8865, 8867, 9022, 9100, 9101, 9202, 9302, 9303, 9404, 9504)
    table = frame({f"idc/{number}": 4 for number in numbers} | {"breakhis/14-8866": 4})
    grouped = splits.make_manifest(table, "grouped", "f")
    grouped["units"] |= {case: ("train", 0) for case in grouped["units"] if "14-" not in case}
    placed = splits.fold_neighbours(table, grouped)["units"]
    folds = {case: fold for case, (_, fold) in placed.items()}
    assert folds["idc/8863"] == folds["idc/8864"] == folds["idc/8865"]
    assert folds["idc/9100"] == folds["idc/9101"]
    assert folds["idc/9302"] == folds["idc/9303"]
    images = table["case_id"].map(folds)[table["source"] == "idc"].value_counts()
    assert len(images) == splits.FOLDS
    assert images.max() - images.min() <= 3 * 4
    assert placed["breakhis/14-8866"] == grouped["units"]["breakhis/14-8866"]


def test_neighbours_have_the_parts_of_the_grouped_split(corpus_folder: Path) -> None:
    rows, about = corpus.load(corpus_folder)
    grouped, near = (
        splits.read(corpus_folder, rows, kind, about["fingerprint"])
        for kind in ("grouped", "neighbours")
    )
    assert near.part.equals(grouped.part)
    assert (near.fold < 0).equals(grouped.fold < 0)


def test_manifests_of_a_fixed_tree_never_change(tmp_path: Path) -> None:
    """Byte for byte: published figures name a manifest by its hash."""
    for case in range(8863, 8893):
        for label in (0, 1):
            path = tmp_path / f"idc/{case}/{label}/{case}_idx5_x1_y1_class{label}.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (50, 50), (case % 256, 100 * label, 7)).save(path)
    for patient in range(4):
        name = f"SOB_{'BM'[patient % 2]}_{('A', 'DC')[patient % 2]}-14-{patient}AB-40-001.png"
        path = tmp_path / "breakhis" / ("benign", "malignant")[patient % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (140, 92), (200, 90 + 20 * patient, 180)).save(path)
    sources = {name: [tmp_path / name] for name in ("idc", "breakhis")}
    corpus.build(sources, tmp_path / "corpus", processes=1)
    for kind in ("grouped", "neighbours", "random"):
        made = (tmp_path / "corpus" / f"{kind}.json").read_text()
        assert made == (Path(__file__).with_name("golden") / f"{kind}.json").read_text()
