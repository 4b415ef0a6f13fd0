"""The robustness ladder on a miniature corpus, with fold models as if trained on it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bcd_models.config import HeldOut
from bcd_models.errors import InputError
from bcd_models.local.ladder import LADDER, Rung
from bcd_models.local.robustness import RungFigures, degrade
from tests.support.small_runs import RECIPE
from training import command
from training.corpus import build as corpus
from training.corpus.selection import find_unlearnt_rows, open_corpus
from training.evaluate import robustness

SHORT = tuple(r for r in LADDER if r.name in ("jpeg_80_420", "turn_180", "brightness_-30"))
SAME = Rung("same", "the same", "as they are", lambda pixels, _: pixels)
WHITE = Rung("white", "glass", "all of it", lambda pixels, _: np.full_like(pixels, 255))


@pytest.fixture(scope="module")
def measured(make_fold_model, corpus_folder: Path) -> robustness.Robustness:
    models = [make_fold_model(fold=fold) for fold in (0, 1, 2)]
    return robustness.climb(models, corpus_folder, (SAME, *SHORT, WHITE))


def rung(document: robustness.Robustness, name: str) -> RungFigures:
    return next(one for one in document.rungs if one.name == name)


def test_folds_are_pooled_over_what_they_held_out(
    measured: robustness.Robustness, corpus_folder: Path
) -> None:
    opened = open_corpus(corpus_folder, "grouped")
    out = opened.table[opened.table["fold"].isin([0, 1, 2]) & (opened.table["source"] == "idc")]
    counts = measured.draw.counts
    assert (counts.images, counts.cases) == (len(out), out["case_id"].nunique())
    assert len(measured.models) == 3
    assert measured.draw.source == "idc"


def test_the_same_images_differ_by_nothing(measured: robustness.Robustness) -> None:
    same = rung(measured, "same")
    assert same.figures == measured.clean
    for name in ("auroc", "recall", "specificity"):
        gap = getattr(same.minus_clean, name)
        assert (gap.value, gap.low, gap.high) == (0, 0, 0)
    assert measured.clean.auroc.value > 0.8  # it tells them apart, or else nothing can be lost


def test_a_ladder_says_where_a_model_stops_being_usable(measured: robustness.Robustness) -> None:
    white = rung(measured, "white")
    assert white.figures.auroc.value == 0.5
    assert white.figures.recall.value + white.figures.specificity.value == 1
    assert not white.is_usable
    assert measured.stops_at["glass"] == "white"
    assert measured.stops_at["the same"] is None


def test_the_table_says_what_it_was_measured_on(measured: robustness.Robustness) -> None:
    text = robustness.tabulate(measured)
    assert "| **glass, all of it** |" in text
    assert "| the same, as they are |" in text
    assert f"of {measured.draw.counts.cases} cases (2000 of 100 were asked for)" in text


def test_a_record_is_read_strictly(measured: robustness.Robustness, tmp_path: Path) -> None:
    path = tmp_path / "robustness.json"
    path.write_text(measured.model_dump_json())
    sha256 = measured.models[0].weights_sha256
    assert robustness.read(path, sha256) == measured
    with pytest.raises(InputError, match="of other weights"):
        robustness.read(path, "0" * 64)
    path.write_text(measured.model_dump_json().replace('"clean"', '"dirty"', 1))
    with pytest.raises(InputError, match="clean"):
        robustness.read(path, sha256)
    with pytest.raises(InputError, match="can't be read"):
        robustness.read(tmp_path / "none.json", sha256)


def test_rows_learnt_from_are_never_scored(corpus_folder: Path) -> None:
    opened = open_corpus(corpus_folder, "grouped")
    for held in (HeldOut(), HeldOut(fold=3), HeldOut(nothing=True)):
        rows = find_unlearnt_rows(opened, held)
        assert rows.any()
        parts = set(opened.split.part[rows])
        assert parts == ({"test"} if held.nothing else parts - {"test"})
        if held.fold is not None:
            assert set(opened.split.fold[rows]) == {3}


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"fold": 0}, "two models have not learnt from fold 0"),
        ({"fold": 1, "changes": {"recipe": RECIPE | {"ema": 0.5}}}, "not of one recipe"),
        ({"fold": 1, "changes": {"corpus_fingerprint": "beef"}}, "not of one recipe"),
    ],
)
def test_models_that_do_not_belong_together_are_refused(
    make_fold_model, corpus_folder: Path, second: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        robustness.climb(
            [make_fold_model(fold=0), make_fold_model(**second)], corpus_folder, (SAME,)
        )


def test_a_model_of_another_corpus_is_refused(make_fold_model, corpus_folder: Path) -> None:
    other = make_fold_model(fold=0, changes={"split_sha256": "beef"})
    with pytest.raises(InputError, match="grouped split is not the split"):
        robustness.climb([other], corpus_folder, (SAME,))


@pytest.mark.parametrize("held", [{"fold": 0}, {"nothing": True}])
def test_all_folds_are_measured_on_one_draw_and_refits_on_test(
    corpus_folder: Path, held: dict[str, Any]
) -> None:
    opened = open_corpus(corpus_folder, "grouped")
    drawn = robustness.draw_rows(opened, HeldOut.model_validate(held))
    assert set(drawn["source"]) == {"idc"}
    assert set(opened.split.part[drawn.index]) == (
        {"test"} if held.get("nothing") else {"train", "validation"}
    )
    assert drawn.equals(robustness.draw_rows(opened, HeldOut.model_validate(held | {"fold": 1})))


def test_what_is_drawn_for_a_patch_depends_on_its_row_alone() -> None:
    noise = next(rung for rung in LADDER if rung.kind == "noise")
    patches = [np.full((8, 8, 3), 128, np.uint8)] * 3
    alone, *_ = degrade(noise, patches[:1], [7])
    _, last, same = degrade(noise, patches, [3, 8, 7])
    assert np.array_equal(alone, same)
    assert not np.array_equal(last, same)


def test_the_views_of_the_decision_rule_are_averaged(
    make_fold_model, corpus_folder: Path, measured: robustness.Robustness
) -> None:
    models = [make_fold_model(fold=fold) for fold in (0, 1, 2)]
    for model in models:
        decision = model.config.decision.model_copy(update={"views": 8})
        model.config = model.config.model_copy(update={"decision": decision})
    eight = robustness.climb(models, corpus_folder, ()).clean
    assert eight != measured.clean
    assert [model.config.decision.views for model in models] == [8, 8, 8]


def test_a_draw_takes_as_many_from_each_case() -> None:
    cases = ["deep"] * 90 + ["half"] * 20 + ["few"] * 3
    frame = pd.DataFrame({"case_id": cases})
    drawn = robustness.draw_patches(frame, 43)
    assert drawn["case_id"].value_counts().to_dict() == {"deep": 20, "half": 20, "few": 3}
    assert drawn.equals(robustness.draw_patches(frame, 43))
    assert not drawn.index.equals(robustness.draw_patches(frame, 43, seed=1).index)
    assert len(robustness.draw_patches(frame, 1000)) == len(frame)


def test_the_command_writes_the_record(
    make_fold_model, corpus_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    folder, out = tmp_path / "model", tmp_path / "new" / "robustness.json"
    make_fold_model(nothing=True).save_pretrained(folder)
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr(robustness.climb, "__defaults__", (SHORT[:1],))
    asked = ["--model", str(folder), "--corpus", str(corpus_folder), "--out", str(out)]
    with pytest.raises(SystemExit) as end:
        command.run(robustness.main, asked)
    assert end.value.code == 0
    written = robustness.read(out, sha256)
    assert capsys.readouterr().out == robustness.tabulate(written)
    _, about = corpus.load(corpus_folder)
    assert written.draw.corpus_fingerprint == about["fingerprint"]
