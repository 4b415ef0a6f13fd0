"""The ``bcd`` command: predict, explain, slide, info."""

from __future__ import annotations

import csv as csv_module
import glob
import io
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bcd_models.decision import check_label
from bcd_models.errors import BCDError, ImageError, InputError
from bcd_models.images.open import image_paths

if TYPE_CHECKING:
    from PIL.Image import Image

    from bcd_models.models.predictor import Predictor
    from bcd_models.prediction import Prediction

    Writer = Callable[[str, Prediction], None]

Answer = TypeVar("Answer")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benign or malignant? Breast-histopathology patches, for research use only.",
)

Images = Annotated[list[str], typer.Argument(help="Image files, folders of them, or patterns.")]
Model = Annotated[
    str, typer.Option(help="Folder of a model or an ensemble, or Hub id (owner/name).")
]


@app.command()
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
) -> None:
    """Label images; exit code 1 where some could not be used, 2 where none could.

    With --parquet, `accelerate launch -m bcd_models.cli predict ...` shares the images among
    processes and machines.
    """
    from bcd_models.prediction import Prediction

    if sum(map(bool, (json, csv, parquet))) > 1:
        raise InputError("choose one of --json, --csv and --parquet")
    if parquet and overlay:
        raise InputError("--overlay doesn't go with --parquet")
    paths = _paths(images)
    classifier = _load(model)
    if parquet:
        return _predict_into(parquet, classifier, paths)
    targets = _overlay_files(paths, overlay, classifier.config.name) if overlay else {}
    write = (_json_writer if json else _csv_writer if csv else _table_writer)()
    failures = []
    stream = classifier.explanations(paths) if overlay else classifier.stream(paths)
    for path, (_, answer) in zip(paths, _with_progress(stream, len(paths)), strict=True):
        if isinstance(answer, ImageError):
            failures.append(f"{path}: {answer}")  # the error itself would keep the file's bytes
        elif isinstance(answer, Prediction):
            write(str(path), answer)
        else:
            write(str(path), answer.prediction)
            _write_png(answer.overlay(), targets[path])
    _end(failures, len(paths), notice=not json)
    return None


def _predict_into(folder: Path, classifier: Predictor, paths: list[Path]) -> None:
    """Answer for this process' share of the images, into Parquet parts."""
    import torch

    from bcd_models.batch import Share, predict_into

    share = Share.from_environment()
    if torch.cuda.is_available():
        classifier.to(f"cuda:{share.here % torch.cuda.device_count()}")
    done = predict_into(classifier, paths, folder, share)
    of = f" (process {share.rank + 1} of {share.of})" if share.of > 1 else ""
    kept = f", {done.kept} were there" if done.kept else ""
    typer.echo(f"{_in_line(str(folder))}: {done.answered} images{kept}{of}")
    _end(done.failed, done.answered)


def _end(failures: Sequence[str], total: int, notice: bool = True) -> None:
    """Name the images that can't be used, and end with the exit code that this means."""
    for failure in failures:
        _tell_error(failure)
    if notice:
        _notice()
    if failures:
        typer.echo(f"{len(failures)} of {total} images could not be used", err=True)
        raise typer.Exit(2 if len(failures) == total else 1)


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="One image file.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    label: Annotated[
        str | None, typer.Option(help="benign or malignant; the predicted label by default.")
    ] = None,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the heat map.")] = 0.5,
) -> None:
    """Show which regions of an image speak for a label."""
    wanted = None if label is None else check_label(label)
    _refuse_to_overwrite([image], [out])
    explanation = _load(model).explain(image, label=wanted)
    _write_png(explanation.overlay(opacity), out)
    _table_writer()(str(image), explanation.prediction)
    typer.echo(f"regions that speak for {explanation.label}: {_in_line(str(out))}")


@app.command()
def slide(
    slide: Annotated[Path, typer.Argument(help="A whole slide: SVS, NDPI, MRXS, TIFF, DICOM.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for heat map, regions, tiles and summary.")],
    mpp: Annotated[
        float | None, typer.Option(help="Micrometres a pixel, where the slide doesn't say.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Tiles through the model at once.")] = 32,
) -> None:
    """Map a whole slide; exit code 1 where some tiles could not be read, 2 where none could."""
    from bcd_models.slides.command import ProgressLine, report
    from bcd_models.slides.output import files_of

    progress = ProgressLine()
    try:
        found = _load(model).predict_slide(slide, out=out, mpp=mpp, batch=batch, progress=progress)
    finally:
        progress.end()
    for line in report(found, files_of(found, out)):
        typer.echo(_in_line(line))
    for tile in found.failed:
        _tell_error(f"tile in row {tile.row}, column {tile.column}: {tile.reason}")
    _notice()
    if found.failed:
        tissue = int(found.tissue.sum())
        typer.echo(f"{len(found.failed)} of {tissue} tiles could not be read", err=True)
        raise typer.Exit(1 if found.predicted else 2)


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
) -> None:
    """Write a model as ONNX, from "pixels" as its config.json makes them ready to "logits"."""
    from bcd_models.models.classifier import BCDClassifier
    from bcd_models.runtime.graph import export_self_contained

    loaded = _load(model)
    if not isinstance(loaded, BCDClassifier):
        raise InputError("an ensemble can't be exported as one: export each of its members")
    _write(out, export_self_contained(loaded.network, loaded.config.preprocess.input_size))
    typer.echo(f"{_in_line(str(out))}: {loaded.config.name} {loaded.config.version}")
    _notice()


@app.command()
def info(
    model: Annotated[
        str, typer.Argument(help="Folder of a model or an ensemble, or Hub id (owner/name).")
    ],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a model is, where it comes from and how it decides."""
    loaded = _load(model)
    if json:
        from json import dumps

        document = loaded.config.model_dump(mode="json") | {"weights_sha256": loaded.weights_sha256}
        typer.echo(dumps(document, indent=2))
        return
    for name, value in (_shared_facts(loaded) | _own_facts(loaded)).items():
        typer.echo(f"{name:16} {value}")
    _notice()


def _shared_facts(loaded: Predictor) -> dict[str, str]:
    """What is said of a model and of an ensemble alike."""
    config = loaded.config
    band = config.decision.refer
    return {
        "model": f"{config.name} {config.version}",
        "parameters": f"{loaded.parameter_count:,}",
        "weights SHA-256": loaded.weights_sha256,
        "threshold": f"{config.decision.threshold:.3f}",
        "referral band": f"{band[0]:.3f} to {band[1]:.3f}" if band else "none",
    }


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
        "input": f"{config.preprocess.input_size} px",
        "trained field": f"{config.preprocess.field_width_um:g} micrometres wide",
        "corpus": config.provenance.corpus or "unknown",
        "split": config.provenance.split or "unknown",
        "start weights": config.provenance.start or "unknown",
    }


def main() -> None:
    """Run the command; an error of ours or the disk's is one line and exit code 2."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a decoder's remarks on a file that we refuse anyway
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any bytes
    try:
        app()
    except BCDError as error:
        _tell_error(str(error))
        raise SystemExit(2) from None
    except OSError as error:
        # Most likely stdout's disk is full: point it elsewhere, or the exit's flush fails too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _tell_error(f"{error.filename or 'standard output'}: {error.strerror or error}")
        raise SystemExit(2) from None


def _paths(arguments: list[str]) -> list[Path]:
    found: list[Path] = []
    for argument in arguments:
        # An existing file is meant literally, whatever brackets are in its name.
        there = os.path.exists(argument)
        matches = [argument] if there else sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise InputError(f"no such file, folder or pattern: {argument}")
        # A pattern may match a folder and what is in it.
        inside = dict.fromkeys(path for match in matches for path in _images_at(Path(match)))
        if not inside:
            raise InputError(f"no image in folder {argument}")
        found += inside
    return found


def _images_at(path: Path) -> list[Path]:
    return image_paths(path) if path.is_dir() else [path]


def _load(model: str) -> Predictor:
    from bcd_models.hub import folder as model_folder
    from bcd_models.models.classifier import BCDClassifier
    from bcd_models.models.ensemble import BCDEnsemble

    folder = model_folder.locate(model)
    kind = BCDEnsemble if model_folder.members_of(folder) else BCDClassifier
    return kind.from_folder(folder)


def _with_progress(answers: Iterable[Answer], total: int) -> Iterator[Answer]:
    """The same answers, with a bar on a terminal that waits for many."""
    if total < 2 or not sys.stderr.isatty() or sys.stdout.isatty():
        yield from answers
        return
    with typer.progressbar(answers, length=total, file=sys.stderr, label="predicting") as bar:
        yield from bar


def _json_writer() -> Writer:
    from json import dumps

    return lambda path, answer: typer.echo(dumps({"path": path, **answer.to_dict()}))


def _csv_writer() -> Writer:
    columns = [
        "path", "label", "probability", "decision", "threshold", "model", "model_version",
        "weights_sha256",
    ]  # fmt: skip
    _echo_csv(columns)

    def write(path: str, answer: Prediction) -> None:
        _echo_csv([path, *(answer.to_dict()[name] for name in columns[1:])])

    return write


def _echo_csv(cells: list[Any]) -> None:
    line = io.StringIO()
    csv_module.writer(line).writerow(cells)
    print(line.getvalue(), end="", flush=True)  # typer.echo would take escape codes out of names


def _table_writer() -> Writer:
    typer.echo(f"{'P(malignant)':>12}  {'decision':9}  image")

    def write(path: str, answer: Prediction) -> None:
        typer.echo(f"{answer.probability:12.4f}  {answer.decision:9}  {_in_line(path)}")

    return write


def _overlay_files(images: list[Path], folder: Path, model: str) -> dict[Path, Path]:
    """Where each image's overlay goes, checked before any work is done.

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
    _refuse_to_overwrite(images, files.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder} can't be written: {error.strerror}") from None
    return files


def _refuse_to_overwrite(images: Iterable[Path], files: Iterable[Path]) -> None:
    both = {os.path.realpath(image) for image in images} & {os.path.realpath(f) for f in files}
    if both:
        raise InputError(f"{min(both)} is an image to look at: write somewhere else")


def _write_png(image: Image, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    _write(path, buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    from bcd_models.hub.atomic import write_files

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: data})
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from None


def _tell_error(reason: str) -> None:
    typer.echo(f"error: {_in_line(reason)}", err=True)


def _in_line(text: str) -> str:
    """The text on one line; what a terminal would act upon is written as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _notice() -> None:
    from bcd_models.prediction import NOTICE

    typer.echo(NOTICE, err=True)


if __name__ == "__main__":
    main()
