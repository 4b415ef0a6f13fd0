"""``bcd export``: a model's graphs beside its weights, or one ONNX file for other hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_models.cli.arguments import Model, load_model
from bcd_models.cli.output import escape_controls, print_notice, refuse_existing, write_file
from bcd_models.errors import InputError


def export(
    model: Model,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write the model into; its own by default. Or an ONNX file."),
    ] = None,
    self_contained: Annotated[
        bool,
        typer.Option(
            "--self-contained",
            help="Write one ONNX file with the weights in it, from pixels to logits.",
        ),
    ] = False,
) -> None:
    """Write a model's ONNX graphs, by which it answers and is explained without torch."""
    from bcd_models.models.classifier import BCDClassifier
    from bcd_models.runtime.graph import export_self_contained, require_export

    loaded = load_model(model)
    if not isinstance(loaded, BCDClassifier):
        raise InputError("an ensemble can't be exported as one: export each of its members")
    if self_contained:
        if out is None:
            raise InputError("--self-contained needs --out FILE.onnx")
        refuse_existing(out)
        size = loaded.config.preprocess.input_size
        write_file(out, export_self_contained(loaded.network, size))
    else:
        require_export()
        out = out or Path(model)
        if out == Path(model) and not out.is_dir():
            raise InputError(f"{model} is on the Hub: name a folder of your own with --out")
        loaded.save_pretrained(out)
    typer.echo(f"{escape_controls(str(out))}: {loaded.config.name} {loaded.config.version}")
    print_notice()
