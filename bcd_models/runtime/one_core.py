"""Lets torch compute in one thread alone for a while, in the thread that asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@contextmanager
def one_core() -> Iterator[None]:
    """A context in which torch computes in the calling thread alone.

    Small images gain nothing from more threads, and OpenMP's, once woken, wait spinning: they take
    the cores from the network and from the other threads that make images ready.
    """
    before = [(library, library.get_num_threads()) for library in _openmp()]
    try:
        for library, _ in before:
            library.set_num_threads(1)
        yield
    finally:
        for library, threads in before:
            library.set_num_threads(threads)


@cache
def _openmp() -> list[Any]:
    """Looked for at the first use, when torch has brought its OpenMP."""
    found: list[Any] = ThreadpoolController().select(user_api="openmp").lib_controllers
    return found
