"""Augmentation of whole batches on the device: turns, colour and stain jitter, MixUp.

All draws come from torch's default generator on the CPU: one seed decides them on every device.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torchvision.transforms import v2

from training.corpus.device import symmetry
from training.recipes.schema import Augment

_DARKEST = 1e-6  # skimage's own floor, so that black has a logarithm
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
        pixels = _turn(pixels)
    if strengths.stain:
        # After Tellez et al., IEEE TMI 2018: more or less of each stain in each image.
        factors = torch.empty(len(pixels), 3, 1, 1)
        factors = factors.uniform_(1 - strengths.stain, 1 + strengths.stain)
        pixels = to_rgb(to_hed(pixels) * factors.to(pixels))
    return _jitter(pixels, strengths)


def mix_up(inputs: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with the one before it (MixUp, Zhang et al., ICLR 2018).

    Args:
        inputs: N x 3 x S x S.
        targets: Soft targets, N x 2.
        alpha: Of the Beta distribution the share is drawn from; 0 mixes nothing.
    """
    if alpha > 0:
        inputs, targets = v2.MixUp(alpha=alpha)(inputs, targets)
    return inputs, targets


def to_hed(pixels: Tensor) -> Tensor:
    """Return amounts of haematoxylin, eosin, DAB (Ruifrok and Johnston 2001), N x 3 x S x S.

    scikit-image's ``rgb2hed`` but for one thing: amounts below zero stay, so that ``to_rgb`` gives
    back every colour.
    """
    density = (pixels / 255).clamp(min=_DARKEST).log() / math.log(_DARKEST)
    return torch.einsum("nihw,ij->njhw", density, _to_matrix(hed_from_rgb, pixels))


def to_rgb(stains: Tensor) -> Tensor:
    """Return pixels from 0 to 255 of amounts of the three stains; undoes ``to_hed``."""
    density = torch.einsum("nihw,ij->njhw", stains, _to_matrix(rgb_from_hed, stains))
    return (density * math.log(_DARKEST)).exp().mul(255).clamp(0, 255)


def _to_matrix(of: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.as_tensor(of).to(like)


def _turn(pixels: Tensor) -> Tensor:
    """Apply one of the square's eight symmetries to each image."""
    drawn = torch.randint(8, (len(pixels),)).to(pixels.device)
    turned = pixels.clone()
    for which in range(1, 8):
        turned[drawn == which] = symmetry(pixels[drawn == which], which)
    return turned


def _jitter(pixels: Tensor, strengths: Augment) -> Tensor:
    """Vary brightness, then contrast about the mean luma, then saturation about the luma."""

    def factors(strength: float) -> Tensor:
        drawn = torch.empty(len(pixels), 1, 1, 1).uniform_(1 - strength, 1 + strength)
        return drawn.to(pixels)

    if strengths.brightness:
        pixels = (pixels * factors(strengths.brightness)).clamp(0, 255)
    luma = torch.tensor(_LUMA).to(pixels).view(3, 1, 1)
    if strengths.contrast:
        mean = (pixels * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        pixels = torch.lerp(mean, pixels, factors(strengths.contrast)).clamp(0, 255)
    if strengths.saturation:
        grey = (pixels * luma).sum(1, keepdim=True)
        pixels = torch.lerp(grey, pixels, factors(strengths.saturation)).clamp(0, 255)
    return pixels
