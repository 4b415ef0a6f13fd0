"""Reliability of drawn answers whose calibration is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from bcd_models.local.calibration import cross_fit, fit_line
from training.evaluate.reliability import estimate_case_spread, measure_reliability


def drawn(spread: float = 0.0, cases: int = 200, each: int = 25) -> pd.DataFrame:
    """Margins twice as large as true log-odds, of cases that differ by a spread."""
    rng = np.random.default_rng(0)
    case = np.repeat(np.arange(cases), each)
    log_odds = rng.normal(-1, 1.5, cases * each)
    malignant = rng.random(len(case)) < expit(log_odds + rng.normal(0, spread, cases)[case])
    return pd.DataFrame(
        {
            "margin": 2 * log_odds,
            "label": np.where(malignant, "malignant", "benign"),
            "case_id": case.astype(str),
            "source": "idc",
            "fold": case % 5,
        }
    )


def test_each_fold_is_calibrated_by_the_others() -> None:
    frame = drawn()
    margins, truth = frame["margin"].to_numpy(), (frame["label"] == "malignant").to_numpy()
    folds = frame["fold"].to_numpy()
    found = cross_fit(margins, truth, folds)
    slope, intercept = fit_line(margins[folds != 3], truth[folds != 3])
    assert found[folds == 3] == pytest.approx(slope * margins[folds == 3] + intercept)


def test_calibrated_answers_are_told_so() -> None:
    found = measure_reliability(drawn())
    assert found.slope.low < 1 < found.slope.high
    assert found.in_the_large.low < 0 < found.in_the_large.high
    assert found.ece < found.ece_if_calibrated
    assert found.case_spread < 0.2


def test_cases_that_differ_widen_intervals_and_the_null() -> None:
    alike, apart = measure_reliability(drawn()), measure_reliability(drawn(spread=1.2))
    assert 0.7 < apart.case_spread < 1.2  # on the calibrated scale, which the spread flattens
    assert apart.ece_if_calibrated_over_cases > 1.1 * apart.ece_if_calibrated
    assert apart.ece < apart.ece_if_calibrated_over_cases

    def width(found) -> float:
        return found.in_the_large.high - found.in_the_large.low

    assert width(apart) > 1.5 * width(alike)


def test_the_null_itself_is_calibrated_on_average() -> None:
    rng = np.random.default_rng(1)
    log_odds, spread = rng.normal(-1, 1.5, 200_000), 1.2
    steeper = log_odds * np.sqrt(1 + (16 * np.sqrt(3) / (15 * np.pi) * spread) ** 2)
    mean = expit(steeper + rng.normal(0, spread, len(log_odds)))
    for low, high in ((-3, -2), (-1, 0), (1, 2)):
        here = (log_odds > low) & (log_odds < high)
        assert mean[here].mean() == pytest.approx(expit(log_odds[here]).mean(), abs=0.01)


def test_an_overconfident_fold_is_found() -> None:
    frame = drawn()
    frame.loc[frame["fold"] == 0, "margin"] *= 3
    found = measure_reliability(frame)
    assert found.slope.high < 1
    assert found.ece > found.ece_if_calibrated


def test_no_spread_is_found_where_there_is_none() -> None:
    frame = drawn()
    truth = (frame["label"] == "malignant").to_numpy()
    log_odds, case = frame["margin"].to_numpy() / 2, frame["case_id"].astype(int).to_numpy()
    assert estimate_case_spread(log_odds, truth, case) < 0.2
