"""Lets torch compute in one thread alone for a while, in the thread that asks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


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
