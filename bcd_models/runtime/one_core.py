"""Lets torch compute in one thread alone for a while, in the thread that asks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


def one_core() -> AbstractContextManager[object]:
    """Return a context in which torch computes in the calling thread alone.

    Small images gain nothing from more threads, and OpenMP's, once woken, wait spinning: they take
    the cores from the network and from the other threads that make images ready.
    """
    torch.get_num_threads()  # or its first use in a thread would set torch's own number again
    limited: AbstractContextManager[object] = _openmp().limit(limits=1)  # 5 us a use
    return limited


@cache
def _openmp() -> ThreadpoolController:
    """Return OpenMP's threads, looked for at the first use, when torch has brought them.

    Selected here and not in ``limit``, which would put back other libraries' numbers as well.
    """
    return ThreadpoolController().select(user_api="openmp")
