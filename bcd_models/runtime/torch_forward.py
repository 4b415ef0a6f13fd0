"""The forward by torch, of a live network: whatever becomes of it is answered for."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bcd_models.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_modes = RLock()


class TorchForward:
    """Logits, cells and contributions by torch, wherever and however precise the network is.

    A network in training mode answers as in evaluation, and keeps its mode: to predict never
    changes weights or batch-norm statistics.

    Args:
        network: Of timm, with two logits.
    """

    gives = frozenset(("logits", "cells", "contributions", "network"))

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @property
    def name(self) -> str:
        """What answers, and in which precision."""
        first = self._first
        dtype = torch.bfloat16 if _takes_bfloat16(first.device) else first.dtype
        return f"torch {str(dtype).removeprefix('torch.')}"

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._first.device

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits N x 2 of N x 3 x S x S inputs."""
        with torch.inference_mode(), _evaluation(self._network), _precision(self.device):
            logits: NDArray[np.float32] = self._network(self._tensor(inputs)).float().cpu().numpy()
        return logits

    @torch.inference_mode(False)  # a gradient is needed, whatever the caller's mode
    def cells(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the margin that each cell speaks for, N x h x w.

        By Grad-CAM (Selvaraju et al., ICCV 2017) of the logit margin, before its rectification. At
        the last feature map, where global average pooling and a linear layer follow, the cells'
        mean is the margin itself.
        """
        features, gradients = self._features_and_gradients(inputs, find_cam_layer(self._network))
        classifier: Any = self._network
        bias = classifier.get_classifier().bias
        offset = float((bias[1] - bias[0]).detach()) if bias is not None else 0.0
        maps, slopes = self.as_maps(features), self.as_maps(gradients)
        weights = slopes.mean((2, 3), keepdim=True) * maps.shape[2] * maps.shape[3]
        cells: NDArray[np.float32] = ((weights * maps).sum(1) + offset).cpu().numpy()
        return cells

    @torch.inference_mode(False)
    def contributions(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how much of the margin each cell contributes, N x h x w.

        By HiResCAM (Draelos & Carin, 2020): gradient times activation at the stage before the
        last. Where what follows is linear but for its biases, the sum over the cells is the margin
        but for what the biases give.

        Raises:
            InputError: The network doesn't say its stages.
        """
        layer = find_earlier_layer(self._network)
        features, gradients = self._features_and_gradients(inputs, layer)
        contributions: NDArray[np.float32] = self.as_maps(features * gradients).sum(1).cpu().numpy()
        return contributions

    @torch.inference_mode(False)
    def copy_network(self) -> nn.Module:
        """Return a copy in evaluation mode, float32, its weights frozen: to be hooked at will."""
        with _modes:  # or modules could be caught in the other mode
            copied = copy.deepcopy(self._network)
        return copied.eval().float().requires_grad_(False)

    def open_copy(self, earlier: bool) -> tuple[nn.Module, nn.Module]:
        """Return a copy of the network, and its layer that maps are made of.

        Args:
            earlier: The layer that contributions are taken at; by default that of the cells.
        """
        copied = self.copy_network()
        name = find_earlier_layer(copied) if earlier else find_cam_layer(copied)
        if name:
            return copied, copied.get_submodule(name)
        opened = _WithLastMap(copied)
        return opened, opened.last_map

    def _features_and_gradients(
        self, inputs: NDArray[np.float32], layer: str
    ) -> tuple[Tensor, Tensor]:
        """Return a layer's output, and the margin's gradient at it; both float32."""
        with _evaluation(self._network):
            features, logits = self._features_and_logits(self._tensor(inputs), layer)
            margins = logits[:, 1] - logits[:, 0]
            (gradients,) = torch.autograd.grad(margins.sum(), features)
        return features.detach().float(), gradients.float()

    def _features_and_logits(self, pixels: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        network: Any = self._network
        if not layer:
            with torch.no_grad():
                features = network.forward_features(pixels)
            with torch.enable_grad():
                features = features.detach().requires_grad_()
                return features, network.forward_head(features)
        kept: list[Tensor] = []

        def start_here(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[0]

        handle = network.get_submodule(layer).register_forward_hook(start_here)
        try:
            with torch.enable_grad():
                logits = network(pixels)
        finally:
            handle.remove()
        return kept[0], logits

    def as_maps(self, features: Tensor) -> Tensor:
        """Return features as ``lay_out_tokens`` does."""
        return lay_out_tokens(features, self._network)

    def _tensor(self, inputs: NDArray[np.float32]) -> Tensor:
        first = self._first
        return torch.from_numpy(inputs).to(first.device, first.dtype)

    @property
    def _first(self) -> Tensor:
        return next(self._network.parameters())


class _WithLastMap(nn.Module):
    """A network whose last feature map is the output of a module, whatever timm calls it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.last_map = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.last_map(self.network.forward_features(pixels))
        logits: Tensor = self.network.forward_head(features)
        return logits


def lay_out_tokens(features: Tensor, network: Any) -> Tensor:
    """Return N x C x h x w of features; of a transformer, the patches' tokens laid out."""
    if features.ndim == 4:
        return features
    tokens = features[:, network.num_prefix_tokens :]
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).reshape(len(features), -1, side, side)


def find_cam_layer(network: Any) -> str:
    """Return the name of the layer whose output the cells are made of; "": the last feature map.

    A transformer's last map goes into an attention pool or a class token, and says little itself.
    """
    return find_earlier_layer(network) if _is_transformer(network) else ""


def find_earlier_layer(network: Any) -> str:
    """Return the name of the layer that contributions are taken at, as timm knows the network.

    That is the stage before the last, which has cells of half the side. Of a transformer, whose
    stages have one resolution, the first norm of the last block: at its input, gradient times
    activation cancels.

    Raises:
        InputError: The network doesn't say its stages.
    """
    stages = getattr(network, "feature_info", None)
    if not stages:
        raise InputError("the network doesn't say its stages: it has no feature_info of timm's")
    last = stages[-1]
    if _is_transformer(network):
        return f"{last['module']}.norm1"
    earlier = [stage for stage in stages if stage["reduction"] < last["reduction"]]
    return str((earlier or [last])[-1]["module"])


def _is_transformer(network: Any) -> bool:
    return getattr(network, "num_prefix_tokens", None) is not None


@contextmanager
def _evaluation(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a while, and each of its modules back.

    One thread at a time: another that began meanwhile would end in training mode.
    """
    with _modes:
        training = [module for module in network.modules() if module.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True


def _takes_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def _precision(device: torch.device) -> Any:
    """Return the context of half the bits on a GPU that has bfloat16, of all of them elsewhere."""
    return torch.autocast("cuda", torch.bfloat16) if _takes_bfloat16(device) else nullcontext()
