"""Records of a study: without weights, and enough to compare again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from bcd_models.config import HeldOut
from bcd_models.errors import InputError
from tests.support import small_runs, studies
from training.compare import report as compare
from training.study import records
from training.train import run as train
from training.tune import search as tune
from training.tune import trials

ARM = Path("runs/mobilenetv2/plain")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    """Two folds trained, a third begun, and a tuning's texts beside its database."""
    out = tmp_path_factory.mktemp("records") / "study"
    phases = [{"size": 32, "epochs": 1, "learning_rate": 0.001}]
    config = small_runs.write(out.parent / "recipe.yaml", arm="plain", phases=phases)
    for fold in (0, 1):
        train.train(config, corpus_folder, out / ARM / f"fold-{fold}", held=HeldOut(fold=fold))
    shutil.copytree(out / ARM / "fold-0", out / ARM / "fold-2", ignore=lambda *_: {"model"})
    tuned = out / "tune" / "mobilenetv2"
    tuned.mkdir(parents=True)
    (tuned / "tuned.yaml").write_text("name: größer\n")
    (tuned / "study.db").write_bytes(b"\0")
    return out


def test_a_study_begun_with_records_compares_alike(
    study: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    assert list(records.gather(study, tmp_path / "kept").runs) == [
        "mobilenetv2/plain/fold-0",
        "mobilenetv2/plain/fold-1",
    ]
    assert sum(file.stat().st_size for file in (tmp_path / "kept").iterdir()) < 200_000
    other = tmp_path / "other"
    assert len(records.restore(tmp_path / "kept", other)) == 2
    for fold in ("fold-0", "fold-1"):
        tables = (pd.read_parquet(s / ARM / fold / "predictions.parquet") for s in (study, other))
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    reports = []
    for one in (study, other):
        runs = [str(one / ARM / fold) for fold in ("fold-0", "fold-1")]
        asked = [*runs, "--corpus", str(corpus_folder), "--out", str(one / "report")]
        with pytest.raises(SystemExit) as end:
            compare.command.run(compare.main, asked)
        assert end.value.code == 0
        reports.append(json.loads((one / "report" / "report.json").read_text()))
    assert len(reports[0].pop("costs")) == 1
    assert reports[1].pop("costs") == []
    assert reports[0] == reports[1]
    assert "without weights" in (other / "report" / "report.md").read_text()


def test_the_tuning_comes_without_its_database(study: Path, tmp_path: Path) -> None:
    records.gather(study, tmp_path / "kept")
    records.restore(tmp_path / "kept", tmp_path / "other")
    tuned = tmp_path / "other" / "tune" / "mobilenetv2"
    assert [path.name for path in tuned.iterdir()] == ["tuned.yaml"]
    assert (tuned / "tuned.yaml").read_text("utf-8") == "name: größer\n"


def test_what_a_study_has_is_left_alone(study: Path, tmp_path: Path) -> None:
    records.gather(study, tmp_path / "kept")
    again = tmp_path / "again"
    shutil.copytree(study, again)
    shutil.rmtree(again / ARM / "fold-1")
    before = (again / ARM / "fold-0" / "predictions.parquet").stat().st_mtime_ns
    assert records.restore(tmp_path / "kept", again) == ["mobilenetv2/plain/fold-1"]
    assert (again / ARM / "fold-0" / "predictions.parquet").stat().st_mtime_ns == before
    assert (again / ARM / "fold-0" / "model" / "model.safetensors").is_file()


def test_no_finished_run_and_no_records_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run yet"):
        records.gather(tmp_path, tmp_path / "kept")
    with pytest.raises(InputError, match="holds no records"):
        records.restore(tmp_path, tmp_path / "study")


def test_a_tuning_goes_on_elsewhere_with_its_finished_trials(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus_folder: Path
) -> None:
    seen: list[dict[str, float]] = []
    monkeypatch.setattr(trials, "measure", studies.measure_by_learning_rate(seen))
    begun, other = tmp_path / "begun", tmp_path / "other"
    shutil.copytree(study / "runs", begun / "runs")
    config = studies.write(tmp_path / "small.yaml")
    studies.run(config, corpus_folder, begun / "tune" / "small", 3)
    (begun / "tune" / "small" / tune.BEST).unlink()
    with studies.study_at(begun / "tune" / "small") as kept:
        finished = [trial.params for trial in kept.trials]
        kept.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))  # of a killed worker

    records.gather(begun, tmp_path / "kept")
    for _ in range(2):  # once more changes nothing
        records.restore(tmp_path / "kept", other)
    assert [one.params for one in studies.trials_of(other / "tune" / "small")] == finished
    seen.clear()
    studies.run(config, corpus_folder, other / "tune" / "small", 4)
    assert len(studies.trials_of(other / "tune" / "small")) == 4
    assert (other / "tune" / "small" / tune.BEST).exists()
    assert [one for one in seen if one not in finished]
