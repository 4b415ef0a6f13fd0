"""``bcd info``: what a model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bcd_models.cli.arguments import MODEL_HELP, load_model
from bcd_models.cli.output import print_notice

if TYPE_CHECKING:
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
    for name, value in (_shared_facts(loaded) | _own_facts(loaded)).items():
        typer.echo(f"{name:20} {value}")
    print_notice()


def _shared_facts(loaded: Predictor) -> dict[str, str]:
    """What is said of a model and of an ensemble alike."""
    config = loaded.config
    band = config.decision.refer
    return {
        "model": f"{config.name} {config.version}",
        "parameters": f"{loaded.parameter_count:,}",
        "weights SHA-256": loaded.weights_sha256,
        **({"calibrated locally": _describe_calibration(loaded)} if config.calibrated else {}),
        "threshold": f"{config.decision.threshold:.3f}",
        **{
            f"threshold, {name}": f"{point.threshold:.3f}"
            for name, point in config.decision.points.items()
        },
        "referral band": f"{band[0]:.3f} to {band[1]:.3f}" if band else "none",
        "suitability": "refers what is no H&E-stained tissue"
        if loaded.suitability
        else "not judged: the folder holds no statistics for it, so any image is answered for",
    }


def _describe_calibration(loaded: Predictor) -> str:
    """Return when and on what a model was calibrated, and whether its weights are still those."""
    local = loaded.config.calibrated
    assert local is not None
    changed = local.parent_weights_sha256 != loaded.weights_sha256
    return local.words + ("; doesn't hold: the weights are others since" if changed else "")


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
