"""Recipe to model folder on a miniature corpus, through the commands a user types."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from bcd_models import BCDClassifier
from bcd_models.errors import InputError
from training import card, command, evaluate, recipe, train

RECIPE = {
    "name": "bcd-small",
    "version": "0.0.1",
    "backbone": "mobilenetv2",
    "start": "none",
    "settle_batches": 1,
    "phases": [
        {"size": 32, "epochs": 1, "learning_rate": 0.002},
        {"size": 48, "epochs": 1, "learning_rate": 0.001},
    ],
    "batch_size": 16,
    "ema": 0.9,
    "augment": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "mixup": 0.2},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def arguments(config: Path, corpus: Path, out: Path, *more: str) -> list[str]:
    return ["--config", str(config), "--corpus", str(corpus), "--out", str(out), *more]


@pytest.fixture(scope="module")
def run(config: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(SystemExit) as end:
        command.run(train.main, arguments(config, corpus_folder, out))
    assert end.value.code == 0
    return out


def test_a_run_folder_tells_the_whole_story(run: Path, config: Path) -> None:
    lines = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
    assert [line["size"] for line in lines] == [32, 48]
    assert all(0 <= line["validation_auroc"] <= 1 for line in lines)
    assert recipe.read(run / "recipe.yaml") == recipe.read(config)
    record = json.loads((run / "run.json").read_text())
    assert torch.__version__.startswith(record["versions"]["torch"])
    assert (run / "learning-curves.png").stat().st_size > 5000
    provenance = BCDClassifier.from_pretrained(run / "model").config.provenance
    assert provenance.split == "grouped"
    assert provenance.recipe["phases"][0]["size"] == 32


def test_evaluation_and_card_follow(run: Path, corpus_folder: Path, capsys) -> None:
    out = run / "model" / "metrics.json"
    with pytest.raises(SystemExit) as end:
        command.run(
            evaluate.main,
            ["--model", str(run / "model"), "--corpus", str(corpus_folder), "--out", str(out)],
        )
    assert end.value.code == 0
    metrics = json.loads(out.read_text())
    assert metrics["data"]["part"] == "test"
    for name in card.WORDS:
        entry = metrics["overall"][name]
        assert entry["low"] <= entry["value"] <= entry["high"]
    assert metrics["floors"]["source_alone"]["auroc"]["value"] == 0.5
    assert metrics["data"]["only_trained_on"]["breakhis"]["cases"] == 4
    text = card.render(run / "model")
    assert card.percent("auroc", metrics["overall"]["auroc"]["value"]) in text
    assert "research use only" in text.lower()
    assert "not validated" in text

    metrics["model"]["weights_sha256"] = "other"
    out.write_text(json.dumps(metrics))
    with pytest.raises(InputError, match="measures other weights"):
        card.render(run / "model")


def test_a_killed_run_resumes_to_the_very_same_weights(
    run: Path, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    asked = arguments(config, corpus_folder, out)
    running = subprocess.Popen(
        [sys.executable, "-m", "training.train", *asked],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 200
    while not (out / "checkpoint").exists():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    train.train(config, corpus_folder, out)
    resumed = load_file(out / "model" / "model.safetensors")
    unbroken = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in unbroken.items())
    assert len((out / "epochs.jsonl").read_text().splitlines()) == 2


def test_runs_are_never_mixed_up(
    run: Path, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is not empty"):
        train.main(config, corpus_folder, run)
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(RECIPE | {"seed": 5}))
    with pytest.raises(InputError, match="begun with another recipe"):
        train.main(other, corpus_folder, run, resume=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"backbone": "vgg"}, "no backbone 'vgg'"),
        ({"batch_size": 0}, "batch_size"),
        ({"augment": {"mixup": -1}}, r"augment\.mixup"),
        ({"phases": []}, "phases"),
    ],
)
def test_recipes_are_read_strictly(tmp_path: Path, change: dict, reason: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | change))
    with pytest.raises(InputError, match=reason):
        recipe.read(path)


def test_every_recipe_of_the_project_is_valid() -> None:
    configs = sorted(recipe.Path(train.__file__).parent.glob("configs/*.yaml"))
    assert {recipe.read(path).backbone for path in configs} == {"mobilenetv2", "efficientnet_b2"}
    assert all(recipe.read(path).phases[-1].size == 224 for path in configs)


def test_start_weights_must_fit(tmp_path: Path, config: Path, corpus_folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"elsewhere": torch.zeros(1)}, tmp_path / "start.safetensors")
    with pytest.raises(InputError, match="do not fit the network: elsewhere"):
        train.train(config, corpus_folder, tmp_path / "run", tmp_path / "start.safetensors")
    (tmp_path / "text").write_text("text")
    with pytest.raises(InputError, match="not a safetensors file"):
        train.train(config, corpus_folder, tmp_path / "run", tmp_path / "text")
