"""Teachers of a run: what they have learnt from, what they say, and how a cut off call goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bcd_models.config import HeldOut
from bcd_models.errors import InputError
from tests.support import small_runs
from training import command
from training.corpus import build as corpus
from training.corpus import predictions, splits
from training.corpus.pixels import Rows
from training.corpus.selection import open_data
from training.evaluate import floors
from training.recipes.schema import read
from training.train import engine, teach

FOLD = 1
SHORT = [{"size": 32, "epochs": 1, "learning_rate": 0.002}]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "taught.yaml"
    return small_runs.write(path, phases=SHORT, ema=0.0, teachers=0.5)


@pytest.fixture(scope="module")
def learnt() -> list[set[str]]:
    """Cases that each network was trained on, as the calls below leave them."""
    return []


def noted(learnt: list[set[str]]) -> Callable[..., Any]:
    fit = engine.fit

    def noting(network: Any, plan: Any, preprocess: Any, rows: Rows, *others: Any) -> Any:
        learnt.append(set(rows.frame["case_id"]))
        return fit(network, plan, preprocess, rows, *others)

    return noting


@pytest.fixture(scope="module")
def teachers(
    config: Path, corpus_folder: Path, learnt: list[set[str]], tmp_path_factory: Any
) -> Path:
    out = tmp_path_factory.mktemp("teachers") / "of-fold"
    asked = [*small_runs.arguments(config, corpus_folder, out), "--fold", str(FOLD)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teach.engine, "fit", noted(learnt))
        with pytest.raises(SystemExit) as end:
            command.run(teach.main, asked)
    assert end.value.code == 0
    return out


def test_no_teacher_has_seen_a_case_it_speaks_of_nor_what_the_run_holds_out(
    teachers: Path, corpus_folder: Path, learnt: list[set[str]]
) -> None:
    said = predictions.read(teachers / "predictions.parquet")
    rows, about = corpus.load(corpus_folder)
    split = splits.read(corpus_folder, rows, "grouped", about["fingerprint"])
    table = splits.read_table(rows)
    hidden = (split.fold == FOLD) | (split.part == "test")
    assert set(said["sha256"]) == set(table["sha256"][(split.fold >= 0) & ~hidden])
    assert len(learnt) == 4
    for seen in learnt:
        assert not seen & set(table["case_id"][hidden])
    unseen = [set(table["case_id"][~hidden & (split.fold >= 0)]) - seen for seen in learnt]
    assert sum(map(len, unseen)) == said["case_id"].nunique()  # each case is one network's to say
    assert set.union(*unseen) == set(said["case_id"])


def test_they_say_the_mean_of_network_and_colour_both_calibrated(
    teachers: Path, config: Path, corpus_folder: Path
) -> None:
    said = predictions.read(teachers / "predictions.parquet")
    plan = read(config)
    known = open_data(corpus_folder, plan, HeldOut(fold=FOLD)).training
    fold = known.frame["fold"].to_numpy()
    networks = np.full(len(fold), np.nan)
    for one in (0, 2, 3, 4):
        networks[fold == one] = np.load(teachers / f"fold-{one}.npy")
    placed = fold >= 0
    colour = floors.log_odds(floors.predict_across_folds(known, fold)[placed])
    frame = known.where(placed).frame
    expected = [
        teach.calibrate(margins, teach.fit_decision_rule(frame, margins, plan))
        for margins in (networks[placed], colour)
    ]
    assert said["probability"].to_numpy() == pytest.approx(np.mean(expected, axis=0))
    truth = said["label"] == "malignant"
    assert roc_auc_score(truth, said["probability"]) > 0.9  # synthetic tissue, by its colour
    assert abs(said["probability"].mean() - truth.mean()) < 0.05


def test_a_call_that_was_cut_off_trains_what_is_missing_alone(
    teachers: Path, config: Path, corpus_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    again = shutil.copytree(teachers, tmp_path / "again")
    for lost in ("predictions.parquet", "fold-2.npy"):
        (again / lost).unlink()
    trained: list[set[str]] = []
    monkeypatch.setattr(teach.engine, "fit", noted(trained))
    teach.teach(config, corpus_folder, again, held=HeldOut(fold=FOLD))
    assert len(trained) == 1
    first, other = (predictions.read(f / "predictions.parquet") for f in (teachers, again))
    np.testing.assert_array_equal(first["margin"], other["margin"])


def test_another_run_is_refused_the_same_folder(
    teachers: Path, config: Path, corpus_folder: Path
) -> None:
    with pytest.raises(InputError, match="was begun with another held_out"):
        teach.teach(config, corpus_folder, teachers, held=HeldOut(fold=0))


def test_what_a_run_holds_out_is_said_once(config: Path, corpus_folder: Path, capsys) -> None:
    asked = small_runs.arguments(config, corpus_folder, Path("out"), "--fold", "1")
    with pytest.raises(SystemExit):
        command.run(teach.main, [*asked, "--hold-nothing"])
    assert "choose one of --fold, --leave-out and --hold-nothing" in capsys.readouterr().err


def test_several_processes_are_refused(config: Path, corpus_folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="made by one process"):
        teach.main(config, corpus_folder, Path("out"))
