"""Ways of asking, compared on answers whose gains are known."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from bcd_models.config import Estimate, HeldOut, Provenance
from bcd_models.local.ladder import LADDER
from tests.support.reports import make_report
from training.compare import goals, page, published, schema, ways
from training.compare.runs import Missing, Run
from training.corpus.selection import open_corpus
from training.evaluate import answers
from training.recipes import schema as recipe
from training.run_folder import RUN_FILE

SIDE = 12
COLUMNS = [*(f"views_{n}" for n in answers.VIEWS), *(rung.name for rung in LADDER)]


def whole_case(number: int, rng: np.random.Generator) -> pd.DataFrame:
    """A square of patches with carcinoma in one half, each margin with noise of its own."""
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    malignant = columns >= SIDE // 2
    margins = rng.normal(malignant * 1.5, 1.5)
    names = [
        f"{number}_idx5_x{50 * column + 1}_y{50 * row + 1}_class0.png"
        for row, column in zip(rows, columns, strict=True)
    ]
    frame = pd.DataFrame({"name": names, "margin": margins})
    return frame.assign(case_id=f"idc/{number}", malignant=malignant, fold=number % 5)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Four whole cases, and twenty of which single patches are there."""
    rng = np.random.default_rng(0)
    parts = [whole_case(number, rng) for number in range(24)]
    parts = [one if i < 4 else one.sample(30, random_state=i) for i, one in enumerate(parts)]
    whole = pd.concat(parts, ignore_index=True)
    truth = whole.pop("malignant")
    whole["label"] = np.where(truth, "malignant", "benign")
    margins = whole.pop("margin")
    return whole.assign(
        source="idc",
        sha256=[f"{row:064x}" for row in whole.index],
        **{ways.BASE: margins, "field_0.8": margins, "field_1.25": margins},
        views_4=margins + 0.5 * truth,
        views_8=margins + truth,
        size_128=margins + rng.normal(0, 3, len(whole)),
    )


def test_a_way_is_measured_against_one_view(frame: pd.DataFrame) -> None:
    found = ways.compare_ways(frame)
    truth = frame["label"] == "malignant"
    assert found["views_1"].value == pytest.approx(roc_auc_score(truth, frame[ways.BASE]))
    assert 0 < found["views_4"].low < found["views_8"].value
    assert found["size_128"].high < 0
    assert found["three fields"].value == pytest.approx(0)
    assert set(found) - {"three fields"} <= {ways.BASE, *ways.ALONE}


def test_whole_cases_alone_have_neighbours(frame: pd.DataFrame) -> None:
    assert [case for case, _ in ways.find_whole_cases(frame)] == [f"idc/{i}" for i in range(4)]
    grid, places = ways.lay_out(frame[frame["case_id"] == "idc/1"])
    assert grid.shape == (SIDE, SIDE)
    assert (grid[places] == frame[ways.BASE][frame["case_id"] == "idc/1"]).all()


def test_neighbours_lift_a_noisy_case_by_a_width_chosen_on_the_others(frame: pd.DataFrame) -> None:
    found = ways.compare_context(frame)
    assert found is not None
    assert [line.tiles for line in found.cases] == [SIDE * SIDE] * 4
    for line in found.cases:
        assert line.sigma > 0
        assert line.with_neighbours.auroc > line.alone.auroc + 0.1
    own = frame[frame["case_id"] == "idc/0"]
    by_hand = roc_auc_score(own["label"] == "malignant", own[ways.BASE])
    assert found.cases[0].alone.auroc == pytest.approx(by_hand)
    assert ways.compare_context(frame[frame["case_id"] != "idc/0"].iloc[2 * SIDE * SIDE :]) is None


def test_two_networks_are_an_ensemble_and_two_seeds_are_none(frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(3)
    other = frame.assign(views_4=frame["views_4"] + rng.normal(0, 0.2, len(frame)))
    independent = frame.assign(
        views_4=rng.normal((frame["label"] == "malignant") * 2, 1.5, len(frame))
    )
    arms = {"a/x, seed 0": frame, "a/x, seed 1": other, "b/x, seed 0": independent}
    found = ways.compare_ensembles([make_arm(*one) for one in arms.items()])
    assert {one.members for one in found} == {
        ("a/x, seed 0", "b/x, seed 0"),
        ("a/x, seed 1", "b/x, seed 0"),
    }
    assert all(one.minus_best.low > 0 for one in found)


def make_arm(name: str, frame: pd.DataFrame) -> ways.Arm:
    return ways.Arm(name, tuple(range(5)), 4, frame.reset_index(drop=True), {})


def test_what_is_asked_for_is_what_is_recorded() -> None:
    recorded = {f"views_{n}" for n in answers.VIEWS} | {f"field_{s:g}" for s in answers.FIELDS}
    recorded |= {f"size_{side}" for side in answers.SIZES}
    assert recorded <= {ways.BASE, *ways.ALONE, *ways.FIELDS}


@pytest.fixture(scope="module")
def earlier(frame: pd.DataFrame) -> pd.DataFrame:
    """Margins of an earlier release: of half the images, worse than ours with eight views."""
    half = frame[frame.index % 2 == 0]
    table = half[["sha256", "source", "case_id", "label"]].copy()
    for arm in ("tuned", "tuned-8-views"):
        for fold in range(5):
            table[f"mobilenetv2/{arm}/fold-{fold}"] = half["views_1"].where(half["fold"] == fold)
    return table.assign(**{"mobilenetv2/tuned/random": half["views_8"].where(half.index % 3 == 0)})


@pytest.fixture(scope="module")
def asked(frame: pd.DataFrame, earlier: pd.DataFrame) -> schema.Asked:
    """An arm that blur and noise mislead, and another source, turned over."""
    rungs = {rung.name: frame["views_4"] for rung in LADDER}
    rungs |= {"blur_1": frame["views_4"] - 2, "noise_5": -frame["views_4"]}
    drawn = frame.index % 3 != 0
    rungs = {name: margins.where(drawn) for name, margins in rungs.items()}
    other = frame[frame["case_id"].isin([f"idc/{i}" for i in range(12)])].copy()
    other["name"] = other["name"] + "#r0c0"
    other["subtype"] = np.where(other["label"] == "malignant", "ductal carcinoma", "adenosis")
    other = other.assign(source="breakhis", margin=-other["views_1"])
    other["case_id"] += np.where(other["label"] == "malignant", "/m", "/b")
    arm = ways.Arm(
        "mobilenetv2/degraded, seed 0",
        (0, 1, 2, 3, 4),
        4,
        frame.assign(**rungs),
        {"breakhis": (False, other)},
    )
    grey = [np.full((50, 50, 3), 60 + 40 * (i % 4), np.uint8) for i in range(len(frame))]
    return ways.measure_arm(arm, grey, earlier)


def test_a_rung_is_measured_at_the_clean_threshold(
    asked: schema.Asked, frame: pd.DataFrame
) -> None:
    found = {rung.name: rung.minus_clean for rung in asked.climb.rungs}
    assert found["turn_90"].recall.value == 0
    assert found["blur_1"].recall.high < -0.2
    assert found["blur_1"].specificity.low > 0
    assert abs(found["blur_1"].auroc.value) < 0.02
    assert found["noise_5"].auroc.high < -0.2
    drawn = frame[frame.index % 3 != 0]
    by_hand = roc_auc_score(drawn["label"] == "malignant", drawn["views_4"])
    assert asked.climb.clean.auroc.value == pytest.approx(by_hand, abs=0.02)
    assert asked.climb.stops_at["blur"] == "blur_1"
    assert asked.climb.stops_at["turned"] is None


def test_ours_stand_beside_the_published_on_the_same_images(
    asked: schema.Asked, frame: pd.DataFrame
) -> None:
    first, every = asked.clean
    half = frame[frame.index % 2 == 0]
    truth = half["label"] == "malignant"
    gained = roc_auc_score(truth, half["views_8"]) - roc_auc_score(truth, half["views_1"])
    assert first.counts.images == len(half)
    assert first.minus_published["1"].value == pytest.approx(0)
    assert first.minus_published["8"].value == pytest.approx(gained)
    assert every.counts.images == len(frame)
    assert every.minus_published == {}
    assert every.figures["recall"].value > 0.5


def test_quarters_hold_all_images_from_dark_to_bright(
    asked: schema.Asked, frame: pd.DataFrame
) -> None:
    quarters = [group for group in asked.groups if group.by == "brightness"]
    assert [group.low for group in quarters] == [60, 90, 120, 150]
    assert {group.counts.images for group in quarters} == {len(frame) // 4}


def test_another_source_is_measured_by_tile_image_and_case(
    asked: schema.Asked, frame: pd.DataFrame
) -> None:
    (other,) = asked.others
    assert not other.learnt
    assert set(other.auroc) == {"tile", "image", "case"}
    assert other.auroc["tile"].value < 0.5  # its margins were turned over
    assert other.auroc["case"].value < 0.1
    assert other.called["adenosis"][1] > other.called["ductal carcinoma"][1]


def test_a_random_split_is_set_beside_the_folds(earlier: pd.DataFrame, frame: pd.DataFrame) -> None:
    (found,) = published.compare_random(earlier, "idc")
    assert found.counts.images == len(frame[frame.index % 6 == 0])
    assert found.difference.value == pytest.approx(found.random.value - found.grouped.value)
    assert found.difference.low > 0
    with pytest.raises(Missing, match="no run on the random split"):
        published.compare_random(earlier.drop(columns="mobilenetv2/tuned/random"), "idc")


def test_goals_say_what_is_met_and_what_is_not(asked: schema.Asked) -> None:
    found = {goal.words: goal for goal in goals.list_goals((asked,), ())}
    assert found["jpeg_80_420: recall"].met
    assert not found["blur_1: recall"].met
    lost = Estimate(value=-0.06, low=-0.1, high=0)
    spoilt = [
        rung.model_copy(
            update={"minus_clean": rung.minus_clean.model_copy(update={"recall": lost})}
        )
        if rung.name == "jpeg_80_420"
        else rung
        for rung in asked.climb.rungs
    ]
    climb = asked.climb.model_copy(update={"rungs": tuple(spoilt)})
    changed = asked.model_copy(update={"climb": climb})
    again = {goal.words: goal for goal in goals.list_goals((changed,), ())}
    assert not again["jpeg_80_420: recall"].met
    assert again["jpeg_80_420: recall"].bound == -0.05
    assert {words for words, goal in found.items() if not goal.met} == {
        words for words, goal in again.items() if not goal.met
    } - {"jpeg_80_420: recall"}
    few = asked.model_copy(update={"folds": (0, 1)})
    assert goals.list_goals((few,), ()) == ()
    names = {rung.name for rung in LADDER}
    assert goals.MAX_RECALL_LOSS.keys() <= names


def test_the_page_shows_every_way(asked: schema.Asked) -> None:
    report = make_report(asked=(asked,), goals=goals.list_goals((asked,), ()))
    text = page.render(report)
    lines = text.splitlines()
    for rung in LADDER:
        (line,) = [one for one in lines if one.startswith(f"| {rung.kind}, {rung.words}")]
        assert ("**" in line) == (rung.name in asked.climb.stops_at.values())
    for words in ("first sample", "zero-shot", "three fields", "idc/0", "brightness", "**no**"):
        assert words in text
    tables = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert min(tables) > 2
    blocks = re.split(r"\n\n+", text)
    for block in blocks:
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert {line.count("|") for line in lines} == {lines[0].count("|")}, block


def test_answers_are_read_with_their_folds_and_left_out_sources(
    corpus_folder: Path, tmp_path: Path
) -> None:
    opened = open_corpus(corpus_folder, "grouped")
    rng = np.random.default_rng(0)
    runs = []
    for fold in (0, 1):
        held = (opened.split.fold == fold).to_numpy()
        said = pd.DataFrame(
            {name: np.where(held, rng.normal(size=len(held)), np.nan) for name in COLUMNS}
        )
        said["other"] = np.where(held, np.nan, fold)
        folder = tmp_path / str(fold)
        folder.mkdir()
        said.to_parquet(folder / answers.ANSWERS)
        plan = recipe.Recipe.model_validate(
            {
                "name": "bcd-small",
                "version": "0.0.1",
                "start": "none",
                "backbone": "mobilenetv2",
                "phases": [{"size": 32, "epochs": 1}],
                "sources": ["idc"],
            }
        )
        about = Provenance(
            split="grouped",
            split_sha256=opened.split.sha256,
            corpus_fingerprint=opened.about["fingerprint"],
            held_out=HeldOut(fold=fold),
        )
        (folder / RUN_FILE).write_text(about.model_dump_json())
        runs.append(Run(str(fold), folder, plan, about, 0.5, 1.0, None, None))
    (arm,) = ways.read_arms(runs, opened)
    assert arm.folds == (0, 1)
    table = opened.table
    held = opened.split.fold.isin([0, 1]).to_numpy() & (table["source"] == "idc").to_numpy()
    assert sorted(arm.larger["row"]) == list(np.flatnonzero(held))
    learnt, other = arm.others["breakhis"]
    assert not learnt
    assert len(other) == (table["source"] == "breakhis").sum()
    never = other[~other["fold"].isin([0, 1])]
    assert (never["margin"] == 0.5).all()
    with pytest.raises(Missing):
        ways.read_arms(runs[:1], opened)
    with pytest.raises(Missing):
        ways.read_arms(runs, None)
