"""Where a network's weights start from: a file, timm's ImageNet weights, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from timm.layers import resample_abs_pos_embed  # type: ignore[attr-defined]
from torch import Tensor, nn

from bcd_models.config import RGB
from bcd_models.errors import InputError
from bcd_models.models.backbones import get_backbone


def silence_head(network: Any) -> None:
    """Let training begin from equal logits; timm's own random head begins far from them."""
    for parameter in network.get_classifier().parameters():
        nn.init.zeros_(parameter)


def from_file(network: Any, path: Path, lacks: Sequence[str] = ()) -> tuple[RGB, RGB, str]:
    """Load a start file, all but its classifier.

    Args:
        network: What to load into; what the file lacks keeps its random start.
        path: Safetensors in timm's names. Its metadata may state the ``mean`` and ``std`` of the
            inputs, one number or three with spaces between; 0.5 where it doesn't.
        lacks: Patterns of the names of tensors that the file may lack, such as ``conv_head.*``.

    Returns:
        Mean and standard deviation of the inputs it wants, and the file's SHA-256.

    Raises:
        InputError: Not safetensors, tensors too many, too few or of another shape, or metadata
            that states no numbers.
    """
    try:
        with safe_open(path, "pt") as file:
            stated = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"start weights {path} can't be read: {error}") from None
    except SafetensorError as error:
        raise InputError(f"start weights {path} are not a safetensors file ({error})") from None
    head = f"{network.pretrained_cfg['classifier']}."  # begins the names of its tensors
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(head)}
    _fit_positions(network, tensors)
    wanted = network.state_dict()
    for name, tensor in tensors.items():
        if name not in wanted or wanted[name].shape != tensor.shape:
            raise InputError(f"start weights {path} do not fit the network: {name}")
    for name in wanted.keys() - tensors.keys():
        counts = name.endswith("num_batches_tracked")  # of batches seen, which begin at none
        if not counts and not name.startswith(head) and not any(fnmatch(name, p) for p in lacks):
            raise InputError(
                f"start weights {path} lack {name}: choose another file, or name in the recipe's "
                "start_lacks what they may lack"
            )
    network.load_state_dict(tensors, strict=False)
    return _read_scaling(stated, "mean", path), _read_scaling(stated, "std", path), sha256


def _fit_positions(network: Any, tensors: dict[str, Tensor]) -> None:
    """Resample a transformer's positions, in place, to the grid of its own input."""
    if "pos_embed" in tensors:
        tensors["pos_embed"] = resample_abs_pos_embed(
            tensors["pos_embed"].float(),
            network.patch_embed.grid_size,
            num_prefix_tokens=network.num_prefix_tokens,
        )


def _read_scaling(metadata: Mapping[str, str], name: str, path: Path) -> RGB:
    """Return what a file's metadata states for the three channels, or 0.5 for each."""
    text = metadata.get(name, "0.5")
    try:
        numbers = [float(number) for number in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise InputError(f"start weights {path} state {name} {text!r}: it takes 1 or 3 numbers")
    red, green, blue = numbers * (3 // len(numbers))
    return red, green, blue


def from_imagenet(network: Any, backbone: str) -> tuple[RGB, RGB, str]:
    """Load timm's ImageNet weights from the Hub, all but the classifier."""
    import timm

    name = get_backbone(backbone).timm_name
    try:
        source: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm lets through whatever the Hub's client raises
        raise InputError(
            f"timm's ImageNet weights of {name} can't be had ({error}); without the Hub, "
            "hand in a file with --start FILE, or use start: none"
        ) from None
    head = f"{source.pretrained_cfg['classifier']}."
    tensors = {k: v for k, v in source.state_dict().items() if not k.startswith(head)}
    _fit_positions(network, tensors)
    network.load_state_dict(tensors, strict=False)
    return source.pretrained_cfg["mean"], source.pretrained_cfg["std"], ""
