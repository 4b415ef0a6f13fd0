"""Files of start weights: what they may lack and hold, and the scaling of inputs they state."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bcd_models.errors import InputError
from training.train import start


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("mobilenetv2_100", num_classes=2)


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    """Of a whole file: all but the classifier and batch norms' counters."""
    torch.manual_seed(1)
    whole = timm.create_model("mobilenetv2_100", num_classes=2).state_dict()
    left_out = ("classifier.", "num_batches_tracked")
    return {name: t for name, t in whole.items() if not any(part in name for part in left_out)}


def test_a_whole_file_is_loaded_and_its_classifier_is_not(
    network: nn.Module, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    head = network.get_submodule("classifier").weight.clone()
    of_imagenet = {"classifier.weight": torch.ones(1000, 1280), "classifier.bias": torch.ones(1000)}
    save_file(tensors | of_imagenet, tmp_path / "start.safetensors")
    mean, std, sha256 = start.from_file(network, tmp_path / "start.safetensors")
    assert (mean, std, len(sha256)) == ((0.5,) * 3, (0.5,) * 3, 64)
    assert torch.equal(network.get_submodule("classifier").weight, head)
    assert all(torch.equal(network.state_dict()[name], t) for name, t in tensors.items())


def test_a_file_that_lacks_tensors_needs_the_recipes_leave(
    network: nn.Module, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    del tensors["conv_head.weight"], tensors["bn2.bias"]
    save_file(tensors, tmp_path / "start.safetensors")
    with pytest.raises(InputError, match=r"lack (conv_head\.weight|bn2\.bias).*start_lacks"):
        start.from_file(network, tmp_path / "start.safetensors")
    with pytest.raises(InputError, match=r"lack bn2\.bias"):
        start.from_file(network, tmp_path / "start.safetensors", ["conv_head.*"])
    start.from_file(network, tmp_path / "start.safetensors", ["conv_head.*", "bn?.bias"])


@pytest.mark.parametrize("surplus", [{"elsewhere": (1,)}, {"bn1.weight": (5,)}])
def test_tensors_too_many_or_of_another_shape_are_refused(
    network: nn.Module, tensors: dict[str, Tensor], tmp_path: Path, surplus: dict[str, tuple[int]]
) -> None:
    (name,) = surplus
    save_file(tensors | {name: torch.zeros(surplus[name])}, tmp_path / "start.safetensors")
    with pytest.raises(InputError, match=f"do not fit the network: {name}"):
        start.from_file(network, tmp_path / "start.safetensors")


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"mean": "0.485 0.456 0.406", "std": "0.3"}, ((0.485, 0.456, 0.406), (0.3, 0.3, 0.3))),
        ({"licence": "MIT"}, ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
    ],
)
def test_the_file_states_how_its_inputs_are_scaled(
    network: nn.Module,
    tensors: dict[str, Tensor],
    tmp_path: Path,
    stated: dict[str, str],
    expected: tuple[tuple[float, ...], tuple[float, ...]],
) -> None:
    save_file(tensors, tmp_path / "start.safetensors", metadata=stated)
    assert start.from_file(network, tmp_path / "start.safetensors")[:2] == expected


@pytest.mark.parametrize("text", ["half", "0.5 0.5", ""])
def test_a_scaling_that_is_no_number_is_refused(
    network: nn.Module, tensors: dict[str, Tensor], tmp_path: Path, text: str
) -> None:
    save_file(tensors, tmp_path / "start.safetensors", metadata={"mean": text})
    with pytest.raises(InputError, match="it takes 1 or 3 numbers"):
        start.from_file(network, tmp_path / "start.safetensors")
