"""``bcd check-split``: whether a model can be measured on a split of a user's own images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_models.cli.output import escape_controls, print_error, with_progress
from bcd_models.config import LABELS
from bcd_models.errors import InputError
from bcd_models.images.image_list import PARTS, LabelledImage

if TYPE_CHECKING:
    from bcd_models.local import Floor, SplitCheck

MAX_SHOWN = 10  # cases or pictures that are named; --json names all


def check_split(
    images: Annotated[
        Path, typer.Argument(help="CSV list with path, label, case, split; also mpp and source.")
    ],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Look for cases and pixels in several parts, and say what colour alone tells.

    Exit code 1 where there are such, or some lines could not be used; 2 where none could.
    """
    from bcd_models import local

    listed, faults = local.read_split(images)
    seen = list(with_progress(local.measure_images(listed), len(listed), "reading"))
    faults += [one for one in seen if isinstance(one, str)]
    for fault in faults:
        print_error(fault)
    usable = [one for one, found in zip(listed, seen, strict=True) if not isinstance(found, str)]
    if not usable:
        raise InputError(f"list {images} names no image that can be used")
    check = local.check_split(usable, [one for one in seen if not isinstance(one, str)])
    if json:
        from json import dumps

        typer.echo(dumps(_to_document(check, faults), indent=2))
    else:
        _print_report(check)
    if faults:
        typer.echo(
            f"{len(faults)} of {len(usable) + len(faults)} lines could not be used", err=True
        )
    if faults or not check.is_clean:
        raise typer.Exit(1)


def _count(members: Sequence[LabelledImage]) -> dict[str, int]:
    """Return how many images, cases, and images of each label a part has."""
    counts = {"images": len(members), "cases": len({one.case_id for one in members})}
    return counts | {label: sum(one.label == label for one in members) for label in LABELS}


def _to_document(check: SplitCheck, faults: Sequence[str]) -> dict[str, Any]:
    def describe(shared: Sequence[Sequence[LabelledImage]]) -> list[list[dict[str, str]]]:
        return [
            [{"path": str(one.file), "part": one.part, "case": one.case_id} for one in some]
            for some in shared
        ]

    return {
        "clean": check.is_clean and not faults,
        "parts": {name: _count(members) for name, members in check.parts.items()},
        "cases_in_several_parts": describe(check.shared_cases),
        "pixels_in_several_parts": describe(check.shared_pixels),
        "colour_floor": check.colour_floor,
        "source_floor": check.source_floor,
        "not_used": list(faults),
    }


def _print_report(check: SplitCheck) -> None:
    typer.echo(f"{'part':10} {'images':>9} {'cases':>7} {LABELS[0]:>9} {LABELS[1]:>9}")
    for name, members in check.parts.items():
        images, cases, *labels = _count(members).values()
        typer.echo(f"{name:10} {images:9,} {cases:7,} {labels[0]:9,} {labels[1]:9,}")
    by_case = [f"case {some[0].case_id}: {_count_parts(some)}" for some in check.shared_cases]
    _print_shared("cases in several parts", by_case)
    by_pixels = [
        "; ".join(f"{one.part} {one.file}" for one in some) for some in check.shared_pixels
    ]
    _print_shared("the same pixels in several parts", by_pixels)
    _print_floor("colour statistics", check.colour_floor)
    if check.source_floor is not None:
        _print_floor("the source", check.source_floor)


def _count_parts(images: Sequence[LabelledImage]) -> str:
    found = [one.part for one in images]
    return ", ".join(f"{found.count(part):,} in {part}" for part in PARTS if part in found)


def _print_shared(what: str, found: Sequence[str]) -> None:
    typer.echo(f"{what}: {len(found) or 'none'}")
    for line in found[:MAX_SHOWN]:
        typer.echo(escape_controls(f"  {line}"))
    if len(found) > MAX_SHOWN:
        typer.echo(f"  and {len(found) - MAX_SHOWN:,} more: --json names all")


def _print_floor(what: str, floor: Floor) -> None:
    """Print what something that is no model reaches."""
    for part, auroc in floor.items():
        reached = "not estimable (too few cases, or one label only)"
        if auroc is not None:
            reached = f"AUROC {auroc:.3f}: a model must do better"
        typer.echo(f"{what} alone, fitted on train, on {part}: {reached}")
