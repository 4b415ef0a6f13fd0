"""Agreement and drift, beside the libraries' own figures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from bcd_models.local.drift import MIN_RESULTS, measure_drift
from clinic.dashboard.agreement import Agreement, Share

TABLE = Agreement(both=40, missed=5, raised=8, neither=47, indeterminate=3)


@pytest.mark.parametrize(("count", "of"), [(0, 9), (1, 9), (9, 9), (30, 250), (1, 1)])
def test_intervals_are_wilsons(count: int, of: int) -> None:
    expected = binomtest(count, of).proportion_ci(method="wilson")
    assert Share(count, of).interval == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_share_of_nothing_is_not_known() -> None:
    assert Share(0, 0).value is None
    assert Share(0, 0).interval == (0, 1)


def test_shares_are_of_the_reads() -> None:
    assert (TABLE.sensitivity.count, TABLE.sensitivity.of) == (40, 45)
    assert (TABLE.specificity.count, TABLE.specificity.of) == (47, 55)
    assert TABLE.compared == 100


def test_kappa_is_cohens_and_its_interval_covers() -> None:
    read = np.repeat([1, 1, 0, 0], [40, 5, 8, 47])
    said = np.repeat([1, 0, 1, 0], [40, 5, 8, 47])
    assert TABLE.kappa is not None
    assert TABLE.kappa.value == pytest.approx(cohen_kappa_score(read, said))
    rng = np.random.default_rng(3)
    drawn = rng.integers(0, 100, (400, 100))
    again = [cohen_kappa_score(read[rows], said[rows]) for rows in drawn]
    expected = np.quantile(again, [0.025, 0.975])
    assert (TABLE.kappa.low, TABLE.kappa.high) == pytest.approx(tuple(expected), abs=0.03)


@pytest.mark.parametrize("table", [Agreement(), Agreement(both=3), Agreement(neither=9)])
def test_kappa_of_what_is_all_alike_is_not_known(table: Agreement) -> None:
    assert table.kappa is None


def test_kappa_of_all_wrong() -> None:
    kappa = Agreement(missed=5, raised=5).kappa
    assert kappa is not None
    assert kappa.value == -1


def test_a_sample_of_the_reference_itself_is_rarely_a_shift() -> None:
    rng = np.random.default_rng(1)
    reference = rng.integers(20, 200, 20)
    samples = rng.multinomial(300, reference / reference.sum(), 200)
    found = [measure_drift(list(one), list(reference)) for one in samples]
    beyond = sum(one is not None and one.is_beyond_chance for one in found)
    assert 1 <= beyond <= 25  # 5 in 100 are to be expected


def test_another_distribution_is_a_shift() -> None:
    reference = [50] * 20
    same, moved = (
        measure_drift(reference, reference),
        measure_drift([200] * 5 + [0] * 15, reference),
    )
    assert same is not None
    assert moved is not None
    assert (same.index, same.is_beyond_chance) == (0, False)
    assert moved.is_beyond_chance
    assert moved.index > 1


@pytest.mark.parametrize("seen", [[], [0] * 20, [MIN_RESULTS - 1] + [0] * 19])
def test_too_little_is_no_basis(seen: list[int]) -> None:
    assert measure_drift(seen, [50] * 20) is None
    assert measure_drift([50] * 20, seen) is None
