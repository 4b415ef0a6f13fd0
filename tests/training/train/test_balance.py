"""Draws and weights against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bcd_models.errors import InputError
from training.recipes.schema import Phase, Recipe
from training.train import balance

FRAME = pd.DataFrame(
    {
        "source": ["idc"] * 100 + ["breakhis"] * 20,
        "label": ["malignant"] * 25 + ["benign"] * 75 + ["malignant"] * 18 + ["benign"] * 2,
        "case_id": [f"idc/{i % 12}" for i in range(100)] + ["breakhis/1"] * 20,
    }
)


def plan(**changes: object) -> Recipe:
    settings = {"name": "n", "version": "0", "backbone": "mobilenetv2"}
    return Recipe(**settings | {"phases": (Phase(size=32, epochs=1),)} | changes)


def test_labels_are_level_within_a_source() -> None:
    weights = pd.Series(balance.draw_weights(FRAME, "sampler"))
    share = weights.groupby([FRAME["source"], FRAME["label"]]).sum()
    assert share["idc", "malignant"] == pytest.approx(share["idc", "benign"])
    # Two benign BreaKHis images would be drawn five times a pass each: three is the most.
    assert weights.max() * len(FRAME) == pytest.approx(3)
    assert share["breakhis"].sum() == pytest.approx(20 / 120)


def test_a_case_is_held_to_its_share() -> None:
    weights = pd.Series(balance.draw_weights(FRAME, "sampler", case_share=0.17))
    assert weights.groupby(FRAME["case_id"]).sum().max() <= 0.17 * 1.006
    dominant = FRAME[FRAME["source"] == "idc"].assign(
        case_id=["idc/0" if i % 5 < 2 else f"idc/{i % 11 + 1}" for i in range(100)]
    )
    assert pd.Series(balance.draw_weights(dominant, "none")).groupby(
        dominant["case_id"]
    ).sum().max() == pytest.approx(0.4)
    capped = pd.Series(balance.draw_weights(dominant, "sampler", case_share=0.15))
    assert capped.groupby(dominant["case_id"]).sum().max() == pytest.approx(0.15, rel=0.01)
    assert capped[dominant["label"] == "malignant"].sum() == pytest.approx(0.5, abs=0.01)
    with pytest.raises(InputError, match=r"case_share 0\.01 can't be kept with 13 cases"):
        balance.draw_weights(FRAME, "sampler", case_share=0.01)


def test_a_case_weighs_as_the_root_of_its_rows() -> None:
    """Four cases of 4, 16, 36 and 64 rows, each with as many of either label."""
    cases = [f"idc/{n}" for n in (2, 4, 6, 8) for _ in range(n * n)]
    labels = [("benign", "malignant")[i % 2] for i in range(len(cases))]
    frame = pd.DataFrame({"source": "idc", "label": labels, "case_id": cases})
    for balance_by in ("sampler", "none"):
        weights = pd.Series(balance.draw_weights(frame, balance_by, case_weight="root"))
        of_case = weights.groupby(frame["case_id"]).sum()
        assert of_case.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    lone = pd.concat([frame, frame[:2].assign(case_id="idc/1")], ignore_index=True)
    weights = balance.draw_weights(lone, "sampler", case_weight="root")
    assert weights.max() * len(lone) == pytest.approx(3)  # where the root alone would be 3.4
    drawn = balance.draw_order(lone, plan(case_weight="root"), 0)
    assert np.bincount(drawn, minlength=len(lone)).max() == 3


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=4, max_size=80),
    st.sampled_from(["rows", "root"]),
)
@settings(max_examples=60, deadline=None)
def test_no_image_is_drawn_more_than_three_times(
    rows: list[tuple[bool, int]], case_weight: str
) -> None:
    frame = pd.DataFrame(
        {
            "source": "idc",
            "label": ["malignant" if m else "benign" for m, _ in rows],
            "case_id": [f"idc/{case}" for _, case in rows],
        }
    )
    weights = balance.draw_weights(frame, "sampler", case_weight=case_weight)
    assert weights.sum() == pytest.approx(1)
    assert weights.max() * len(frame) <= 3 + 1e-9


def test_an_order_is_a_matter_of_its_seed() -> None:
    first, again, other = (balance.draw_order(FRAME, plan(), seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first) == len(FRAME)
    once = balance.draw_order(FRAME, plan(balance="none"), 1)
    assert sorted(once.tolist()) == list(range(len(FRAME)))


def test_an_order_of_so_many_draws_is_a_part_of_a_pass_or_several() -> None:
    few = balance.draw_order(FRAME, plan(balance="none"), 1, count=50)
    assert torch.equal(few, balance.draw_order(FRAME, plan(balance="none"), 1)[:50])
    many = balance.draw_order(FRAME, plan(balance="none"), 1, count=300)
    assert len(many) == 300
    assert set(np.bincount(many)) == {2, 3}


@pytest.mark.parametrize("mode", ["sampler", "loss", "both", "none"])
def test_class_weights_have_mean_one_under_the_prior_shown(mode: str) -> None:
    weights = balance.class_weights(FRAME, mode).double().numpy()
    malignant = (FRAME["label"] == "malignant").to_numpy()
    shown = balance.draw_weights(FRAME, mode)[malignant].sum()
    assert weights @ np.array([1 - shown, shown]) == pytest.approx(1, abs=1e-6)
    assert (weights[1] > weights[0]) == (mode in ("loss", "both"))


def test_weighted_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    targets = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    weights = torch.tensor([0.5, 1.5])
    first = np.log(2) * (0.25 * 0.5 + 0.75 * 1.5)
    second = 0.5 * np.log1p(np.exp(-2.0))
    loss = balance.weighted_loss(logits, targets, weights)
    assert float(loss) == pytest.approx((first + second) / 2)
