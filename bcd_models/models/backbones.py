"""The registry of backbones: our name -> timm model, input size, where the heat map is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bcd_models.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Backbone:
    """One architecture.

    Attributes:
        name: What recipes and model folders call it.
        timm_name: What timm calls it.
        title: What people call it.
        cam_layer: Module whose output the class-activation map is made of: the last feature map,
            straight before global average pooling and the linear classifier.
        input_size: Side in pixels of the input.
    """

    name: str
    timm_name: str
    title: str
    cam_layer: str
    input_size: int = 224


BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone("mobilenetv2", "mobilenetv2_100", "MobileNetV2", "bn2"),
        Backbone("efficientnet_b2", "efficientnet_b2", "EfficientNet-B2", "bn2"),
    )
}


def backbone_named(name: str) -> Backbone:
    """Look a backbone up.

    Raises:
        InputError: No such backbone; the message lists those there are.
    """
    if name not in BACKBONES:
        raise InputError(f"no backbone {name!r}: choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def create(name: str, drop_path: float = 0.0, dropout: float = 0.0) -> nn.Module:
    """A fresh timm network with two logits (benign, malignant) and random weights."""
    import timm

    network: nn.Module = timm.create_model(
        backbone_named(name).timm_name,
        num_classes=2,
        drop_path_rate=drop_path,
        drop_rate=dropout,
    )
    return network
