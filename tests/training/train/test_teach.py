"""What runs' answers teach another run, and which runs may teach it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bcd_models import BCDClassifier
from bcd_models.config import HeldOut, Provenance
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from tests.support import small_runs
from training import command
from training.corpus.selection import Corpus, open_corpus, select_data
from training.evaluate import answers
from training.recipes.schema import Recipe
from training.run_folder import MODEL
from training.train import run as train
from training.train.teach import average_teachers

HELD = HeldOut(fold=1)
PLAN = Recipe.model_validate(small_runs.RECIPE | {"teachers": 0.5})

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def opened(corpus_folder: Path) -> Corpus:
    return open_corpus(corpus_folder, "grouped")


@pytest.fixture(scope="module")
def learnt(opened: Corpus) -> pd.DataFrame:
    """The rows that the student learns from."""
    return select_data(opened, PLAN, HELD).training.frame


@pytest.fixture
def make(opened: Corpus, telling: Path, tmp_path: Path) -> Make:
    """A run's folder: its model and what it says of each row."""

    def made(name: str, margins: np.ndarray, held: HeldOut = HELD, **decision: float) -> Path:
        run = tmp_path / name
        shutil.copytree(telling, run / MODEL)
        model = BCDClassifier.from_pretrained(run / MODEL)
        provenance = Provenance(
            corpus_fingerprint=opened.about["fingerprint"],
            split="grouped",
            split_sha256=opened.split.sha256,
            held_out=held,
            recipe=small_runs.RECIPE,
        )
        rule = model.config.decision.model_copy(update=decision)
        model.config = model.config.model_copy(update={"provenance": provenance, "decision": rule})
        model.save_pretrained(run / MODEL)
        pd.DataFrame({"other": margins}).astype(np.float16).to_parquet(run / answers.ANSWERS)
        return run

    return made


@pytest.fixture
def margins(opened: Corpus) -> np.ndarray:
    """Of all rows that are neither held out nor of test; else null, as a run records it."""
    drawn = np.random.default_rng(0).normal(size=len(opened.table)).round(1)
    asked = (opened.split.part != "test") & (opened.split.fold != HELD.fold)
    return np.where(asked, drawn, np.nan)


def test_a_student_hears_the_mean_of_calibrated_probabilities(
    make: Make, margins: np.ndarray, opened: Corpus, learnt: pd.DataFrame
) -> None:
    rules: list[dict[str, float]] = [{"slope": 2.0, "intercept": 0.5}, {"slope": 0.5}]
    said = [margins, 1 - margins]
    runs = [make(f"run-{i}", said[i], **rules[i]) for i in (0, 1)]
    heard = average_teachers(opened, learnt, PLAN, HELD, runs)
    each = [
        calibrate(one.astype(np.float16), model_folder.read_config(run / MODEL).decision)
        for one, run in zip(said, runs, strict=True)
    ]
    by_image = dict(zip(opened.table["sha256"], np.mean(each, axis=0), strict=True))
    assert heard == pytest.approx([by_image[image] for image in learnt["sha256"]], abs=1e-6)
    assert np.ptp(heard) > 0.1
    assert average_teachers(opened, learnt, Recipe(**small_runs.RECIPE), HELD, []) is None


def test_only_runs_that_held_out_the_same_may_teach(
    make: Make, margins: np.ndarray, opened: Corpus, learnt: pd.DataFrame
) -> None:
    for name, held, words in (
        ("other", HeldOut(fold=0), "fold 0"),
        ("final", HeldOut(nothing=True), "train and validation"),
        ("plain", HeldOut(), "validation"),
    ):
        run = make(name, margins, held)
        with pytest.raises(InputError, match=f"{name} held out {words}: a teacher holds out"):
            average_teachers(opened, learnt, PLAN, HELD, [run])


def test_a_teacher_of_another_corpus_is_refused(
    make: Make, margins: np.ndarray, opened: Corpus, learnt: pd.DataFrame, older_corpus: Path
) -> None:
    run = make("run", margins)
    with pytest.raises(InputError, match="the model was trained on corpus"):
        average_teachers(open_corpus(older_corpus, "grouped"), learnt, PLAN, HELD, [run])


def test_teachers_speak_of_every_row_that_is_learnt_from(
    make: Make, margins: np.ndarray, opened: Corpus, learnt: pd.DataFrame
) -> None:
    margins[np.flatnonzero(~np.isnan(margins))[0]] = np.nan
    with pytest.raises(InputError, match="did not learn from all that is learnt from"):
        average_teachers(opened, learnt, PLAN, HELD, [make("run", margins)])


@pytest.mark.parametrize(("share", "count"), [(0.5, 0), (0.0, 1)])
def test_teachers_and_their_share_come_together(
    make: Make,
    margins: np.ndarray,
    opened: Corpus,
    learnt: pd.DataFrame,
    share: float,
    count: int,
) -> None:
    plan = PLAN.model_copy(update={"teachers": share})
    runs = [make("run", margins)] * count
    with pytest.raises(InputError, match=f"a share of {share:g} from teachers and {count} are"):
        average_teachers(opened, learnt, plan, HELD, runs)


def test_a_run_hears_its_teachers_and_says_so(
    make: Make, margins: np.ndarray, corpus_folder: Path, tmp_path: Path
) -> None:
    teacher = make("teacher", margins)
    changes: dict[str, Any] = {"phases": [{"size": 32, "epochs": 1}], "ema": 0.0}
    models = {}
    for name, share, more in (
        ("taught", 1.0, ["--teacher", str(teacher)]),
        ("untaught", 0.0, []),
    ):
        config = small_runs.write(tmp_path / f"{name}.yaml", teachers=share, **changes)
        asked = small_runs.arguments(config, corpus_folder, tmp_path / name, "--fold", "1", *more)
        with pytest.raises(SystemExit) as end:
            command.run(train.main, asked)
        assert end.value.code == 0
        models[name] = BCDClassifier.from_pretrained(tmp_path / name / MODEL)
    taken = hashlib.sha256((teacher / answers.ANSWERS).read_bytes()).hexdigest()
    assert list(models["taught"].config.provenance.inputs.values()) == [taken]
    assert models["untaught"].config.provenance.inputs == {}
    assert models["taught"].weights_sha256 != models["untaught"].weights_sha256
