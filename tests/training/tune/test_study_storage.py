"""Where studies are kept: every kind of storage, several workers, killed ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.support.processes import running
from tests.support.studies import (
    arguments,
    measure_by_learning_rate,
    run,
    study_at,
    trials_of,
    write,
)
from training.recipes import schema as recipe
from training.tune import trials
from training.tune.storage import sqlite_url


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("recipe") / "small.yaml")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Trainings of this process take no time; what they were asked for."""
    seen: list[dict[str, float]] = []
    monkeypatch.setattr(trials, "measure", measure_by_learning_rate(seen))
    return seen


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of storage in turn."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres"))
    return sqlite_url(tmp_path)


@pytest.mark.parametrize(
    ("storage", "reason"),
    [
        ("postgresql://user:secret@127.0.0.1:1/none", "127.0.0.1"),
        ("sqlite:///{tmp}/missing/study.db", "unable to open database file"),
        ("{tmp}/text", "no URL"),
        ("sqlite:///{tmp}/text", "not a database"),
        ("nothing://at.all", "nothing"),
        ("nothing//at://all", "no URL"),
    ],
)
def test_a_storage_out_of_reach_is_one_line(
    quick: list, config: Path, corpus_folder: Path, tmp_path: Path, capsys, storage, reason
) -> None:
    (tmp_path / "text").write_text("no database\n" * 100)
    storage = storage.replace("{tmp}", str(tmp_path))
    run(config, corpus_folder, tmp_path / "study", 2, "--storage", storage, code=2)
    said = capsys.readouterr().err
    assert reason in said
    assert "secret" not in said
    assert len(said.splitlines()) == 1
    assert not quick


def test_a_folder_that_cannot_be_made_is_one_line(
    quick: list, config: Path, corpus_folder: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "file").touch()
    run(config, corpus_folder, tmp_path / "file" / "study", 2, code=2)
    said = capsys.readouterr().err
    assert "Not a directory" in said
    assert len(said.splitlines()) == 1
    assert not quick


def test_a_study_goes_on_in_any_storage(
    quick: list, storage: str, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"study-{tmp_path.name}"
    run(config, corpus_folder, out, 2, "--storage", storage)
    run(config, corpus_folder, out, 3, "--storage", storage)
    assert [t.state for t in trials_of(out, storage)] == [TrialState.COMPLETE] * 3


def worker(*asked: Any) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return running(
        [sys.executable, "-m", "training.tune", *arguments(*asked)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill_in_a_trial(asked: tuple[Any, ...], out: Path, storage: str) -> int:
    """Kill a worker while its first trial trains; returns the trial's number."""
    with worker(*asked) as process:
        while not list((out / "trials").glob("*/*")):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    (trial,) = [t for t in trials_of(out, storage) if t.state == TrialState.RUNNING]
    assert len(trial.params) == 4
    return trial.number


def assert_run_again(out: Path, storage: str, killed: int) -> None:
    found = trials_of(out, storage)
    again = [trial for trial in found if trial.system_attrs.get("failed_trial") == killed]
    assert found[killed].state == TrialState.FAIL
    assert [trial.params for trial in again] == [found[killed].params]
    states = Counter(trial.state for trial in found)
    assert states[TrialState.RUNNING] == states[TrialState.WAITING] == 0


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite"], indirect=True)
def test_the_trial_of_a_killed_worker_is_run_again(
    quick: list, storage: str, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"study-{tmp_path.name}"
    asked = (config, corpus_folder, out, 2, "--storage", storage)
    killed = kill_in_a_trial(asked, out, storage)
    run(*asked)
    assert_run_again(out, storage, killed)
    assert not list((out / "trials").iterdir())


@pytest.mark.slow
def test_workers_share_a_study_and_take_over_from_a_killed_one(
    storage: str, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"study-{tmp_path.name}"
    asked = (config, corpus_folder, out, 5, "--storage", storage)
    killed = kill_in_a_trial(asked, out, storage)
    with worker(*asked) as one, worker(*asked) as other:
        assert [one.wait(), other.wait()] == [0, 0]
    assert_run_again(out, storage, killed)
    found = [t for t in trials_of(out, storage) if t.state != TrialState.FAIL]
    assert len({tuple(trial.params.values()) for trial in found}) == len(found) == 5
    best = max(found, key=lambda trial: trial.value or 0)
    assert f"Trial {best.number} has" in (out / "tuned.yaml").read_text() or best.number == 0
    assert not list((out / "trials").iterdir())


def test_a_trial_too_many_is_left_out(
    quick: list, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    run(config, corpus_folder, out, 2)
    bench = trials.prepare_bench(recipe.read(config), corpus_folder, None, out)
    with study_at(out) as study:
        study.optimize(lambda trial: trials._objective(trial, bench, 2), n_trials=1)
    assert trials_of(out)[-1].state == TrialState.FAIL
    assert len(quick) == 2


def test_a_worker_that_slept_leaves_its_trial_to_the_one_that_took_it_over(
    config: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "study", []
    quick = measure_by_learning_rate(seen)

    def slow(*asked: Any) -> float:
        if not seen:
            with study_at(out) as study:
                study.tell(0, state=TrialState.FAIL)
        return quick(*asked)

    monkeypatch.setattr(trials, "measure", slow)
    run(config, corpus_folder, out, 2)
    states = [trial.state for trial in trials_of(out)]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]


def test_a_trial_whose_worker_died_at_birth_does_not_hold_the_others_up(
    quick: list,
    config: Path,
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trials, "UNBORN_SECONDS", 1)
    out = tmp_path / "study"
    run(config, corpus_folder, out, 1)
    with study_at(out) as study:
        with pytest.warns(UserWarning, match="Heartbeat"):
            study.ask()  # no number drawn, no sign of life
    run(config, corpus_folder, out, 2)
    states = [trial.state for trial in trials_of(out)]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
