"""The command itself: its verbs, and what an error becomes."""

from __future__ import annotations

import io
import os
import sys
import warnings

import typer

from bcd_models.cli.calibrate import calibrate
from bcd_models.cli.check_split import check_split
from bcd_models.cli.doctor import doctor
from bcd_models.cli.explain import explain
from bcd_models.cli.export import export
from bcd_models.cli.info import info
from bcd_models.cli.output import print_error
from bcd_models.cli.predict import predict
from bcd_models.cli.slide import slide
from bcd_models.cli.validate import validate
from bcd_models.errors import BCDError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benign or malignant? Breast-histopathology patches, for research use only.",
)
for verb in (
    predict,
    explain,
    slide,
    export,
    info,
    doctor,
    check_split,
    validate,
    calibrate,
):
    app.command()(verb)


def main() -> None:
    """Run the command; an error of ours or the disk's is one line and exit code 2."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a decoder's remarks on a file that we refuse anyway
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any bytes
    try:
        app()
    except BCDError as error:
        print_error(str(error))
        raise SystemExit(2) from None
    except OSError as error:
        # Most likely stdout's disk is full: point it elsewhere, or the exit's flush fails too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print_error(f"{error.filename or 'standard output'}: {error.strerror or error}")
        raise SystemExit(2) from None
