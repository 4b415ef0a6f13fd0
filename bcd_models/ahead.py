"""Does things in threads ahead of who asks for their results: in order, and never far ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from itertools import chain, islice
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

MOST_THREADS = 8

Item = TypeVar("Item")
Done = TypeVar("Done")


def one_core() -> AbstractContextManager[Any]:
    """A context in which torch computes in the calling thread alone.

    Small images gain nothing from more threads, and OpenMP's, once woken, wait spinning: they take
    the cores from the network and from the other threads that make images ready.
    """
    limited: AbstractContextManager[Any] = _openmp().limit(limits=1, user_api="openmp")
    return limited


@cache
def _openmp() -> ThreadpoolController:
    """Made at the first use, when torch has brought its OpenMP."""
    return ThreadpoolController()


def ahead(function: Callable[[Item], Done], items: Iterable[Item], depth: int) -> Iterator[Done]:
    """The results of a function, in the order of the items.

    Args:
        function: Called in threads; what it raises comes out in its item's turn.
        items: Any number; taken from in the caller's thread, as far as ``depth`` reaches.
        depth: Results that are under way or done and not asked for yet, at most.
    """
    rest = iter(items)
    first = list(islice(rest, 2))
    if len(first) < 2:  # nothing to overlap with
        yield from map(function, first)
        return
    pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))
    try:
        begun = (pool.submit(function, item) for item in chain(first, rest))
        waiting = deque(islice(begun, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(islice(begun, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
