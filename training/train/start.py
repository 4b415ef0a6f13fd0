"""Where a network's weights start from: a file, timm's ImageNet weights, or nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from bcd_models.config import RGB
from bcd_models.errors import InputError
from bcd_models.models.backbones import backbone_named

_HALF: RGB = (0.5, 0.5, 0.5)


def silence_head(network: nn.Module) -> None:
    """Let training begin from equal logits; timm's own random head begins far from them."""
    head = network.get_submodule("classifier")
    for parameter in head.parameters():
        nn.init.zeros_(parameter)


def from_file(network: nn.Module, path: Path) -> tuple[RGB, RGB, str]:
    """Load a start file that wants inputs in [-1, 1]; tensors it lacks keep their random start.

    Returns:
        Mean and standard deviation of the inputs it wants, and the file's SHA-256.

    Raises:
        InputError: Not safetensors, or tensors that do not fit the network.
    """
    try:
        data = path.read_bytes()
        tensors = load(data)
    except OSError as error:
        raise InputError(f"start weights {path} can't be read: {error}") from None
    except SafetensorError as error:
        raise InputError(f"start weights {path} are not a safetensors file ({error})") from None
    wanted = network.state_dict()
    for name, tensor in tensors.items():
        if name not in wanted or wanted[name].shape != tensor.shape:
            raise InputError(f"start weights {path} do not fit the network: {name}")
    network.load_state_dict(tensors, strict=False)
    return _HALF, _HALF, hashlib.sha256(data).hexdigest()


def from_imagenet(network: nn.Module, backbone: str) -> tuple[RGB, RGB, str]:
    """Load timm's ImageNet weights from the Hub, all but the classifier."""
    import timm

    name = backbone_named(backbone).timm_name
    try:
        source = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm lets through whatever the Hub's client raises
        raise InputError(
            f"timm's ImageNet weights of {name} can't be had ({error}); without the Hub, "
            "hand in a file with --start FILE, or use start: none"
        ) from None
    tensors = {k: v for k, v in source.state_dict().items() if not k.startswith("classifier.")}
    network.load_state_dict(tensors, strict=False)
    return source.pretrained_cfg["mean"], source.pretrained_cfg["std"], ""
