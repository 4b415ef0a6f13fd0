"""Studies on a miniature corpus: one worker, several, killed ones; every kind of storage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from bcd_models.errors import InputError
from bcd_models.prediction import NOTICE
from tests.conftest import absent
from training import command, confirm, recipe, study_page, trials, tune
from training.search_space import parameters_of, recipe_of, trial_recipe
from training.study_storage import opened, sqlite_url

RECIPE: dict[str, Any] = {
    "name": "bcd-small",
    "version": "0.0.1",
    "backbone": "mobilenetv2",
    "start": "none",
    "phases": [
        {"size": 32, "epochs": 2, "learning_rate": 0.001},
        {"size": 48, "epochs": 1, "learning_rate": 0.0004},
    ],
    "batch_size": 64,
    "augment": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "mixup": 0.2},
    "tune": {"size": 32, "epochs": 1, "folds": [0], "startup_trials": 2, "heartbeat": 1},
}
DEFAULT = {
    "phases.learning_rate": 0.001,
    "weight_decay": 0.02,
    "augment.mixup": 0.2,
    "augment.jitter": 0.1,
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**RECIPE, **changes}


def planned(**changes: Any) -> recipe.Recipe:
    return recipe.Recipe.model_validate(changed(**changes))


def write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(changed(**changes)))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("recipe") / "small.yaml")


def arguments(config: Path, corpus: Path, out: Path, count: int, *more: str) -> list[str]:
    asked = ["--config", str(config), "--corpus", str(corpus), "--out", str(out)]
    return [*asked, "--trials", str(count), "--seeds", "2", "--top", "1", *more]


def run(*asked: Any) -> None:
    with pytest.raises(SystemExit) as end:
        command.run(tune.main, arguments(*asked))
    assert end.value.code == 0


def study_of(out: Path, storage: str | None = None) -> optuna.Study:
    kept = opened(storage or sqlite_url(out), 1)
    return optuna.load_study(study_name=out.name, storage=kept)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Trainings that take no time, and whose AUROC is best at a learning rate of 0.001."""
    measured = []

    def measure(bench, parameters, seed, fold, folder, on_epoch=None) -> float:
        measured.append(dict(parameters))
        auroc = 0.9 - abs(parameters["phases.learning_rate"] - 0.001) + seed * 1e-4
        if on_epoch:
            on_epoch({"epoch": 1, "validation_auroc": auroc})
        return auroc

    monkeypatch.setattr(trials, "measure", measure)
    monkeypatch.setattr(tune, "measure", measure)
    return measured


# What is tuned.


def test_parameters_become_a_recipe_and_the_default_is_one_of_them() -> None:
    plan = planned()
    assert parameters_of(plan) == DEFAULT
    tuned = recipe_of(plan, DEFAULT | {"phases.learning_rate": 0.0005, "augment.jitter": 0.25})
    assert [phase.learning_rate for phase in tuned.phases] == pytest.approx([0.0005, 0.0002])
    assert [phase.size for phase in tuned.phases] == [32, 48]
    assert tuned.augment.brightness == tuned.augment.contrast == tuned.augment.saturation == 0.25
    assert (tuned.weight_decay, tuned.augment.mixup, tuned.seed) == (0.02, 0.2, 0)
    short = trial_recipe(plan, DEFAULT | {"weight_decay": 0.1}, 7)
    assert [(p.size, p.epochs, p.learning_rate) for p in short.phases] == [(32, 1, 0.001)]
    assert (short.weight_decay, short.seed) == (0.1, 7)


def test_mixup_can_be_off_and_other_numbers_can_be_tuned() -> None:
    mixup = planned().tune.space["augment.mixup"]
    assert [mixup.holds(value) for value in (0, 0.1, 0.4, 0.05, 0.5)] == [True] * 3 + [False] * 2
    space = {
        "drop_path": {"low": 0, "high": 0.3},
        "batch_size": {"low": 32, "high": 96, "step": 32},
    }
    plan = planned(tune={"space": space})
    assert parameters_of(plan) == {"drop_path": 0, "batch_size": 64}
    assert recipe_of(plan, {"drop_path": 0.1, "batch_size": 96.0}).batch_size == 96


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ({"weight_dcay": {"low": 0, "high": 1}}, "weight_dcay can't be tuned: choose from"),
        ({"seed": {"low": 0, "high": 1}}, "seed can't be tuned"),
        ({"weight_decay": {"low": 0.2, "high": 0.1}}, "low must be below high"),
        ({"weight_decay": {"low": 0, "high": 0.1, "log": True}}, "begins above 0"),
        ({"augment.mixup": {"low": 0, "high": 0.4, "step": 0.3}}, "whole number of steps"),
        ({"augment.mixup": {"low": -1, "high": 1}}, "augment.mixup can't be -1"),
        ({"batch_size": {"low": 32, "high": 64}}, "whole step"),
        ({"dropout": {"low": 0, "high": 0.1, "steps": 3}}, "steps: Extra inputs"),
        (
            {
                "augment.jitter": {"low": 0, "high": 0.1},
                "augment.contrast": {"low": 0, "high": 0.1},
            },
            "already sets augment.contrast",
        ),
        ({}, "at least 1 item"),
    ],
)
def test_spaces_are_read_strictly(tmp_path: Path, space: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        recipe.read(write(tmp_path / "recipe.yaml", tune={"space": space}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight_decay": 0.0}, r"weight_decay, 0, is not in the range .*0\.001 to 0\.2"),
        ({"augment": {"mixup": 0.25}}, r"augment\.mixup, 0\.25, .* by 0\.1"),
        ({"augment": {"brightness": 0.1}}, "set them equal"),
        (
            {"phases": [RECIPE["phases"][0], {"size": 48, "epochs": 1, "learning_rate": 0.9}]},
            r"tuned: phases\.1\.learning_rate",
        ),
    ],
)
def test_the_default_must_lie_in_the_space(change: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parameters_of(planned(**change))


# What is decided.


def test_the_default_stays_unless_clearly_beaten() -> None:
    default = [0.90, 0.92, 0.91, 0.93]
    better = [value + gain for value, gain in zip(default, (0.02, 0.021, 0.019, 0.02), strict=True)]
    noisy = [0.99, 0.90, 0.92, 0.95]
    decision = confirm.decide(default, {3: noisy, 8: better})
    assert decision.winner is None  # the best on average is the noisy one
    assert [one.trial for one in decision.comparisons] == [3, 8]
    assert confirm.decide(default, {8: better}).winner == 8
    assert confirm.decide(default, {8: default}).winner is None
    assert confirm.decide(default, {}).winner is None
    by_hand = decision.comparisons[1]  # mean 0.02, sd 0.000816, t(3, 0.9875) = 4.177
    assert (by_hand.low, by_hand.high) == pytest.approx((0.018295, 0.021705), abs=2e-6)


def test_the_winner_is_a_recipe_that_train_takes(tmp_path: Path) -> None:
    plan = planned()
    stays = tune.write_winner(plan, None, "The default stays.", tmp_path)
    assert recipe.read(stays) == plan
    numbers = DEFAULT | {"phases.learning_rate": 0.0005}
    replaced = recipe.read(tune.write_winner(plan, numbers, "Trial 3 replaces it.", tmp_path))
    assert replaced == recipe_of(plan, numbers)
    assert replaced.epochs == plan.epochs


def test_a_confirmation_that_was_killed_goes_on(tmp_path: Path) -> None:
    found = [
        confirm.Candidate(None, DEFAULT),
        confirm.Candidate(4, DEFAULT | {"weight_decay": 0.1}),
    ]
    runs: list[tuple[float, int, int]] = []

    def measure(parameters, seed, fold) -> dict[str, Any]:
        if len(runs) == 3:
            raise KeyboardInterrupt
        runs.append((parameters["weight_decay"], seed, fold))
        return {"auroc": 0.9 + seed / 100, "stopped": None}

    asked = (found, (1, 2), (0, 1), measure, {"corpus": "a"}, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        confirm.confirm(*asked)
    kept = list(runs)
    runs.clear()
    with pytest.raises(KeyboardInterrupt):
        confirm.confirm(*asked)
    both = kept + runs
    assert len(set(both)) == len(both) == 6
    with pytest.raises(InputError, match="of another study"):
        confirm.confirm(*asked[:4], {"corpus": "b"}, tmp_path)
    (tmp_path / "confirm.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        confirm.confirm(*asked)


# A study from end to end.


@pytest.fixture(scope="module")
def finished(config: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two trials, confirmed."""
    out = tmp_path_factory.mktemp("studies") / "study"
    run(config, corpus_folder, out, 2)
    return out


def test_a_study_leaves_a_recipe_and_pages(finished: Path, config: Path) -> None:
    recipe.read(finished / "winner.yaml")
    study = study_of(finished)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert study.trials[0].params == DEFAULT
    assert study.trials[0].user_attrs["auroc"]["0"] == study.trials[0].value
    assert study.trials[1].user_attrs["seconds"] > 0
    record = json.loads((finished / "confirm.json").read_text())
    assert Counter(entry["of"] for entry in record["runs"]) == {"default": 2, "trial 1": 2}
    assert {entry["seed"] for entry in record["runs"]} == {1, 2}
    text = (finished / "study.md").read_text()
    for said in (NOTICE, record["study"]["corpus"], record["study"]["split"], "The default stays"):
        assert said in text
    for name in ("history", "slices", "parallel"):
        assert (finished / f"study-{name}.png").stat().st_size > 3000
    page = (finished / "study.html").read_text()
    assert NOTICE in page
    assert page.count("Plotly.newPlot(") == 3 + page.count("function Plotly.newPlot(")
    assert 'src="http' not in page
    assert not list((finished / "trials").iterdir())


def test_a_study_goes_on_with_new_trials(
    quick: list, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    run(config, corpus_folder, out, 3)
    assert len(quick) == 3 + 4
    run(config, corpus_folder, out, 3)
    assert len(quick) == 3 + 4  # nothing was left to do
    run(config, corpus_folder, out, 6)
    tried = [tuple(trial.params.values()) for trial in study_of(out).trials]
    assert len(tried) == len(set(tried)) == 6
    other = tmp_path / "again" / "study"
    run(config, corpus_folder, other, 6)
    assert [tuple(trial.params.values()) for trial in study_of(other).trials] == tried
    assert "Importance (exploratory)" in (out / "study.md").read_text()
    assert (out / "study-importance.png").stat().st_size > 3000
    assert "Choose nothing by it" in (out / "study.html").read_text()


def test_a_clearly_better_trial_becomes_the_recipe(
    quick: list, corpus_folder: Path, tmp_path: Path
) -> None:
    phases = [{"size": 32, "epochs": 2, "learning_rate": 0.002}]
    config = write(tmp_path / "recipe.yaml", phases=phases)
    run(config, corpus_folder, tmp_path / "study", 4)
    winner = recipe.read(tmp_path / "study" / "winner.yaml")
    best = study_of(tmp_path / "study").best_trial
    assert winner.phases[0].learning_rate == best.params["phases.learning_rate"] != 0.002
    assert f"Trial {best.number} replaces" in (tmp_path / "study" / "study.md").read_text()


def test_a_study_is_never_continued_with_something_else(
    quick: list, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    run(config, corpus_folder, out, 1)
    other = write(tmp_path / "other.yaml", dropout=0.3)
    with pytest.raises(InputError, match=r"another recipe \(dropout: 0.0, now 0.3\)"):
        tune.main(other, corpus_folder, out, 2)
    study = study_of(out)
    study.set_user_attr("corpus", "elsewhere")
    with pytest.raises(InputError, match=r"another corpus \(elsewhere, now "):
        tune.main(config, corpus_folder, out, 2)


def test_what_diverges_is_pruned_and_the_study_goes_on(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.engine.weighted_loss", lambda logits, *_: logits.sum() * 1e40)
    space = {"dropout": {"low": 0, "high": 0.5}}
    config = write(tmp_path / "recipe.yaml", tune=RECIPE["tune"] | {"space": space})
    run(config, corpus_folder, tmp_path / "study", 2)
    study = study_of(tmp_path / "study")
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED] * 2
    assert "the loss became" in study.trials[0].user_attrs["stopped"]
    assert "2, of which 2 diverged" in (tmp_path / "study" / "study.md").read_text()


def test_later_folds_are_spared_where_the_first_is_poor(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, int]] = []

    def measure(bench, parameters, seed, fold, folder, on_epoch=None) -> float:
        auroc = 0.9 - 0.001 * len(seen)
        seen.append((parameters["weight_decay"], fold))
        if on_epoch:
            on_epoch({"epoch": 1, "validation_auroc": auroc})
        return auroc

    monkeypatch.setattr(trials, "measure", measure)
    monkeypatch.setattr(tune, "measure", measure)
    config = write(tmp_path / "recipe.yaml", tune=RECIPE["tune"] | {"folds": [0, 1]})
    run(config, corpus_folder, tmp_path / "study", 4)
    study = study_of(tmp_path / "study")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2 + ["PRUNED"] * 2
    assert [list(trial.intermediate_values) for trial in study.trials] == [[0, 1]] * 2 + [[0]] * 2


# Storages that can't be used: one line, exit code 2, before anything is trained.


def closed_port() -> str:
    return "postgresql://user:secret@127.0.0.1:1/none"


@pytest.mark.parametrize(
    ("storage", "reason"),
    [
        (closed_port(), "127.0.0.1"),
        ("sqlite:///{tmp}/missing/study.db", "unable to open database file"),
        ("{tmp}/missing/study.journal", "No such file"),
        ("{tmp}/text", "not Optuna's"),
        ("sqlite:///{tmp}/text", "not a database"),
        ("nothing://at.all", "nothing"),
        ("nothing//at://all", "no URL"),
    ],
)
def test_a_storage_out_of_reach_is_one_line(
    quick: list,
    config: Path,
    corpus_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    storage: str,
    reason: str,
) -> None:
    (tmp_path / "text").write_text("no journal and no database\n" * 100)
    storage = storage.replace("{tmp}", str(tmp_path))
    asked = arguments(config, corpus_folder, tmp_path / "study", 2, "--storage", storage)
    with pytest.raises(SystemExit) as end:
        command.run(tune.main, asked)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert reason in said
    assert "secret" not in said
    assert len(said.splitlines()) == 1
    assert not quick


# Several workers, and killed ones.


def worker(*asked: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "training.tune", *arguments(*asked)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server of the tests' own."""
    pytest.importorskip("psycopg")
    from tests.support.postgres import program, running_postgres

    if not program("initdb"):
        absent("PostgreSQL is not installed: apt-get install postgresql")
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "journal", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of storage in turn."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres"))
    return str(tmp_path / "journal") if request.param == "journal" else sqlite_url(tmp_path)


@pytest.mark.slow
def test_workers_share_a_study_and_take_over_from_a_killed_one(
    storage: str, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"study-{tmp_path.name}"
    asked = (config, corpus_folder, out, 5, "--storage", storage)
    first = worker(*asked)
    killed = running_trial(out, storage, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    both = [worker(*asked) for _ in range(2)]
    assert [one.wait(240) for one in both] == [0, 0]

    study = study_of(out, storage)
    states = Counter(trial.state for trial in study.trials)
    assert states[TrialState.COMPLETE] + states[TrialState.PRUNED] == 5
    assert states[TrialState.RUNNING] == states[TrialState.WAITING] == 0
    assert study.trials[killed].state == TrialState.FAIL
    again = [t for t in study.trials if t.system_attrs.get("failed_trial") == killed]
    assert [t.params for t in again] == [study.trials[killed].params]
    record = json.loads((out / "confirm.json").read_text())
    assert len(record["runs"]) == 4
    assert record["decision"]["pairs"] == 2
    assert not list((out / "trials").iterdir())


def running_trial(out: Path, storage: str, process: subprocess.Popen[bytes]) -> int:
    """Number of the first trial that is at work."""
    deadline = time.monotonic() + 200
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        for folder in (out / "trials").glob("*/fold-0"):
            trial = study_of(out, storage).trials[int(folder.parent.name)]
            if trial.state == TrialState.RUNNING and len(trial.params) == 4:
                return trial.number
        time.sleep(0.05)


def test_a_trial_too_many_is_left_out(
    quick: list, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    run(config, corpus_folder, out, 2)
    study = study_of(out)
    bench = trials.bench_of(recipe.read(config), corpus_folder, None, out)
    study.optimize(lambda trial: trials._objective(trial, bench, 2), n_trials=1)
    assert study.trials[-1].state == TrialState.FAIL
    assert len(quick) == 2 + 4
    assert study_page.PAGE
