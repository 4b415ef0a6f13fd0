"""Small studies: their recipe, and the command that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from training import command
from training.recipes import schema as recipe
from training.tune import search as tune
from training.tune.storage import open_storage, sqlite_url

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


def make_recipe(**changes: Any) -> recipe.Recipe:
    """Return the recipe with some keys changed."""
    return recipe.Recipe.model_validate(RECIPE | changes)


def write(path: Path, **changes: Any) -> Path:
    """The recipe with some keys changed, as a file."""
    path.write_text(yaml.safe_dump(RECIPE | changes))
    return path


def arguments(config: Path, corpus: Path, out: Path, count: int, *more: str) -> list[str]:
    """Of ``training.tune``."""
    asked = ["--config", str(config), "--corpus", str(corpus), "--out", str(out)]
    return [*asked, "--trials", str(count), *more]


def run(*asked: Any, code: int = 0) -> None:
    """Run ``training.tune`` in this process."""
    with pytest.raises(SystemExit) as end:
        command.run(tune.main, arguments(*asked))
    assert end.value.code == code


@contextmanager
def study_at(out: Path, storage: str | None = None) -> Iterator[optuna.Study]:
    """A study as another worker would see it."""
    with open_storage(storage or sqlite_url(out), 1) as kept:
        yield optuna.load_study(study_name=out.name, storage=kept)


def trials_of(out: Path, storage: str | None = None) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study."""
    with study_at(out, storage) as study:
        return study.trials


def measure_by_learning_rate(seen: list[dict[str, float]]) -> Any:
    """Trainings that take no time, and whose AUROC is best at a learning rate of 0.001."""

    def measure(
        bench: Any,
        parameters: dict[str, float],
        seed: int,
        fold: int,
        folder: Path,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> float:
        seen.append(dict(parameters))
        auroc = 0.9 - abs(parameters["phases.learning_rate"] - 0.001) + seed * 1e-4
        if on_epoch:
            on_epoch({"epoch": 1, "validation_auroc": auroc})
        return auroc

    return measure
