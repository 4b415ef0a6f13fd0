"""``bcd predict``: labels of images, as a table, CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv as csv_module
import io
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_models.batch import Share, describe_failure, predict_into
from bcd_models.cli.arguments import (
    Adapter,
    CameraPixel,
    Device,
    Images,
    Model,
    Mpp,
    Objective,
    Point,
    Suitability,
    choose_scale,
    find_images,
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
    refuse_to_overwrite,
    with_progress,
    write_png,
)
from bcd_models.errors import ImageError, InputError
from bcd_models.prediction import COLUMNS, Prediction

if TYPE_CHECKING:
    from bcd_models.images.scale import Scale
    from bcd_models.models.predictor import Predictor
    from bcd_models.prediction import Unsuitable

    PrintAnswer = Callable[[str, Prediction], None]


def predict(
    images: Images,
    model: Model,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
    overlay: Annotated[
        Path | None, typer.Option(help="Also write a heat-map overlay of each image here.")
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(help="Write the answers into this folder in parts, going on after a kill."),
    ] = None,
    mpp: Mpp = None,
    objective: Objective = None,
    camera_pixel: CameraPixel = None,
    adapter: Adapter = None,
    point: Point = None,
    suitability: Suitability = "refer",
    device: Device = "auto",
) -> None:
    """Label images; exit code 1 where some could not be used, 2 where none could.

    With --parquet, `accelerate launch -m bcd_models.cli predict ...` shares the images among
    processes and machines.
    """
    if sum(map(bool, (json, csv, parquet))) > 1:
        raise InputError("choose one of --json, --csv and --parquet")
    if parquet and overlay:
        raise InputError("--overlay doesn't go with --parquet")
    given = choose_scale(mpp, objective, camera_pixel, adapter)
    found = find_images(images)
    paths, scales = [one.path for one in found], [one.scale or given for one in found]
    classifier = load_model(model, device)
    for rule in (classifier.config.decision, classifier.config.for_tiles):
        rule.at(point)  # there is such a point, before anything is printed or written
    if parquet:
        return _predict_into(parquet, classifier, paths, scales, point, suitability)
    if overlay and len(set(paths)) < len(set(zip(paths, scales, strict=True))):
        raise InputError("an image is listed at two scales, and has one overlay: list it once")
    targets = _overlay_files(paths, overlay, classifier.config.name) if overlay else {}
    print_answer = _choose_printer(json, csv)
    failures = []
    referred, ignored = [], []
    points: dict[str, None] = {}  # sentences, each once
    answer_all = classifier.explanations if overlay else classifier.stream
    answers = answer_all(paths, mpp=scales, point=point, suitability=suitability)
    stream = with_progress(answers, len(paths), "predicting")
    for path, (_, answer) in zip(paths, stream, strict=True):
        if isinstance(answer, ImageError):
            # In words: the error itself would keep the file's bytes.
            failures.append(describe_failure(path, answer))
            continue
        prediction = answer if isinstance(answer, Prediction) else answer.prediction
        print_answer(str(path), prediction)
        points |= dict.fromkeys(describe_point(prediction))
        if reasons := find_reasons(prediction):
            referred.append((str(path), reasons))
        if prediction.ignored:
            ignored.append((str(path), prediction))
        if not isinstance(answer, Prediction):
            write_png(answer.overlay(), targets[path])
    if not (json or csv):
        print_reasons(referred)
        for one, prediction in ignored:
            print_ignored(one, prediction)
        print_points(points)
    _finish(failures, len(paths), notice=not json)
    return None


def _predict_into(
    folder: Path,
    classifier: Predictor,
    paths: list[Path],
    scales: list[Scale | None],
    point: str | None,
    suitability: Unsuitable,
) -> None:
    """Answer for this process' share of the images, into Parquet parts."""
    share = Share.from_environment()
    done = predict_into(
        classifier, paths, folder, share, mpp=scales, point=point, suitability=suitability
    )
    of = f" (process {share.rank + 1} of {share.world_size})" if share.world_size > 1 else ""
    kept = f", {done.kept} were there" if done.kept else ""
    typer.echo(f"{escape_controls(str(folder))}: {done.answered} images{kept}{of}")
    _finish(done.failed, done.answered)


def _finish(failures: Sequence[str], total: int, notice: bool = True) -> None:
    """Name the images that can't be used, and end with the exit code that this means."""
    for failure in failures:
        print_error(failure)
    if notice:
        print_notice()
    if failures:
        typer.echo(f"{len(failures)} of {total} images could not be used", err=True)
        raise typer.Exit(2 if len(failures) == total else 1)


def _choose_printer(json: bool, csv: bool) -> PrintAnswer:
    """Return what prints an answer in the form asked for; the head of a table is printed here."""
    if json:
        from json import dumps

        return lambda path, answer: typer.echo(dumps({"path": path, **answer.to_dict()}))
    if csv:
        _print_csv(("path", *COLUMNS))
        return lambda path, answer: _print_csv((path, *answer.to_row().values()))
    print_table_head()
    return print_table_row


def _print_csv(cells: Iterable[Any]) -> None:
    line = io.StringIO()
    csv_module.writer(line).writerow(cells)
    print(line.getvalue(), end="", flush=True)  # typer.echo would take escape codes out of names


def _overlay_files(images: list[Path], folder: Path, model: str) -> dict[Path, Path]:
    """Return where each image's overlay goes, checked before any work is done.

    A file is named after the image's stem where nothing else claims that name, else after its path
    below the folder that holds all images, suffix and all: ``a/1.png-<model>.png``. So no two
    images share one.
    """
    places = {image: Path(os.path.abspath(image)) for image in images}
    top = os.path.commonpath([place.parent for place in places.values()])
    claims: Counter[str] = Counter()
    for place in set(places.values()):
        claims.update({place.stem.casefold(), str(place.relative_to(top)).casefold()})
    files = {}
    for image, place in places.items():
        unique = claims[place.stem.casefold()] == 1
        name = place.stem if unique else str(place.relative_to(top))
        files[image] = folder / f"{name}-{os.path.basename(model)}.png"
    refuse_to_overwrite(images, files.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder} can't be written: {error.strerror}") from None
    return files
