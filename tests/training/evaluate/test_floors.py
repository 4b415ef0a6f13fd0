"""What colour alone says, out of fold, and how runs are set beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training import command
from training.corpus import build as corpus
from training.corpus import predictions, splits
from training.corpus.pixels import select_rows
from training.evaluate import floors


@pytest.fixture(scope="module")
def floor(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("floor") / "floor"
    with pytest.raises(SystemExit) as end:
        command.run(floors.main, ["--corpus", str(corpus_folder), "--out", str(out)])
    assert end.value.code == 0
    return out


def test_each_fold_is_predicted_from_the_others(floor: Path, corpus_folder: Path) -> None:
    said = predictions.read(floor / "predictions.parquet").set_index("sha256")
    rows, about = corpus.load(corpus_folder)
    split = splits.read(corpus_folder, rows, "grouped", about["fingerprint"])
    table = splits.read_table(rows)
    assert set(said.index) == set(table["sha256"][split.fold >= 0])
    assert not set(said.index) & set(table["sha256"][split.part == "test"])
    held = np.flatnonzero(split.fold == 1)
    others = np.flatnonzero((split.part != "test") & (split.fold != 1))
    learnt, asked = (select_rows(rows, table, part, floors.SIZE) for part in (others, held))
    by_hand = floors.predict_by_colour(learnt, asked)
    assert said.loc[asked.frame["sha256"], "probability"].to_numpy() == pytest.approx(by_hand)


def test_synthetic_tissue_is_told_by_its_colour(floor: Path) -> None:
    said = predictions.read(floor / "predictions.parquet")
    assert roc_auc_score(said["label"] == "malignant", said["margin"]) > 0.9
