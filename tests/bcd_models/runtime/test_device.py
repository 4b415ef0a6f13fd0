"""Which device is chosen, on machines with and without a GPU."""

from __future__ import annotations

import pytest
import torch

from bcd_models.errors import InputError
from bcd_models.runtime import device
from bcd_models.runtime.device import choose_device


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with so many CUDA devices, and perhaps Apple's: what torch says of it."""
    cuda, mps = request.param
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(device, "may_have_gpu", lambda: bool(cuda or mps))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("machine", "wanted", "rank", "chosen"),
    [
        ((0, False), "auto", None, "cpu"),
        ((1, False), "auto", None, "cuda"),
        ((1, False), "cpu", None, "cpu"),
        ((2, False), "auto", "3", "cuda:1"),
        ((0, True), "auto", None, "mps"),
        ((1, True), "mps", None, "mps"),
    ],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_a_gpu_is_taken_where_there_is_one(
    wanted: str, rank: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device(wanted) == chosen


@pytest.mark.parametrize("machine", [(0, False)], indirect=True)
@pytest.mark.parametrize("wanted", ["cuda", "mps"])
@pytest.mark.usefixtures("machine")
def test_a_device_that_is_not_here_is_refused(wanted: str) -> None:
    with pytest.raises(InputError, match=f"no {wanted} that torch can use"):
        choose_device(wanted)
