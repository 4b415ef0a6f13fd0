"""Torch computes in one thread for a while, in the thread that asks and nowhere else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bcd_models.runtime.one_core import one_core


def threads_inside_and_after() -> tuple[int, int]:
    with one_core():
        inside = torch.get_num_threads()
    return inside, torch.get_num_threads()


@pytest.mark.usefixtures("two_threads")
def test_a_thread_of_its_own_computes_alone() -> None:
    with ThreadPoolExecutor(1) as pool:
        with one_core():
            assert torch.get_num_threads() == 1
        assert pool.submit(threads_inside_and_after).result() == (1, 2)
        assert torch.get_num_threads() == 2


def test_an_error_puts_the_number_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_core():
        raise KeyError
    assert torch.get_num_threads() == before
