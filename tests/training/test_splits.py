"""A case stays in one part, wherever it is and whatever comes beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcd_models.errors import InputError
from training import corpus, splits


def frame(cases: dict[str, int]) -> pd.DataFrame:
    """A table of so many images of each case, labels in turn."""
    lines = [
        {
            "source": case.split("/")[0],
            "case_id": case,
            "label": ("benign", "malignant")[i % 2],
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
    before = splits.manifest(frame(some), "grouped", "f")["units"]
    after = splits.manifest(frame(some | more), "grouped", "f")["units"]
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
    manifest = splits.manifest(table, "grouped", "f")
    assert manifest["only_trained_on"] == ["breakhis"]
    assert all(manifest["units"][f"breakhis/{i}"] == ["train", -1] for i in range(5))
    everywhere = splits.manifest(table, "random", "f")
    assert everywhere["only_trained_on"] == []
    assert len(everywhere["units"]) == len(table)


def test_manifests_are_checked(corpus_folder: Path, tmp_path: Path) -> None:
    rows, about = corpus.load(corpus_folder)
    for kind in ("grouped", "random"):
        split = splits.read(corpus_folder, rows, kind, about["fingerprint"])
        assert set(split.part) == set(splits.SHARES)
    with pytest.raises(InputError, match="another corpus"):
        splits.read(corpus_folder, rows, "grouped", "elsewhere")
    with pytest.raises(InputError, match="no split 'sideways'"):
        splits.read(corpus_folder, rows, "sideways", about["fingerprint"])
    shutil.copytree(corpus_folder, tmp_path / "copy")
    path = tmp_path / "copy" / "grouped.json"
    manifest = json.loads(path.read_text())
    del manifest["units"][rows[50]["case_id"]]
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="does not place"):
        splits.read(tmp_path / "copy", rows, "grouped", about["fingerprint"])
