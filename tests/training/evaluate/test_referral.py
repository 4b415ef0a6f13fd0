"""Referral bands: the smallest that keeps its promise, checked by trying all."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluate.referral import Answers, choose_reach, measure_losses, realise


def drawn(cases: int = 60, seed: int = 0) -> Answers:
    """Answers of cases of 1 to 40 patches, the wrong ones nearer the threshold."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 41, cases)
    case = np.repeat(np.arange(cases).astype(str).astype(object), sizes)
    away = rng.exponential(1.5, len(case))
    return Answers(away, rng.random(len(case)) < 0.4 * np.exp(-away), case)


@pytest.mark.parametrize("alpha", [0.03, 0.05, 0.1])
def test_the_band_is_the_smallest_that_keeps_the_promise(alpha: float) -> None:
    answers = drawn()
    reach = choose_reach(answers, alpha)
    assert reach is not None
    count = len(np.unique(answers.case))

    def bound(tried: float) -> float:
        lines = measure_losses(answers, tried)
        return ((lines["wrong"] / lines["patches"]).sum() + 1) / (count + 1)

    assert bound(reach) <= alpha
    smaller = answers.away[answers.wrong & (answers.away < reach * (1 - 1e-6))]
    assert all(bound(tried) > alpha for tried in smaller)


def test_nothing_is_referred_where_nothing_is_wrong() -> None:
    answers = drawn()
    right = Answers(answers.away, np.zeros_like(answers.wrong), answers.case)
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
        losses.append(realised["loss"])
        assert 0 < realised["referred"] < 1
    assert np.mean(losses) <= 0.05
    assert np.mean(losses) > 0.03  # and isn't kept by referring everything


def test_figures_of_a_band_by_hand() -> None:
    away = np.array([0.5, 2.0, 3.0, 4.0, 0.1])
    wrong = np.array([True, True, False, False, False])
    lines = measure_losses(Answers(away, wrong, np.array(["a", "a", "a", "b", "b"], object)), 1.0)
    assert lines.loc["a"].to_dict() == {"patches": 3, "decided": 2, "wrong": 1}
    assert lines.loc["b"].to_dict() == {"patches": 2, "decided": 1, "wrong": 0}
