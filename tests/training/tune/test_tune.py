"""Studies on a miniature corpus: what is decided, run and written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from optuna.trial import TrialState
from playwright.sync_api import sync_playwright
from sklearn.metrics import roc_auc_score

from bcd_models.images.preprocess import normalise, resize
from bcd_models.prediction import NOTICE
from tests.support.studies import (
    DEFAULT,
    RECIPE,
    arguments,
    make_recipe,
    measure_by_learning_rate,
    run,
    study_at,
    trials_of,
    write,
)
from training import command
from training.corpus import build as corpus
from training.corpus import degrade as degrading
from training.corpus import splits
from training.recipes import schema as recipe
from training.recipes.schema import Degrade
from training.train import engine
from training.train import run as train
from training.train.checkpoint import TrainingStopped
from training.tune import search as tune
from training.tune import trials
from training.tune.space import apply_parameters


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("recipe") / "small.yaml")


def replace_measure(monkeypatch: pytest.MonkeyPatch, measure: Any) -> None:
    monkeypatch.setattr(trials, "measure", measure)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Trainings take no time; what they were asked for."""
    seen: list[dict[str, float]] = []
    replace_measure(monkeypatch, measure_by_learning_rate(seen))
    return seen


def test_what_is_written_is_a_recipe_that_train_takes(tmp_path: Path) -> None:
    plan = make_recipe()
    path = tmp_path / "tuned.yaml"
    assert recipe.read(tune.write_recipe(plan, "The default stays.", path)) == plan
    tuned = apply_parameters(plan, DEFAULT | {"phases.learning_rate": 0.0005})
    assert recipe.read(tune.write_recipe(tuned, "Trial 3 is the best.", path)) == tuned
    assert tuned.epochs == plan.epochs


# A study from end to end.


@pytest.fixture(scope="module")
def finished(config: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two trials."""
    out = tmp_path_factory.mktemp("studies") / "study"
    run(config, corpus_folder, out, 2)
    return out


def test_a_study_leaves_a_recipe_and_pages(finished: Path) -> None:
    tuned = recipe.read(finished / "tuned.yaml")
    assert tuned.arm == "tuned"
    default, drawn = trials_of(finished)
    assert (default.state, drawn.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
    assert default.params == DEFAULT
    assert drawn.params.keys() == DEFAULT.keys()
    best = max((default, drawn), key=lambda trial: trial.value or 0)
    assert tuned == apply_parameters(make_recipe(), best.params).model_copy(update={"arm": "tuned"})
    text = (finished / "study.md").read_text()
    with study_at(finished) as study:
        bound = study.user_attrs
    for said in (NOTICE, bound["corpus"], bound["split"], "has the highest AUROC of 2 trials"):
        assert said in text
    for name in ("history", "slices", "parallel"):
        assert f"(study-{name}.png)" in text
        assert (finished / f"study-{name}.png").stat().st_size > 10_000
    assert not list((finished / "trials").iterdir())


def test_the_live_page_asks_the_network_for_nothing(finished: Path) -> None:
    page = (finished / "study.html").read_text()
    assert NOTICE in page
    assert all(f'<div id="{name}"' in page for name in ("history", "slices", "parallel"))
    bare = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in bare
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", page) == []


def test_trials_see_no_test_image(finished: Path, config: Path, corpus_folder: Path) -> None:
    bench = trials.prepare_bench(recipe.read(config), corpus_folder, None, finished)
    data = bench.data[0]
    assert data.held_out is not None
    table = splits.read_table(corpus.load(corpus_folder)[0])
    test = set(table["case_id"][data.split.part == "test"])
    held_out, learnt_from = set(data.held_out.frame["case_id"]), set(data.training.frame["case_id"])
    assert test
    assert not test & (held_out | learnt_from)
    assert not held_out & learnt_from


def test_trials_may_learn_from_a_share_of_the_cases(
    config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    plan = recipe.read(config)
    few = plan.model_copy(update={"tune": plan.tune.model_copy(update={"share": 0.5})})
    whole, half = (
        trials.prepare_bench(one, corpus_folder, None, tmp_path).data[0] for one in (plan, few)
    )
    cases = [set(data.training.frame["case_id"]) for data in (whole, half)]
    assert cases[1] < cases[0]
    assert 0.4 <= len(cases[1]) / len(cases[0]) <= 0.6
    assert whole.held_out is not None
    assert half.held_out is not None
    assert whole.held_out.frame.equals(half.held_out.frame)


@pytest.mark.browser
def test_a_browser_shows_the_live_page_from_its_file_alone(finished: Path, chromium: str) -> None:
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((finished / "study.html").as_uri())
        page.locator("#parallel .main-svg").first.wait_for()
        browser.close()
    assert len(asked) == 1


def test_a_trial_is_worth_its_auroc_within_the_larger_source(
    config: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = trials.prepare_bench(recipe.read(config), corpus_folder, None, tmp_path)
    held_out = bench.data[0].held_out
    assert held_out is not None
    margins = held_out.truth.astype(float)
    margins[:3] = 1 - margins[:3]  # wrong, and of another source
    held_out.frame.loc[:2, "source"] = "elsewhere"
    monkeypatch.setattr("training.train.engine.fit", lambda network, *_: network)
    monkeypatch.setattr("training.evaluate.scoring.score", lambda *_: margins)
    assert trials.measure(bench, DEFAULT, 0, 0, tmp_path / "trial") == 1


@pytest.mark.parametrize("degrade", [{"blur": 3, "noise": 40, "jpeg": 20}, {}])
def test_where_a_recipe_degrades_a_trial_is_judged_on_clean_and_degraded_alike(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, degrade: dict[str, int]
) -> None:
    space = RECIPE["tune"] | {"space": {"degrade.strength": {"low": 0.5, "high": 1.5}}}
    plan = make_recipe(degrade=degrade, tune=space)
    bench = trials.prepare_bench(plan, corpus_folder, None, tmp_path)
    trained: list[Any] = []

    def fit(*given: Any) -> Any:
        trained.append((given[2], engine.fit(*given)))
        return trained[0][1]

    monkeypatch.setattr(trials, "engine", SimpleNamespace(fit=fit))
    value = trials.measure(bench, {"degrade.strength": 0.5}, 0, 0, tmp_path / "trial")
    ((preprocess, network),) = trained
    held_out = bench.data[0].held_out
    assert held_out is not None
    larger = (held_out.frame["source"] == "idc").to_numpy()
    ((here, pixels),) = held_out.pixels.rows(torch.arange(len(larger)))
    patches = pixels.permute(0, 2, 3, 1).numpy()[np.argsort(np.arange(len(larger))[here])]
    strengths = Degrade(spared=0, **degrade)  # as the recipe has them: trials compare
    worse = [
        degrading.degrade(patch, strengths, np.random.default_rng((0, place)))
        for place, patch in enumerate(patches)
    ]
    aurocs = []
    for images in (patches, worse):
        inputs = normalise([resize(image, 32) for image in images], preprocess)
        with torch.inference_mode():
            logits = network(torch.from_numpy(inputs)).numpy()
        margins = logits[:, 1] - logits[:, 0]
        aurocs.append(roc_auc_score(held_out.truth[larger], margins[larger]))
    assert value == pytest.approx(np.mean(aurocs) if degrade else aurocs[0], abs=1e-6)
    assert (abs(aurocs[0] - aurocs[1]) > 1e-3) == bool(degrade)


def test_a_study_goes_on_and_asked_again_changes_nothing(
    quick: list, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    run(config, corpus_folder, out, 3)
    assert len(quick) == 3
    names = ("study.md", "study.html", "study-history.png", "tuned.yaml")
    before = [(out / name).read_bytes() for name in names]
    run(config, corpus_folder, out, 3)
    assert len(quick) == 3
    assert [(out / name).read_bytes() for name in names] == before
    run(config, corpus_folder, out, 6)
    tried = [tuple(trial.params.values()) for trial in trials_of(out)]
    assert len(tried) == len(set(tried)) == 6
    other = tmp_path / "again" / "study"
    run(config, corpus_folder, other, 6)
    assert [tuple(trial.params.values()) for trial in trials_of(other)] == tried
    assert "Importance (exploratory)" in (out / "study.md").read_text()
    assert (out / "study-importance.png").stat().st_size > 10_000
    assert "Choose nothing by it" in (out / "study.html").read_text()


def test_the_best_trial_becomes_the_recipe(
    quick: list, corpus_folder: Path, tmp_path: Path
) -> None:
    phases = [{"size": 32, "epochs": 2, "learning_rate": 0.002}]
    config = write(tmp_path / "recipe.yaml", phases=phases)
    out = tmp_path / "study"
    run(config, corpus_folder, out, 4)
    winner = recipe.read(out / "tuned.yaml")
    best = max(trials_of(out), key=lambda trial: trial.value)
    assert winner.phases[0].learning_rate == best.params["phases.learning_rate"] != 0.002
    assert winner.arm == "tuned"
    assert f"Trial {best.number} has the highest" in (out / "study.md").read_text()


def test_a_study_is_never_continued_with_something_else(
    quick: list, config: Path, corpus_folder: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "study"
    run(config, corpus_folder, out, 1)
    capsys.readouterr()
    run(write(tmp_path / "other.yaml", dropout=0.3), corpus_folder, out, 2, code=2)
    assert "another recipe (dropout: 0.0, now 0.3)" in capsys.readouterr().err
    with study_at(out) as begun:  # by a release whose recipes could say less
        said = begun.user_attrs["recipe"]
        del said["degrade"], said["average"]
        begun.set_user_attr("recipe", said)
    run(config, corpus_folder, out, 1)
    with study_at(out) as study:
        for name in ("corpus", "start"):
            before = study.user_attrs[name]
            study.set_user_attr(name, "elsewhere")
            run(config, corpus_folder, out, 2, code=2)
            said = capsys.readouterr().err
            assert f"another {name} (elsewhere, now {before})" in said
            assert len(said.splitlines()) == 1
            study.set_user_attr(name, before)


def test_what_diverges_is_pruned_and_the_study_goes_on(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.train.balance.weighted_loss", lambda logits, *_: logits.sum() * float("nan")
    )
    space = {"dropout": {"low": 0, "high": 0.5}}
    config = write(tmp_path / "recipe.yaml", tune=RECIPE["tune"] | {"space": space})
    run(config, corpus_folder, tmp_path / "study", 2)
    found = trials_of(tmp_path / "study")
    assert [trial.state for trial in found] == [TrialState.PRUNED] * 2
    assert "the loss became" in found[0].user_attrs["stopped"]
    assert "2, of which 2 diverged" in (tmp_path / "study" / "study.md").read_text()


def test_a_full_disk_stops_the_study_and_is_no_trials_fault(
    config: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def full(*_: Any) -> None:
        raise TrainingStopped("the checkpoint can't be written: no space left; make room")

    out = tmp_path / "study"
    with monkeypatch.context() as patch:
        patch.setattr("training.train.engine.fit", full)
        run(config, corpus_folder, out, 1, code=2)
    said = capsys.readouterr().err
    assert "error: the checkpoint can't be written: no space left; make room\n" in said
    assert "Traceback" not in said
    replace_measure(monkeypatch, measure_by_learning_rate([]))
    run(config, corpus_folder, out, 1)
    failed, again = trials_of(out)
    assert (failed.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.params == DEFAULT


def test_later_folds_are_spared_where_the_first_is_poor(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def measure(bench, parameters, seed, fold, folder, on_epoch=None) -> float:
        auroc = 0.9 - 0.001 * len(seen)
        seen.append(fold)
        if on_epoch:
            on_epoch({"epoch": 1, "validation_auroc": auroc})
        return auroc

    replace_measure(monkeypatch, measure)
    config = write(tmp_path / "recipe.yaml", tune=RECIPE["tune"] | {"folds": [0, 1]})
    run(config, corpus_folder, tmp_path / "study", 4)
    found = trials_of(tmp_path / "study")
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 2 + ["PRUNED"] * 2
    assert [list(trial.intermediate_values) for trial in found] == [[0, 1]] * 2 + [[0]] * 2


def test_several_processes_are_refused(
    config: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # as accelerate launch sets it
    run(config, corpus_folder, tmp_path / "study", 1, code=2)
    assert "start several, not one with accelerate launch" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_accelerate_launch_with_several_processes_is_refused(
    config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    launched = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]  # of one: CPU
    asked = arguments(config, corpus_folder, tmp_path / "study", 1)
    ended = subprocess.run(
        [*launched, "--num_processes", "2", "--num_machines", "1", "-m", "training.tune", *asked],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode
    assert "start several, not one with accelerate launch" in ended.stderr
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_the_best_trials_recipe_trains(finished: Path, corpus_folder: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as end:
        command.run(
            train.main,
            ["--config", str(finished / "tuned.yaml"), "--corpus", str(corpus_folder), *out],
        )
    assert end.value.code == 0
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["arm"] == "tuned"
