"""The forward by torch, of a live network: whatever becomes of it is answered for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

_modes = RLock()


class TorchForward:
    """Logits and cells by torch, on whatever device and in whatever precision the network is.

    A network in training mode answers as in evaluation, and keeps its mode: to predict never
    changes weights or batch-norm statistics.

    Args:
        network: Of timm, with two logits.
        cam_layer: The layer whose output the cells are made of; "": the last feature map.
    """

    has_cells = True

    def __init__(self, network: nn.Module, cam_layer: str = "") -> None:
        self._network, self._cam_layer = network, cam_layer

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
        with _evaluation(self._network):
            features, logits = self._features_and_logits(self._tensor(inputs))
            margins = logits[:, 1] - logits[:, 0]
            (gradients,) = torch.autograd.grad(margins.sum(), features)
        classifier: Any = self._network
        bias = classifier.get_classifier().bias
        offset = float((bias[1] - bias[0]).detach()) if bias is not None else 0.0
        maps, slopes = (self._as_maps(one.detach().float()) for one in (features, gradients))
        weights = slopes.mean((2, 3), keepdim=True) * maps.shape[2] * maps.shape[3]
        cells: NDArray[np.float32] = ((weights * maps).sum(1) + offset).cpu().numpy()
        return cells

    def _features_and_logits(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        network: Any = self._network
        if not self._cam_layer:
            with torch.no_grad():
                features = network.forward_features(pixels)
            with torch.enable_grad():
                features = features.detach().requires_grad_()
                return features, network.forward_head(features)
        kept: list[Tensor] = []
        layer = network.get_submodule(self._cam_layer)
        handle = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        try:
            with torch.enable_grad():
                logits = network(pixels.requires_grad_())
        finally:
            handle.remove()
        return kept[0], logits

    def _as_maps(self, features: Tensor) -> Tensor:
        """Return N x C x h x w of features; of a transformer, the patches' tokens laid out."""
        if features.ndim == 4:
            return features
        network: Any = self._network
        tokens = features[:, network.num_prefix_tokens :]
        side = round(tokens.shape[1] ** 0.5)
        return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)

    def _tensor(self, inputs: NDArray[np.float32]) -> Tensor:
        first = self._first
        return torch.from_numpy(inputs).to(first.device, first.dtype)

    @property
    def _first(self) -> Tensor:
        return next(self._network.parameters())


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
