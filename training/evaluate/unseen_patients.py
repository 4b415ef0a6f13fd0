"""Validate a model on BreaKHis patients that it never saw, as another hospital would.

python -m training.evaluate.unseen_patients --breakhis MORE.tar.gz --known SAMPLE.tar.gz
    --model cards/bcd-mobilenetv2 --out OUT --page docs/validation.md

OUT gets the images with their list, for ``bcd validate`` and ``bcd calibrate``; the model's config
how it ranks these patients, by which it answers for microscope cameras' fields or refers them. A
page gets the table, with the robustness ladder in words, and the figures beside it as JSON.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated

import typer

from bcd_models import local
from bcd_models.config import CameraValidation
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.local.page import (
    describe_after,
    describe_referral,
    name_figure,
    share,
    show,
    summarise,
)
from bcd_models.local.validation import SAMPLE, Validation
from bcd_models.models.classifier import BCDClassifier
from training import command
from training.corpus.sources import breakhis
from training.corpus.sources.source import Image
from training.pages import put_between, write_table
from training.run_folder import change_config

MAGNIFICATIONS = ("100X", "200X")  # fields of 620 and 310 micrometres, of which tiles can be cut
LIST = "list.csv"
BEGIN, END = "<!-- written by training.evaluate.unseen_patients -->", "<!-- end of figures -->"


def write_list(archive: Path, known: Path, out: Path) -> int:
    """Write a list of the images of those patients that a second archive lacks.

    Args:
        archive: BreaKHis, a folder or an archive.
        known: The same of what models were trained on.
        out: New folder for the list and its images.

    Returns:
        How many images there are.
    """
    seen = {image.case_id for image in breakhis.read(known) if isinstance(image, Image)}
    out.mkdir(parents=True)
    rows = [["path", "label", "case", "mpp"]]
    for image in breakhis.read(archive):
        if not isinstance(image, Image) or image.case_id in seen:
            continue
        if image.magnification in MAGNIFICATIONS:
            name = image.name.rpartition("/")[2]
            write_files({out / name: image.data})
            case = image.case_id.rpartition("/")[2]
            mpp = f"{breakhis.BREAKHIS.mpp[image.magnification]:g}"
            rows.append([name, image.label, case, mpp])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_files({out / LIST: text.getvalue().encode()})
    return len(rows) - 1


def tabulate(found: Validation, refusal: str) -> str:
    """Return what was found as Markdown: a table, the ladder in a sentence, and calibration."""
    figures, counts = found.figures, found.figures.counts
    rows = [("AUROC", show(figures.auroc), show(found.stated) if found.stated else "")]
    for name, one in figures.points.items():
        for figure in ("sensitivity", "specificity"):
            stated = getattr(one, f"{figure}_stated")
            own = share(getattr(one, figure))
            rows.append((f"{figure}, {name}", own, share(stated) if stated else ""))
        rows.append((f"referred, {name}", f"{one.referred:.1%}", ""))
        wrong, of_decided, large = describe_referral(one)
        rows.append((f"wrong of a case, {name}", wrong, ""))
        rows.append((f"wrong of the decided, {name}", of_decided, ""))
        rows.append((f"cases above 20%, {name}", f"{large} of {counts.cases}", ""))
    rows += [
        ("calibration slope", show(figures.slope, 2), ""),
        ("calibration in the large", show(figures.in_the_large, 2), ""),
    ]
    rows += [
        (
            f"cases needed to detect {figures.difference:g} in {name_figure(one.figure)}",
            f"{one.needed}",
            "",
        )
        for one in figures.needed
    ]
    here = (
        f"{counts.images} images of {counts.cases} patients ({counts.benign_cases} benign, "
        f"{counts.malignant_cases} malignant)"
    )
    table = write_table(("figure", here, "stated"), rows)
    return f"{table}\n\n{' '.join(summarise(found))}\n\n`bcd calibrate`: {refusal}\n"


def main(
    archive: Annotated[Path, typer.Option("--breakhis", help="BreaKHis, archive or folder.")],
    known: Annotated[Path, typer.Option(help="What of it the model was trained on.")],
    model: Annotated[Path, typer.Option(help="Model folder.")],
    out: Annotated[Path, typer.Option(help="New folder for images and list.")],
    page: Annotated[
        Path | None, typer.Option(help="Page that gets the table between its marks.")
    ] = None,
) -> None:
    """Validate a model on patients that it never saw, and try to calibrate it on them."""
    typer.echo(f"{write_list(archive, known, out)} images: {out / LIST}")
    images, _ = local.read_labelled(out / LIST)
    loaded = BCDClassifier.from_pretrained(model)
    ladder_images = SAMPLE if page else 0
    found = local.validate(loaded, images, folder=model, ladder_images=ladder_images)
    counts = found.figures.counts
    cameras = CameraValidation(
        source=breakhis.BREAKHIS.name,
        images=counts.images,
        cases=counts.cases,
        auroc=found.figures.auroc,
    )
    change_config(model, {"cameras": cameras})
    if page is None:
        return
    try:
        refusal = "\n".join(describe_after(local.recalibrate(loaded, images)[1]))
    except InputError as error:
        refusal = f"refused. {error}."
    text = put_between(page.read_text("utf-8"), BEGIN, END, tabulate(found, refusal))
    figures = page.with_suffix(".json")
    write_files({page: text.encode(), figures: f"{found.model_dump_json(indent=1)}\n".encode()})


if __name__ == "__main__":
    command.run(main)
