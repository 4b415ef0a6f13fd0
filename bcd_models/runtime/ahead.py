"""Does things in threads ahead of who asks for their results: in order, and never far ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from operator import length_hint
from typing import TypeVar

MAX_THREADS = 8

Item = TypeVar("Item")
Done = TypeVar("Done")


def ahead(function: Callable[[Item], Done], items: Iterable[Item], depth: int) -> Iterator[Done]:
    """The results of a function, in the order of the items.

    Args:
        function: Called in threads; what it raises comes out in its item's turn.
        items: Any number; taken from in the caller's thread, as far as ``depth`` reaches.
        depth: Results that are under way or done and not asked for yet, at most.
    """
    if length_hint(items, 2) < 2:  # nothing to overlap with
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
    try:
        begun = (pool.submit(function, item) for item in items)
        waiting = deque(islice(begun, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(islice(begun, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
