"""``bcd export``: a model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_models.cli.arguments import Model, load_model
from bcd_models.cli.output import escape_controls, print_notice, write_file
from bcd_models.errors import InputError


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
) -> None:
    """Write a model as ONNX, from "pixels" as its config.json makes them ready to "logits"."""
    from bcd_models.models.classifier import BCDClassifier
    from bcd_models.runtime.forward import onnx_bytes

    loaded = load_model(model)
    if not isinstance(loaded, BCDClassifier):
        raise InputError("an ensemble can't be exported as one: export each of its members")
    write_file(out, onnx_bytes(loaded.network, loaded.config.preprocess.input_size))
    typer.echo(f"{escape_controls(str(out))}: {loaded.config.name} {loaded.config.version}")
    print_notice()
