"""Ways of asking, compared on answers whose gains are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from bcd_models.local.ladder import LADDER
from training.compare import ways
from training.evaluate import answers

SIDE = 16


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
        **{ways.BASE: margins, "field_0.8": margins, "field_1.25": margins},
        views_4=margins + 0.5 * truth,
        views_8=margins + truth,
        size_128=margins + rng.normal(0, 3, len(whole)),
    )


def test_a_way_is_measured_against_one_view(frame: pd.DataFrame) -> None:
    found = ways.compare_ways(frame)
    truth = frame["label"] == "malignant"
    assert found["views_1"]["value"] == pytest.approx(roc_auc_score(truth, frame[ways.BASE]))
    assert 0 < found["views_4"]["low"] < found["views_8"]["value"]
    assert found["size_128"]["high"] < 0
    assert found["three fields"]["value"] == pytest.approx(0)
    assert set(found) - {"three fields"} <= {ways.BASE, *ways.ALONE}


def test_a_rung_is_measured_at_the_clean_threshold(frame: pd.DataFrame) -> None:
    rungs = {rung.name: frame["views_4"] for rung in LADDER}
    rungs |= {"blur_1": frame["views_4"] - 2, "noise_5": -frame["views_4"]}
    whole = frame.assign(**rungs)
    whole.loc[whole.index % 3 == 0, list(rungs)] = np.nan  # not drawn
    found = ways.compare_rungs(whole, views=4)
    assert found["turn_90"]["recall"]["value"] == 0
    assert found["blur_1"]["recall"]["high"] < -0.2
    assert found["blur_1"]["specificity"]["low"] > 0
    assert abs(found["blur_1"]["auroc"]["value"]) < 0.02
    assert found["noise_5"]["auroc"]["high"] < -0.2
    drawn = whole.dropna()
    truth = drawn["label"] == "malignant"
    assert found["clean"]["auroc"]["value"] == pytest.approx(
        roc_auc_score(truth, drawn["views_4"]), abs=0.01
    )


def test_whole_cases_alone_have_neighbours(frame: pd.DataFrame) -> None:
    assert [case for case, _ in ways.find_whole_cases(frame)] == [f"idc/{i}" for i in range(4)]
    grid, places = ways.lay_out(frame[frame["case_id"] == "idc/1"])
    assert grid.shape == (SIDE, SIDE)
    assert (grid[places] == frame[ways.BASE][frame["case_id"] == "idc/1"]).all()


def test_neighbours_lift_a_noisy_case_by_a_width_chosen_on_the_others(frame: pd.DataFrame) -> None:
    found = ways.compare_context(frame)
    assert found is not None
    assert [line["tiles"] for line in found["cases"]] == [SIDE * SIDE] * 4
    for line in found["cases"]:
        assert line["sigma"] > 0
        assert line["with_neighbours"]["auroc"] > line["alone"]["auroc"] + 0.1
    own = frame[frame["case_id"] == "idc/0"]
    by_hand = roc_auc_score(own["label"] == "malignant", own[ways.BASE])
    assert found["cases"][0]["alone"]["auroc"] == pytest.approx(by_hand)
    assert ways.compare_context(frame[frame["case_id"] != "idc/0"].iloc[2 * SIDE * SIDE :]) is None


def test_two_networks_are_an_ensemble_and_two_seeds_are_none(frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(3)
    other = frame.assign(views_4=frame["views_4"] + rng.normal(0, 0.2, len(frame)))
    independent = frame.assign(
        views_4=rng.normal((frame["label"] == "malignant") * 2, 1.5, len(frame))
    )
    found = ways.compare_ensembles(
        {"a/x, seed 0": frame, "a/x, seed 1": other, "b/x, seed 0": independent}
    )
    assert set(found) == {"a/x, seed 0 + b/x, seed 0", "a/x, seed 1 + b/x, seed 0"}
    assert all(one["minus_best"]["low"] > 0 for one in found.values())


def test_what_is_asked_for_is_what_is_recorded() -> None:
    recorded = {f"views_{n}" for n in answers.VIEWS} | {f"field_{s:g}" for s in answers.FIELDS}
    recorded |= {f"size_{side}" for side in answers.SIZES}
    assert recorded <= {ways.BASE, *ways.ALONE, *ways.FIELDS}
