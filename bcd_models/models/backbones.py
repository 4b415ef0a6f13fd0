"""The registry of backbones: one entry an architecture; everything else is asked of timm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcd_models.config import LABELS, ModelConfig
from bcd_models.errors import InputError
from bcd_models.runtime.choice import require_torch

if TYPE_CHECKING:
    from torch import nn

ASKED_OF_TIMM = ("first_conv", "classifier", "fixed_input_size", "license")


@dataclass(frozen=True)
class Backbone:
    """One architecture.

    Attributes:
        name: What recipes and model folders call it.
        timm_name: What timm calls it.
        title: What people call it.
        cell_pixels: Side in pixels of the input that one cell of the map stands for.
        input_size: Side in pixels of the input.
    """

    name: str
    timm_name: str
    title: str
    cell_pixels: int = 32
    input_size: int = 224


BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone("mobilenetv2", "mobilenetv2_100", "MobileNetV2"),
        Backbone("efficientnet_b2", "efficientnet_b2", "EfficientNet-B2"),
        Backbone("densenet121", "densenet121", "DenseNet-121"),
        Backbone("vit_small", "vit_small_patch14_dinov2", "DINOv2 ViT-S/14", 14, 98),
    )
}


def get_backbone(name: str) -> Backbone:
    """Look a backbone up.

    Raises:
        InputError: No such backbone; the message lists those there are.
    """
    if name not in BACKBONES:
        raise InputError(f"no backbone {name!r}: choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def count_cells(config: ModelConfig) -> int:
    """Return how many cells a heat map has along one side of the input."""
    return -(-config.preprocess.input_size // get_backbone(config.backbone).cell_pixels)


def create_network(
    name: str, input_size: int, *, drop_path: float = 0.0, dropout: float = 0.0
) -> nn.Module:
    """Make a fresh timm network with two logits (benign, malignant) and random weights.

    Args:
        name: Of the registry.
        input_size: Side in pixels of its input; a transformer's positions are made for it.
        drop_path: Chance that a block is left out in training.
        dropout: Chance that a pooled feature is.

    Raises:
        InputError: No such backbone, or torch or timm is missing.
    """
    backbone = get_backbone(name)
    require_torch("a network")
    import timm

    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}  # not all know it
    if _timm_says(backbone)["fixed_input_size"]:  # and training's phases have sizes of their own
        options |= {"img_size": input_size, "dynamic_img_size": True}
    network: nn.Module = timm.create_model(
        backbone.timm_name,
        num_classes=len(LABELS),
        drop_rate=dropout,
        **options,
    )
    return network


def write_config(config: ModelConfig) -> str:
    """Return a model's whole ``config.json``, timm's part included.

    Raises:
        InputError: timm, which knows the names of the network's layers, is missing.
    """
    backbone = get_backbone(config.backbone)
    return config.to_json(backbone.timm_name, _timm_says(backbone))


def _timm_says(backbone: Backbone) -> dict[str, Any]:
    require_torch("a model's config.json")
    import timm

    known = timm.get_pretrained_cfg(backbone.timm_name)
    return {key: getattr(known, key) for key in ASKED_OF_TIMM}
