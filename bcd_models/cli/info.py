"""``bcd info``: what a model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bcd_models.cli.arguments import MODEL_HELP, load_model
from bcd_models.cli.output import print_notice

if TYPE_CHECKING:
    from bcd_models.config import DecisionConfig, OperatingPoint
    from bcd_models.models.predictor import Predictor


def info(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a model is, where it comes from and how it decides."""
    loaded = load_model(model)
    if json:
        from json import dumps

        document = loaded.config.model_dump(mode="json") | {"weights_sha256": loaded.weights_sha256}
        typer.echo(dumps(document, indent=2))
        return
    facts = _shared_facts(loaded) | _own_facts(loaded)
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(f"{name:{width}} {value}")
    print_notice()


def _shared_facts(loaded: Predictor) -> dict[str, str]:
    """What is said of a model and of an ensemble alike."""
    config, tiles = loaded.config, loaded.config.for_tiles
    fits = [one.words for one in config.calibrated]
    return {
        "model": f"{config.name} {config.version}",
        "parameters": f"{loaded.parameter_count:,}",
        "weights SHA-256": loaded.weights_sha256,
        **({"calibrated locally": "; ".join(fits)} if fits else {}),
        **_describe_rule(config.decision),
        **(_describe_rule(tiles, "tiles, ") if tiles != config.decision else {}),
        "suitability": "refers what is no H&E-stained tissue"
        if loaded.suitability
        else "not judged: the folder holds no statistics for it, so any image is answered for",
        "microscope cameras": _describe_cameras(loaded),
    }


def _describe_cameras(loaded: Predictor) -> str:
    """Return whether microscope cameras' fields are answered for, and by what figure."""
    cameras = loaded.cameras
    if cameras is None:
        return "answered for: the folder says nothing of them"
    found = cameras.auroc
    if found is None:
        return "referred: not measured"
    measured = (
        f"AUROC {found.value:.3f} ({found.low:.3f} to {found.high:.3f}) over {cameras.cases} "
        f"patients of {cameras.source}"
    )
    return f"answered for: {measured}" if cameras.is_enough else f"referred: {measured}"


def _describe_rule(rule: DecisionConfig, of: str = "") -> dict[str, str]:
    """Return what a rule decides by, and what its operating points were measured to do."""
    shown = {
        "threshold": f"{rule.threshold:.3f}",
        "referral band": _describe_band(rule.refer),
        **{f"point {name}": _describe_point(point) for name, point in rule.points.items()},
    }
    return {f"{of}{name}": words for name, words in shown.items()}


def _describe_point(point: OperatingPoint) -> str:
    from bcd_models.local.page import share

    said = [f"threshold {point.threshold:.3f}", f"referral band {_describe_band(point.refer)}"]
    for name in ("sensitivity", "specificity"):
        measured = getattr(point, name)
        said += [f"{name} {share(measured)}"] if measured else []
    return ", ".join(said)


def _describe_band(band: tuple[float, float] | None) -> str:
    return f"{band[0]:.3f} to {band[1]:.3f}" if band else "none"


def _own_facts(loaded: Predictor) -> dict[str, str]:
    """What is said of a model alone, or of an ensemble alone."""
    from bcd_models.models.classifier import BCDClassifier
    from bcd_models.models.ensemble import BCDEnsemble

    if isinstance(loaded, BCDEnsemble):
        members = (f"{m.config.name} {m.config.version}" for m in loaded.members)
        return {"members": ", ".join(members)}
    assert isinstance(loaded, BCDClassifier)
    config = loaded.config
    return {
        "backbone": loaded.backbone.title,
        "export": "model.onnx" if loaded.has_export else "none: torch answers",
        "gradient map": "explain.onnx"
        if loaded.has_gradient_export
        else "none: by torch, or occlusion in its place where torch isn't installed",
        "input": f"{config.preprocess.input_size} px",
        "trained field": f"{config.preprocess.field_width_um:g} micrometres wide, at "
        f"{config.preprocess.mpp:g} micrometres a pixel",
        "corpus": config.provenance.corpus or "unknown",
        "split": config.provenance.split_words or "unknown",
        "start weights": config.provenance.start or "unknown",
    }
