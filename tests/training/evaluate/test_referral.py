"""Referral bands: the smallest that keeps its promise, checked by trying all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bcd_models.local.metrics import draw_resamples
from bcd_models.local.referral import Judged, choose_reach, count_by_case
from training.evaluate.decide.referral import (
    COVERAGES,
    choose_reach_by_images,
    realise,
    trace_coverage,
)


def drawn(cases: int = 60, seed: int = 0) -> Judged:
    """Answers of cases of 1 to 40 patches, the wrong ones nearer the threshold."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 41, cases)
    case = np.repeat(np.arange(cases).astype(str).astype(object), sizes)
    away = rng.exponential(1.5, len(case))
    return Judged(away, rng.random(len(case)) < 0.4 * np.exp(-away), case)


@pytest.mark.parametrize("alpha", [0.03, 0.05, 0.1])
def test_the_band_is_the_smallest_that_keeps_the_promise(alpha: float) -> None:
    answers = drawn()
    reach = choose_reach(answers, alpha)
    assert reach is not None
    count = len(np.unique(answers.case))

    def bound(tried: float) -> float:
        patches, _, wrong = count_by_case(answers.case, answers.away > tried, answers.wrong)
        return float(((wrong / patches).sum() + 1) / (count + 1))

    assert bound(reach) <= alpha
    smaller = answers.away[answers.wrong & (answers.away < reach * (1 - 1e-6))]
    assert all(bound(tried) > alpha for tried in smaller)


def test_nothing_is_referred_where_nothing_is_wrong() -> None:
    answers = drawn()
    right = Judged(answers.away, np.zeros_like(answers.wrong), answers.case)
    assert choose_reach(right, 0.05) == 0


def test_too_few_cases_get_no_promise() -> None:
    answers = drawn(cases=18)
    assert choose_reach(answers, 0.05) is None  # 19 are the least, even if none is wrong
    assert choose_reach(drawn(cases=19), 0.05) is not None
    folds = np.array([int(case) % 2 for case in answers.case])
    assert realise(answers, folds, 0.05) is None


def test_the_promise_is_kept_on_cases_that_did_not_choose() -> None:
    losses = []
    for seed in range(40):
        answers = drawn(cases=100, seed=seed)
        folds = np.array([int(case) % 5 for case in answers.case])
        realised = realise(answers, folds, 0.05)
        assert realised is not None
        losses.append(realised.loss)
        assert 0 < realised.referred < 1
    assert np.mean(losses) <= 0.05
    assert np.mean(losses) > 0.03  # and isn't kept by referring everything


def test_figures_of_a_band_by_hand() -> None:
    away = np.array([0.5, 2.0, 3.0, 4.0, 0.1])
    wrong = np.array([True, True, False, False, False])
    counted = count_by_case(np.array(["a", "a", "a", "b", "b"]), away > 1, wrong)
    assert counted.T.tolist() == [[3, 2, 1], [2, 1, 0]]


def test_mapie_s_band_keeps_its_promise_over_images_not_over_cases() -> None:
    answers = drawn(cases=200)
    folds = np.array([int(case) % 5 for case in answers.case])
    reach = choose_reach_by_images(answers, 0.05)
    assert reach is not None
    wrong = float(((answers.away > reach) & answers.wrong).mean())
    assert 0.03 < wrong < 0.05
    realised = realise(answers, folds, 0.05, choose_reach_by_images)
    assert realised is not None
    assert realised.image_loss < 0.05
    # A case all wrong, and sure of it: over images it weighs as much as it has, over cases as one.
    small = np.char.add("small-", np.arange(40).astype(str)).astype(object)
    odd = Judged(
        np.concatenate((answers.away, np.full(40, 9.0))),
        np.concatenate((answers.wrong, np.ones(40, bool))),
        np.concatenate((answers.case, small)),
    )
    by_images, by_cases = choose_reach_by_images(odd, 0.05), choose_reach(odd, 0.05)
    assert by_images is not None
    assert by_cases is not None
    assert by_cases > 9 > by_images


def test_too_few_images_get_no_promise_of_mapie_s() -> None:
    few = Judged(np.arange(20.0), np.zeros(20, bool), np.arange(20).astype(object))
    assert choose_reach_by_images(few, 0.05) is None


def test_the_curve_ends_at_the_error_of_all() -> None:
    answers = drawn()
    cases = pd.Series(answers.case)
    curve = trace_coverage(answers, draw_resamples(cases, cases.map(lambda _: "idc"), count=50))
    assert [one.coverage for one in curve] == list(COVERAGES)
    assert curve[-1].error.value == answers.wrong.mean()
    by_case = pd.Series(answers.wrong).groupby(answers.case).mean()
    assert curve[-1].cases_of_large_error == (by_case > 0.2).sum()
    assert all(one.error.low <= one.error.value <= one.error.high for one in curve)
    assert curve[0].error.value < curve[9].error.value < curve[-1].error.value
