"""``python -m clinic verify | backup | restore | export-reads``: what the administrator needs.

Works on the installation that the environment names (``BCD_DATA_FOLDER``, ``BCD_DATABASE_URL``).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bcd_models.errors import BCDError
from clinic.dashboard import own_reads
from clinic.installation import Installation, open_installation
from clinic.settings import Settings
from clinic.upkeep import backup as backups
from clinic.upkeep import verify as checks

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def verify(
    repair: Annotated[
        bool, typer.Option(help="Delete what belongs to nothing, count tallies again.")
    ] = False,
) -> None:
    """Check rows against stored files, and the audit log; exit code 1 where something is wrong."""
    found = checks.verify(_open_installation(), repair)
    for problem in found.problems:
        typer.echo(problem)
    if found.problems and not (repair and not found.broken):
        raise typer.Exit(1)
    typer.echo("mended" if found.problems else f"sound: {found.files} stored files")


@app.command()
def backup(target: Annotated[Path, typer.Argument(help="Zip file to write.")]) -> None:
    """Copy database and files while the app runs."""
    clinic = _open_installation()
    count = backups.backup(clinic, target)
    typer.echo(f"{target}: {count} stored files")
    if not clinic.database.sqlite_file:
        typer.echo("without the rows: back up the PostgreSQL database itself with pg_dump")


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="Zip file that backup wrote.")],
    force: Annotated[bool, typer.Option(help="Move the present data folder aside.")] = False,
) -> None:
    """Bring a backup back while the app is stopped, and check it."""
    settings = Settings.from_environment()
    aside = backups.restore(source, settings, force)
    if aside:
        typer.echo(f"the former data folder is now {aside}")
    typer.echo(f"restored into {settings.data}")
    verify()


@app.command(name="export-reads")
def export_own_reads(
    folder: Annotated[Path, typer.Argument(help="New folder for a list and its images.")],
) -> None:
    """Write what was read before answers were shown, as a list for bcd validate and calibrate."""
    count = own_reads.export_reads(_open_installation(), folder)
    typer.echo(f"{folder / own_reads.LIST}: {count} images. Next, for a model folder MODEL:")
    typer.echo(f"bcd validate {folder / own_reads.LIST} --model MODEL")
    typer.echo(f"bcd calibrate {folder / own_reads.LIST} --model MODEL --out NEW-MODEL")


def _open_installation() -> Installation:
    return open_installation(Settings.from_environment())


if __name__ == "__main__":
    try:
        app(prog_name="python -m clinic")
    except BCDError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
