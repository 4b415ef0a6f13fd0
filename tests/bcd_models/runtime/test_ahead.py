"""Things done ahead, in threads."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from bcd_models.runtime.ahead import ahead


def test_results_come_in_order_and_not_far_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = ahead(lambda number: number * number, items(), depth=10)
    for number in range(100):
        assert next(results) == number * number
        assert len(taken) <= number + 12
    assert list(results) == []


def test_what_goes_wrong_comes_out_in_its_turn() -> None:
    results = ahead(lambda number: 1 / (5 - number), range(10), depth=4)
    assert [next(results) for _ in range(5)] == [1 / 5, 1 / 4, 1 / 3, 1 / 2, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_things(count: int) -> None:
    assert list(ahead(str, range(count), depth=4)) == [str(number) for number in range(count)]


def test_leaving_early_ends_the_threads(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    results = ahead(str, iter(range(10**9)), depth=8)
    assert next(results) == "0"
    results.close()
    assert list(results) == []
