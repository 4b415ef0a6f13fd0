"""Calibration, threshold and referral band as plain numbers."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from bcd_models.config import DecisionConfig, Estimate, OperatingPoint
from bcd_models.decision import (
    calibrate,
    choose_label,
    is_referred,
    log_odds,
    sigmoid,
    smooth_margins,
)
from bcd_models.errors import InputError


def test_calibration_is_a_line_in_log_odds() -> None:
    rule = DecisionConfig(slope=0.5, intercept=-1.0)
    assert log_odds(calibrate([-2.0, 0.0, 4.0], rule)) == pytest.approx([-2.0, -1.0, 1.0])


def test_extreme_margins_neither_overflow_nor_leave_the_range() -> None:
    assert sigmoid([-1e6, 0, 1e6]) == pytest.approx([0, 0.5, 1])
    assert np.isfinite(calibrate([-1e6, 1e6], DecisionConfig())).all()


def test_threshold_and_band_hold_their_ends() -> None:
    rule = DecisionConfig(threshold=0.3, refer=(0.2, 0.4))
    assert [choose_label(p, rule) for p in (0.29, 0.3)] == ["benign", "malignant"]
    assert [is_referred(p, rule) for p in (0.19, 0.2, 0.4, 0.41)] == [False, True, True, False]
    assert not is_referred(0.3, DecisionConfig(threshold=0.3))
    beside = OperatingPoint(threshold=0.5, refer=(0.6, 0.9))
    with pytest.raises(ValidationError, match=r"\(0\.6, 0\.9\) does not hold threshold 0\.5"):
        DecisionConfig(points={"confirm": beside})


def test_margins_are_smoothed_over_neighbours_that_are_known() -> None:
    grid = np.random.default_rng(0).normal(size=(6, 9))
    assert smooth_margins(grid, 0) is grid
    beyond_nothing = {"mode": "constant", "cval": 0.0, "truncate": 3.0}
    expected = ndimage.gaussian_filter(grid, 1.0, **beyond_nothing)
    expected /= ndimage.gaussian_filter(np.ones_like(grid), 1.0, **beyond_nothing)
    assert smooth_margins(grid, 1.0) == pytest.approx(expected)
    assert pytest.approx(expected) == smooth_margins(grid.T, 1.0).T
    grid[2, 3:7] = np.nan
    holed = smooth_margins(grid, 1.0)
    assert (np.isnan(holed) == np.isnan(grid)).all()
    alone = np.full((5, 5), np.nan)
    alone[2, 2] = 1.5
    assert smooth_margins(alone, 2.0)[2, 2] == pytest.approx(1.5)


def test_predictive_values_follow_from_the_counts_of_a_table() -> None:
    """Of 1,000 fields 200 malignant, 180 of them found; of 800 others 80 labelled malignant."""
    measured = {"sensitivity": 180 / 200, "specificity": 720 / 800}
    point = OperatingPoint(
        threshold=0.5,
        **{name: Estimate(value=one, low=0, high=1) for name, one in measured.items()},
    )
    assert point.missed_of_100 == 10
    assert point.predictive_values(0.2) == pytest.approx((180 / 260, 720 / 740))
    assert OperatingPoint(threshold=0.5).predictive_values(0.2) is None
    assert OperatingPoint(threshold=0.5).missed_of_100 is None


def test_a_rule_names_the_point_that_it_is_at() -> None:
    points = {name: OperatingPoint(threshold=at) for name, at in (("a", 0.3), ("b", 0.6))}
    rule = DecisionConfig(threshold=0.3, points=points)
    assert [rule.own_point, rule.at("b").own_point] == ["a", "b"]
    assert DecisionConfig(threshold=0.4, points=points).own_point == ""


def test_a_point_is_named_or_listed() -> None:
    rule = DecisionConfig(threshold=0.3, refer=(0.2, 0.4), points={"screening": 0.1})
    assert rule.points["screening"].threshold == 0.1  # as release 0.2.0 wrote it
    chosen = rule.at("screening")
    assert (chosen.threshold, chosen.refer) == (0.1, None)
    assert rule.at(None) is rule
    with pytest.raises(InputError, match=r"'confirm' of this model: choose one of screening$"):
        rule.at("confirm")
    with pytest.raises(InputError, match=r"'confirm' of this model: it has none$"):
        DecisionConfig().at("confirm")
