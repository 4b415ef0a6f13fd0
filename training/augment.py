"""Augmentation of whole batches on the device: flips, right-angle turns, colour jitter, MixUp."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from training.recipe import Augment

_LUMA = (0.299, 0.587, 0.114)


def augment(pixels: Tensor, strengths: Augment) -> Tensor:
    """Vary each image of a batch in its own way.

    Args:
        pixels: N x 3 x S x S, float from 0 to 255.
        strengths: How much; zero strengths leave the pixels as they are.

    Returns:
        The same shape, from 0 to 255.
    """
    if strengths.flips:
        pixels = _turned(pixels)
    return _jittered(pixels, strengths)


def mixed(inputs: Tensor, labels: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """MixUp (Zhang et al., ICLR 2018) of a batch.

    Returns:
        The inputs, mixed where alpha is above 0, and soft targets N x 2.
    """
    if alpha > 0:
        inputs, targets = v2.MixUp(alpha=alpha, num_classes=2)(inputs, labels)
        return inputs, targets
    return inputs, functional.one_hot(labels, 2).to(inputs.dtype)


def _turned(pixels: Tensor) -> Tensor:
    """One of the square's eight symmetries for each image."""
    which = torch.randint(8, (len(pixels),)).to(pixels.device)
    turned = pixels.clone()
    for symmetry in range(1, 8):
        chosen = which == symmetry
        part = torch.rot90(pixels[chosen], symmetry % 4, (2, 3))
        turned[chosen] = part.flip(3) if symmetry >= 4 else part
    return turned


def _jittered(pixels: Tensor, strengths: Augment) -> Tensor:
    """Brightness, then contrast about the image's mean luma, then saturation about its luma."""

    def factors(strength: float) -> Tensor:
        drawn = torch.empty(len(pixels), 1, 1, 1).uniform_(1 - strength, 1 + strength)
        return drawn.to(pixels.device)

    if strengths.brightness:
        pixels = (pixels * factors(strengths.brightness)).clamp(0, 255)
    luma = torch.tensor(_LUMA, device=pixels.device).view(3, 1, 1)
    if strengths.contrast:
        mean = (pixels * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        pixels = torch.lerp(mean, pixels, factors(strengths.contrast)).clamp(0, 255)
    if strengths.saturation:
        grey = (pixels * luma).sum(1, keepdim=True)
        pixels = torch.lerp(grey, pixels, factors(strengths.saturation)).clamp(0, 255)
    return pixels
