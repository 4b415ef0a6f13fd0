"""What a run is recorded to say: of which rows, in which ways, and as a user would hear it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bcd_models import BCDClassifier
from bcd_models.config import HeldOut, Provenance
from bcd_models.decision import log_odds
from bcd_models.errors import InputError
from bcd_models.images.preprocess import normalise, resize
from bcd_models.local.degradations import zoom
from bcd_models.local.ladder import LADDER
from tests.support.small_runs import RECIPE
from training import command
from training.corpus.selection import Corpus, open_corpus
from training.evaluate import answers
from training.run_folder import MODEL

VIEWS = ["views_1", "views_4", "views_8"]
RESIZED = ["field_0.8", "field_1.25", "size_128", "size_160"]
RUNGS = [rung.name for rung in LADDER]
HELD_FOLD = 2

Make = Callable[..., BCDClassifier]


@pytest.fixture(scope="module")
def opened(corpus_folder: Path) -> Corpus:
    return open_corpus(corpus_folder, "grouped")


@pytest.fixture(scope="module")
def make(opened: Corpus, telling: Path) -> Make:
    """A model that tells drawn tumour, as if trained by some recipe with something held out."""

    def made(held: HeldOut, **recipe: Any) -> BCDClassifier:
        model = BCDClassifier.from_pretrained(telling)
        provenance = Provenance(
            corpus_fingerprint=opened.about["fingerprint"],
            split="grouped",
            split_sha256=opened.split.sha256,
            held_out=held,
            recipe=RECIPE | recipe,
        )
        model.config = model.config.model_copy(update={"provenance": provenance})
        return model

    return made


@pytest.fixture(scope="module")
def recorded(make: Make, opened: Corpus) -> pd.DataFrame:
    """Of a fold model whose recipe asks for four views."""
    return answers.record(make(HeldOut(fold=HELD_FOLD), views=4), opened)


def find_rows(column: pd.Series) -> set[int]:
    return set(column.index[column.notna()])


def rows_where(mask: pd.Series) -> set[int]:
    return set(np.flatnonzero(mask))


def test_a_line_a_row_and_a_column_a_way(recorded: pd.DataFrame, opened: Corpus) -> None:
    assert len(recorded) == len(opened.table)
    assert list(recorded.columns) == [*VIEWS, "other", *RUNGS, *RESIZED]
    assert set(recorded[VIEWS].dtypes) == {np.dtype("float32")}
    assert set(recorded.drop(columns=VIEWS).dtypes) == {np.dtype("float16")}


def test_what_was_held_out_is_asked_in_every_way_and_nothing_else_is(
    recorded: pd.DataFrame, opened: Corpus
) -> None:
    held_out = rows_where(opened.split.fold == HELD_FOLD)
    of_larger = held_out & rows_where(opened.table["source"] == "idc")
    assert held_out
    for name in (*VIEWS, *RESIZED):
        assert find_rows(recorded[name]) == held_out, name
    for name in RUNGS:  # fewer than a draw takes: all of them
        assert find_rows(recorded[name]) == of_larger, name
    test = rows_where(opened.split.part == "test")
    assert test
    assert find_rows(recorded["other"]) == set(range(len(opened.table))) - held_out - test


def test_rows_of_a_source_left_out_are_asked_of_test_as_well(make: Make, opened: Corpus) -> None:
    model = make(HeldOut(fold=HELD_FOLD), sources=["breakhis"])
    found = find_rows(answers.record(model, opened)["other"])
    held_out = rows_where(opened.split.fold == HELD_FOLD)
    test = rows_where(opened.split.part == "test")
    left_out = rows_where(opened.table["source"] != "breakhis")
    assert test & left_out
    assert found == set(range(len(opened.table))) - held_out - (test - left_out)


def test_a_refit_is_asked_of_what_it_learnt_alone(make: Make, opened: Corpus) -> None:
    found = answers.record(make(HeldOut(nothing=True)), opened)
    assert list(found.columns) == ["other"]
    assert find_rows(found["other"]) == rows_where(opened.split.part != "test")


def read_patches(opened: Corpus, rows: list[int]) -> list[np.ndarray]:
    return [np.asarray(image.convert("RGB")) for image in opened.rows.select(rows)["image"]]


def ask(model: BCDClassifier, patches: list[np.ndarray], views: int) -> np.ndarray:
    """The margins behind what a user is told of patches."""
    decision = model.config.decision.model_copy(update={"views": views})
    model.config = model.config.model_copy(update={"decision": decision})
    told = [model.predict(patch, mpp=model.mpp).probability for patch in patches]
    return (log_odds(told) - decision.intercept) / decision.slope


def test_a_user_hears_what_is_recorded(recorded: pd.DataFrame, opened: Corpus, make: Make) -> None:
    model = make(HeldOut(fold=HELD_FOLD))
    held_out = opened.table[(opened.split.fold == HELD_FOLD) & (opened.table["source"] == "idc")]
    rows = sorted([*held_out.index[:2], *held_out.index[-2:]])
    patches = read_patches(opened, rows)
    said = recorded.loc[rows].astype(float)
    for views in answers.VIEWS:
        expected = ask(model, patches, views)
        assert said[f"views_{views}"].to_numpy() == pytest.approx(expected, abs=1e-4)
    assert not np.allclose(said["views_1"], said["views_8"], atol=1e-3)
    other = sorted(find_rows(recorded["other"]))[:3]
    expected = ask(model, read_patches(opened, other), 1)
    assert recorded["other"].loc[other].to_numpy(float) == pytest.approx(expected, abs=2e-3)
    for rung in LADDER[::7]:
        seeded = [np.random.default_rng((0, row)) for row in rows]
        worse = [rung.apply(patch, rng) for patch, rng in zip(patches, seeded, strict=True)]
        assert said[rung.name].to_numpy() == pytest.approx(ask(model, worse, 4), abs=2e-3)
    for share in (0.8, 1.25):  # a smaller field is shown larger
        shown = ask(model, [zoom(patch, 1 / share) for patch in patches], 1)
        assert said[f"field_{share:g}"].to_numpy() == pytest.approx(shown, abs=2e-3)
    for size in answers.SIZES:
        inputs = normalise([resize(patch, size) for patch in patches], model.config.preprocess)
        with torch.inference_mode():
            logits = model.network(torch.from_numpy(inputs)).numpy()
        expected = logits[:, 1] - logits[:, 0]
        assert said[f"size_{size}"].to_numpy() == pytest.approx(expected, abs=2e-3)


def test_a_transformer_is_asked_at_whole_patches(opened: Corpus, make: Make) -> None:
    """Of 14 pixels a side: at 126 and 154 of them, not 128 and 160."""
    given = make(HeldOut(fold=HELD_FOLD)).config
    preprocess = given.preprocess.model_copy(update={"input_size": 98})
    config = given.model_copy(update={"backbone": "vit_small", "preprocess": preprocess})
    few = opened.split.fold.where(opened.split.fold != HELD_FOLD, -1)  # but for one row
    row = int(np.flatnonzero(opened.split.fold == HELD_FOLD)[0])
    few.iloc[row] = HELD_FOLD
    part = opened.split.part.where(few == HELD_FOLD, "test")  # and all else is left alone
    split = dataclasses.replace(opened.split, fold=few, part=part)
    model = BCDClassifier(config)
    said = answers.record(model, dataclasses.replace(opened, split=split)).loc[row]
    (patch,) = read_patches(opened, [row])
    for name, side in {"size_128": 126, "size_160": 154}.items():
        inputs = normalise([resize(patch, side)], config.preprocess)
        with torch.inference_mode():
            logits = model.network(torch.from_numpy(inputs)).numpy()
        assert float(said[name]) == pytest.approx(logits[0, 1] - logits[0, 0], abs=2e-3)


def test_a_model_of_another_corpus_is_refused(make: Make, opened: Corpus) -> None:
    model = make(HeldOut(fold=HELD_FOLD))
    other = model.config.provenance.model_copy(update={"corpus_fingerprint": "beef"})
    model.config = model.config.model_copy(update={"provenance": other})
    with pytest.raises(InputError, match="was trained on corpus beef"):
        answers.record(model, opened)


def test_the_command_writes_them_beside_the_model(
    make: Make, corpus_folder: Path, opened: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"answers\.parquet can't be read"):
        answers.read(tmp_path)
    model = make(HeldOut(nothing=True))
    model.save_pretrained(tmp_path / MODEL)
    with pytest.raises(SystemExit) as end:
        command.run(answers.main, [str(tmp_path), "--corpus", str(corpus_folder)])
    assert end.value.code == 0
    pd.testing.assert_frame_equal(answers.read(tmp_path), answers.record(model, opened))
