"""``bcd validate``: what a model is worth on a user's own labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd_models.cli.arguments import NUMBER, Device, Model, Point, load_model
from bcd_models.cli.output import (
    print_error,
    print_notice,
    print_warning,
    with_progress,
    write_file,
)
from bcd_models.errors import InputError

if TYPE_CHECKING:
    from bcd_models.images.image_list import LabelledImage

Listed = Annotated[
    Path, typer.Argument(help="CSV list with path, label, case; also mpp and source.")
]


def validate(
    images: Listed,
    model: Model,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report: validation.html and .json.")
    ] = None,
    point: Point = None,
    ladder_images: Annotated[
        int, typer.Option(min=0, help="Images that climb the robustness ladder; 0: none.")
    ] = 200,
    difference: Annotated[
        float, typer.Option(help="Difference that the cases needed are to detect.", **NUMBER)
    ] = 0.05,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    device: Device = "auto",
) -> None:
    """Measure a model on your own labelled images.

    Exit code 1 where a figure is worse than stated, or some lines could not be used; 2 where
    nothing could be measured.
    """
    from bcd_models import local
    from bcd_models.hub import folder as model_folder
    from bcd_models.local import page

    if not 0 < difference < 1:
        raise InputError(f"--difference {difference:g} must be between 0 and 1")
    if out:
        model_folder.refuse_inside(out)
    listed, faults = read_images(images)
    folder = model_folder.locate(model)
    found = local.validate(
        load_model(str(folder), device),
        listed,
        folder=folder,
        point=point,
        ladder_images=ladder_images,
        difference=difference,
        progress=with_progress,
    )
    for fault in found.not_used:
        print_error(fault)
    for warning in found.warnings:
        print_warning(warning)
    told = {"not_used": (*faults, *found.not_used), "list_name": images.name}
    found = found.model_copy(update=told)
    text = f"{found.model_dump_json(indent=1)}\n"
    if json:
        typer.echo(text, nl=False)
    else:
        for line in page.summarise(found):
            typer.echo(line)
        print_notice()
    if out:  # last: where it can't be written, what took minutes has been told
        write_file(out / "validation.json", text.encode())
        write_file(out / "validation.html", page.render(found).encode())
    if found.not_used or found.worse:
        raise typer.Exit(1)


def read_images(path: Path) -> tuple[list[LabelledImage], list[str]]:
    """Read a list of labelled images; what is wrong with other lines is printed as well."""
    from bcd_models import local

    listed, faults = local.read_labelled(path)
    for fault in faults:
        print_error(fault)
    if not listed:
        raise InputError(f"list {path} names no image that can be used")
    return listed, faults
