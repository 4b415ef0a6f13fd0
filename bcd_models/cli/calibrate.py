"""``bcd calibrate``: a model calibrated on a user's own labelled images, in a new folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_models.cli.arguments import Device, Model, load_model
from bcd_models.cli.output import print_error, print_notice, print_warning, with_progress
from bcd_models.cli.validate import Listed, read_images


def calibrate(
    images: Listed,
    model: Model,
    out: Annotated[Path, typer.Option(help="New folder for the calibrated model.")],
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    device: Device = "auto",
) -> None:
    """Fit calibration and operating points on your own images, into a new model folder.

    The model itself stays as it is. Exit code 1 where some lines could not be used, 2 where there
    are too few cases, more than a tenth of the images have no scale, answers aren't shown to rise
    with the labels, or nothing could be written.
    """
    from bcd_models import local
    from bcd_models.local.page import describe_after, describe_left_out

    local.refuse_existing(out)
    listed, faults = read_images(images)
    loaded = load_model(model, device)
    calibrated, found, unusable = local.recalibrate(loaded, listed, with_progress)
    for fault in unusable:
        print_error(fault)
    for line in describe_left_out(found):
        print_warning(line)
    local.write_folder(calibrated, found, out)
    if json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        typer.echo(f"{calibrated.config.name} {calibrated.config.version} in {out}")
        for one in calibrated.config.calibrated:
            typer.echo(f"Calibrated on {one.words}.")
        for line in describe_after(found):
            typer.echo(line)
        print_notice()
    if faults or unusable:
        raise typer.Exit(1)
