"""Times acts in turn, so that what slows the machine for a while slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median

Act = Callable[[], object]


def seconds(act: Act, settled: int = 0) -> float:
    """How long an act takes, straight after it was done so many times.

    What went before leaves threads that wait spinning, and take a core for a while.
    """
    for _ in range(settled):
        act()
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def in_turn(*acts: Act, runs: int, warm_ups: int = 1, settled: int = 0) -> list[list[float]]:
    """Seconds of each act, in each of several rounds of all of them; warm-ups left out."""
    rounds = [[seconds(act, settled) for act in acts] for _ in range(warm_ups + runs)][warm_ups:]
    return [list(one) for one in zip(*rounds, strict=True)]


def ratio(one: Iterable[float], other: Iterable[float]) -> float:
    """The median over rounds of one act's seconds over another's in the same round."""
    return median(mine / its for mine, its in zip(one, other, strict=True))
