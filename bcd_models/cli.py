"""The ``bcd`` command: predict, explain, info."""

from __future__ import annotations

import csv as csv_module
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd_models.errors import BCDError, ImageError, InputError
from bcd_models.images import image_paths

if TYPE_CHECKING:
    from PIL.Image import Image

    from bcd_models.classifier import BCDClassifier
    from bcd_models.images import ImageSource
    from bcd_models.prediction import Prediction

    Writer = Callable[[str, Prediction], None]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benign or malignant? Breast-histopathology patches, for research use only.",
)

Images = Annotated[list[str], typer.Argument(help="Image files, folders of them, or patterns.")]
Model = Annotated[str, typer.Option(help="Model folder, or Hub id (owner/name).")]


@app.command()
def predict(
    images: Images,
    model: Model,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
    overlay: Annotated[
        Path | None, typer.Option(help="Also write a heat-map overlay of each image here.")
    ] = None,
) -> None:
    """Label images; exit code 1 where some could not be used, 2 where none could."""
    if json and csv:
        raise InputError("choose one of --json and --csv")
    paths = _paths(images)
    classifier = _load(model)
    write = (_json_writer if json else _csv_writer if csv else _table_writer)()
    failed = 0
    for path, answer in _with_progress(classifier.stream(paths), len(paths)):
        if isinstance(answer, ImageError):
            failed += 1
            typer.echo(f"error: {answer}", err=True)
            continue
        write(str(path), answer)
        if overlay:
            _save_overlay(classifier, Path(str(path)), overlay)
    if failed:
        typer.echo(f"{failed} of {len(paths)} images could not be used", err=True)
        raise typer.Exit(2 if failed == len(paths) else 1)
    if not json and not csv:
        _notice()


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
    if label not in (None, "benign", "malignant"):
        raise InputError(f"no label {label!r}: choose benign or malignant")
    explanation = _load(model).explain(image, label)  # type: ignore[arg-type]
    _write_png(explanation.overlay(opacity), out)
    _table_writer()(str(image), explanation.prediction)
    typer.echo(f"regions that speak for {explanation.label}: {out}")


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Model folder, or Hub id (owner/name).")],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a model is, where it comes from and how it decides."""
    loaded = _load(model)
    config = loaded.config
    if json:
        from json import dumps

        document = config.model_dump(mode="json") | {"weights_sha256": loaded.weights_sha256}
        typer.echo(dumps(document, indent=2))
        return
    band = config.decision.refer
    lines = {
        "model": f"{config.name} {config.version}",
        "backbone": loaded.backbone.title,
        "parameters": f"{sum(p.numel() for p in loaded.parameters()):,}",
        "weights SHA-256": loaded.weights_sha256,
        "threshold": f"{config.decision.threshold:.3f}",
        "referral band": f"{band[0]:.3f} to {band[1]:.3f}" if band else "none",
        "input": f"{config.preprocess.input_size} px",
        "trained field": f"{config.preprocess.field_width_um:g} micrometres wide",
        "corpus": config.provenance.corpus or "unknown",
        "split": config.provenance.split or "unknown",
        "start weights": config.provenance.start or "unknown",
    }
    for name, value in lines.items():
        typer.echo(f"{name:16} {value}")
    _notice()


def main() -> None:
    """Run the command; an error of ours is one line and exit code 2, never a traceback."""
    try:
        app()
    except BCDError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    except BrokenPipeError:
        # The reader has gone (as with `| head`): point stdout elsewhere so that exit is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _paths(arguments: list[str]) -> list[Path]:
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            inside = image_paths(path)
            if not inside:
                raise InputError(f"no image in folder {path}")
            found += inside
        elif path.exists():
            found.append(path)
        elif matches := sorted(glob.glob(argument, recursive=True)):
            found += (Path(match) for match in matches)
        else:
            raise InputError(f"no such file, folder or pattern: {argument}")
    return found


def _load(model: str) -> BCDClassifier:
    from bcd_models.classifier import BCDClassifier

    return BCDClassifier.from_pretrained(model)


def _with_progress(
    answers: Iterable[tuple[ImageSource, Prediction | ImageError]], total: int
) -> Iterator[tuple[ImageSource, Prediction | ImageError]]:
    """The same answers, with a bar on a terminal that waits for many."""
    if total < 2 or not sys.stderr.isatty() or sys.stdout.isatty():
        yield from answers
        return
    with typer.progressbar(answers, length=total, file=sys.stderr, label="predicting") as bar:
        yield from bar


def _json_writer() -> Writer:
    return lambda _, answer: typer.echo(answer.to_json())


def _csv_writer() -> Writer:
    columns = [
        "path", "label", "probability", "decision", "threshold", "model", "model_version",
        "weights_sha256",
    ]  # fmt: skip
    lines = csv_module.writer(sys.stdout)
    lines.writerow(columns)

    def write(path: str, answer: Prediction) -> None:
        lines.writerow([path, *(answer.to_dict()[name] for name in columns[1:])])

    return write


def _table_writer() -> Writer:
    typer.echo(f"{'P(malignant)':>12}  {'decision':9}  image")

    def write(path: str, answer: Prediction) -> None:
        typer.echo(f"{answer.probability:12.4f}  {answer.decision:9}  {path}")

    return write


def _save_overlay(classifier: BCDClassifier, path: Path, folder: Path) -> None:
    target = folder / f"{path.stem}-{classifier.config.name}.png"
    _write_png(classifier.explain(path).overlay(), target)


def _write_png(image: Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, format="PNG")
    except OSError as error:
        raise InputError(f"{path} can't be written: {error}") from None


def _notice() -> None:
    from bcd_models.prediction import NOTICE

    typer.echo(NOTICE, err=True)


if __name__ == "__main__":
    main()
