"""Records of a study: without weights, and enough to compare again."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pandas as pd
import pytest
from filelock import FileLock
from optuna.trial import TrialState

from bcd_models.config import HeldOut
from bcd_models.errors import InputError
from bcd_models.hub.folder import CONFIG, WEIGHTS
from tests.support import small_runs, studies
from training import command, run_folder
from training.compare import report as compare
from training.corpus.predictions import COLUMNS
from training.evaluate import answers
from training.run_folder import MODEL, PREDICTIONS, RUN_FILE
from training.study import records
from training.train import run as train
from training.tune import search as tune
from training.tune import trials
from training.tune.storage import open_storage, sqlite_url

ARM = Path("runs/mobilenetv2/plain")
FOLDS = ("seed-0-fold-0", "seed-0-fold-1")
NAMES = [f"mobilenetv2/plain/{fold}" for fold in FOLDS]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    """Two folds trained and asked, a third begun, a refit, and a tuning beside its database."""
    out = tmp_path_factory.mktemp("records") / "study"
    phases = [{"size": 64, "epochs": 1, "learning_rate": 0.001}]  # no patch is larger
    config = small_runs.write(out.parent / "recipe.yaml", phases=phases, views=4)
    for fold, name in enumerate(FOLDS):
        train.train(config, corpus_folder, out / ARM / name, held=HeldOut(fold=fold))
        answers.main(out / ARM / name, corpus_folder)
    unfinished = shutil.ignore_patterns(MODEL, answers.ANSWERS)
    shutil.copytree(out / ARM / FOLDS[0], out / ARM / "seed-0-fold-2", ignore=unfinished)
    refit = out / ARM / "all"  # asked, since it teaches
    shutil.copytree(out / ARM / FOLDS[0], refit, ignore=shutil.ignore_patterns(PREDICTIONS))
    about = json.loads((refit / RUN_FILE).read_text())
    (refit / RUN_FILE).write_text(json.dumps(about | {"held_out": {"nothing": True}}))
    tuned = out / "tune" / "mobilenetv2"
    tuned.mkdir(parents=True)
    (tuned / "tuned.yaml").write_text("name: größer\n")
    (tuned / "study.db").write_bytes(b"\0")
    return out


@pytest.fixture(scope="module")
def kept(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kept") / "records"
    assert records.gather(study, out) == NAMES
    return out


def list_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_records_are_of_what_is_finished_and_hold_no_weights(kept: Path) -> None:
    of_run = ("recipe.yaml", "run.json", "epochs.jsonl", answers.ANSWERS, f"{MODEL}/{CONFIG}")
    runs = {f"runs/{name}/{file}" for name in NAMES for file in of_run}
    assert list_files(kept) == runs | {"tune/mobilenetv2/tuned.yaml"}
    assert sum(file.stat().st_size for file in kept.rglob("*.*")) < 200_000


def test_predictions_come_back_from_what_was_said(
    study: Path, kept: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    assert records.restore(kept, tmp_path, corpus_folder) == NAMES
    for name in FOLDS:
        before, after = (pd.read_parquet(s / ARM / name / PREDICTIONS) for s in (study, tmp_path))
        pd.testing.assert_frame_equal(before[[*COLUMNS]], after[[*COLUMNS]], check_exact=True)
        for column in ("margin", "probability"):
            assert after[column].to_numpy() == pytest.approx(before[column].to_numpy(), abs=1e-4)
        assert before["margin"].std() > 1e-3  # or else anything would do
        assert {file.name for file in (tmp_path / ARM / name / MODEL).iterdir()} == {CONFIG}
    assert records.restore(kept, tmp_path, corpus_folder) == []


def test_a_study_begun_with_records_compares_alike(
    study: Path, kept: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    records.restore(kept, other, corpus_folder)
    found, again = (
        compare.compare([one / ARM / name for name in FOLDS], corpus_folder)
        for one in (study, other)
    )
    assert [line.cost.views for line in found.costs] == [4]
    assert again.costs == ()  # nothing to time
    assert again.runs == found.runs
    (before,), (after,) = found.out_of_fold, again.out_of_fold
    assert (after.folds, after.counts) == (before.folds, before.counts) == ((0, 1), after.counts)
    assert after.auroc.value == pytest.approx(before.auroc.value, abs=1e-3)
    compare.write(again, tmp_path / "report")
    assert "without weights" in (tmp_path / "report" / "report.md").read_text()


def test_a_refit_takes_its_decision_from_recorded_folds(
    study: Path, kept: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    records.restore(kept, tmp_path, corpus_folder)
    frames = [
        pd.concat([pd.read_parquet(one / ARM / name / PREDICTIONS) for name in FOLDS])
        for one in (study, tmp_path)
    ]
    plan = train.recipe.read(study.parent / "recipe.yaml")
    before, after = (
        train.fit_decision_rule(frame, frame["margin"].to_numpy(), plan) for frame in frames
    )
    assert after.views == before.views == 4
    for name in ("slope", "intercept", "threshold"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-2, abs=1e-2)


def stamp(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in list_files(folder)}


def test_nothing_is_written_again_that_has_not_changed(
    study: Path, kept: Path, tmp_path: Path
) -> None:
    growing, out = tmp_path / "study", tmp_path / "kept"
    shutil.copytree(study, growing)
    later = growing / ARM / FOLDS[1] / answers.ANSWERS
    later.rename(later.with_name("later"))
    assert records.gather(growing, out) == NAMES[:1]
    before = stamp(out)
    assert before
    later.with_name("later").rename(later)
    assert records.gather(growing, out) == NAMES
    after = stamp(out)
    assert {name: after[name] for name in before} == before
    assert list_files(out) == list_files(kept)
    (growing / "tune" / "mobilenetv2" / "tuned.yaml").write_text("name: other\n")
    records.gather(growing, out)
    changed = {name for name, when in stamp(out).items() if when != after[name]}
    assert changed == {"tune/mobilenetv2/tuned.yaml"}


def test_records_of_another_corpus_are_refused(
    kept: Path, older_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="the model was trained on corpus"):
        records.restore(kept, tmp_path, older_corpus)
    assert not (tmp_path / ARM / FOLDS[0] / MODEL).exists()


def test_what_a_study_has_is_left_alone(
    study: Path, kept: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(study, again)
    shutil.rmtree(again / ARM / FOLDS[1])
    (again / ARM / FOLDS[1] / f".{MODEL}.new").mkdir(parents=True)  # cut off as it was restored
    (again / "tune" / "mobilenetv2" / "tuned.yaml").write_text("name: its own\n")
    before = stamp(again / ARM / FOLDS[0])
    assert records.restore(kept, again, corpus_folder) == NAMES[1:]
    assert stamp(again / ARM / FOLDS[0]) == before
    assert (again / ARM / FOLDS[0] / MODEL / WEIGHTS).is_file()
    assert (again / ARM / FOLDS[1] / MODEL / CONFIG).is_file()
    assert (again / "tune" / "mobilenetv2" / "tuned.yaml").read_text() == "name: its own\n"


def test_the_tuning_comes_without_its_database(
    kept: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    records.restore(kept, tmp_path, corpus_folder)
    tuned = tmp_path / "tune" / "mobilenetv2"
    assert [path.name for path in tuned.iterdir()] == ["tuned.yaml"]
    assert (tuned / "tuned.yaml").read_text("utf-8") == "name: größer\n"


def test_a_study_that_has_nothing_yet_gives_no_records(
    tmp_path: Path, corpus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        command.run(records.main, [str(tmp_path / "study"), "--out", str(tmp_path / "kept")])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("0 runs: ")
    assert not (tmp_path / "kept").exists()
    assert records.restore(tmp_path / "kept", tmp_path / "study", corpus_folder) == []


def test_what_is_being_trained_here_is_not_restored(
    kept: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    trained = tmp_path / ARM / FOLDS[0]
    trained.mkdir(parents=True)
    with FileLock(trained / run_folder.LOCK):
        assert records.restore(kept, tmp_path, corpus_folder) == NAMES[1:]
        assert list_files(trained) == {run_folder.LOCK}
    assert records.restore(kept, tmp_path, corpus_folder) == NAMES[:1]  # it was given up


def test_a_tuning_cut_off_before_its_study_is_no_record(tmp_path: Path) -> None:
    tuning = tmp_path / "study" / "tune" / "small"
    tuning.mkdir(parents=True)
    with open_storage(sqlite_url(tuning), 1):
        pass  # and killed as it read the corpus
    assert records.gather(tmp_path / "study", tmp_path / "kept") == []
    assert not (tmp_path / "kept").exists()


def test_of_processes_that_begin_at_once_one_restores(
    kept: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(records.restore, kept, tmp_path, corpus_folder) for _ in range(4)]
        restored = [one.result() for one in asked]
    assert sorted(restored, key=len) == [[], [], [], NAMES]
    assert {file.name for file in (tmp_path / ARM / FOLDS[0] / MODEL).iterdir()} == {CONFIG}


def test_a_tuning_goes_on_elsewhere_with_its_finished_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus_folder: Path
) -> None:
    seen: list[dict[str, float]] = []
    monkeypatch.setattr(trials, "measure", studies.measure_by_learning_rate(seen))
    begun, other, out = tmp_path / "begun", tmp_path / "other", tmp_path / "kept"
    config = studies.write(tmp_path / "small.yaml")
    studies.run(config, corpus_folder, begun / "tune" / "small", 3)
    (begun / "tune" / "small" / tune.BEST).unlink()
    with studies.study_at(begun / "tune" / "small") as kept:
        finished = [trial.params for trial in kept.trials]
        kept.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))  # of a killed worker

    records.gather(begun, out)
    before = stamp(out)
    records.gather(begun, out)
    assert stamp(out) == before
    for _ in range(2):  # once more changes nothing
        records.restore(out, other, corpus_folder)
    assert [one.params for one in studies.trials_of(other / "tune" / "small")] == finished
    seen.clear()
    studies.run(config, corpus_folder, other / "tune" / "small", 4)
    assert len(studies.trials_of(other / "tune" / "small")) == 4
    assert (other / "tune" / "small" / tune.BEST).exists()
    assert seen
    assert not [one for one in seen if one in finished]

    records.gather(other, out)  # finished now: its recipe and page are enough
    assert not (out / "tune" / "small" / records.JOURNAL).exists()
    assert (out / "tune" / "small" / tune.BEST).exists()
