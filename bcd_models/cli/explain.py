"""``bcd explain``: the heat map of one image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_models.cli.arguments import (
    Adapter,
    CameraPixel,
    Device,
    Model,
    Mpp,
    Objective,
    Point,
    Suitability,
    choose_scale,
    load_model,
)
from bcd_models.cli.output import (
    describe_point,
    escape_controls,
    find_reasons,
    print_error,
    print_ignored,
    print_notice,
    print_points,
    print_reasons,
    print_table_head,
    print_table_row,
    refuse_existing,
    refuse_to_overwrite,
    write_png,
)
from bcd_models.decision import check_label
from bcd_models.explain.methods import DEFAULT, METHODS


def explain(
    image: Annotated[Path, typer.Argument(help="One image file.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    label: Annotated[
        str | None, typer.Option(help="benign or malignant; the predicted label by default.")
    ] = None,
    method: Annotated[
        str, typer.Option(help=f"How the map is made: {', '.join(METHODS)}.")
    ] = DEFAULT,
    views: Annotated[
        int, typer.Option(help="1, 4 or 8: turns and reflections that the map is the mean over.")
    ] = 1,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the heat map.")] = 0.5,
    mpp: Mpp = None,
    objective: Objective = None,
    camera_pixel: CameraPixel = None,
    adapter: Adapter = None,
    point: Point = None,
    suitability: Suitability = "refer",
    device: Device = "auto",
) -> None:
    """Show which regions of an image speak for a label; exit code 1 where it looks unsuitable."""
    wanted = None if label is None else check_label(label)
    refuse_to_overwrite([image], [out])
    refuse_existing(out)
    given = choose_scale(mpp, objective, camera_pixel, adapter)
    explained = load_model(model, device)
    explanation = explained.explain(
        image,
        label=wanted,
        method=method,
        views=views,  # type: ignore[arg-type]  # checked there
        mpp=given,
        point=point,
        suitability=suitability,
    )
    prediction = explanation.prediction
    if why := prediction.unsuitable_words:
        print_error(f"{image}: {why}; --suitability ignore explains it all the same")
        raise typer.Exit(1)
    write_png(explanation.overlay(opacity), out)
    print_table_head()
    print_table_row(str(image), prediction)
    print_reasons([(str(image), find_reasons(prediction))])
    print_ignored(str(image), prediction)
    print_points(describe_point(prediction))
    print_notice()
    typer.echo(
        f"regions that speak for {explanation.label}, by {explanation.method}: "
        f"{escape_controls(str(out))}"
    )
