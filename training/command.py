"""How the commands of this package start: one line for an error of ours, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from bcd_models.errors import BCDError


def run(main: Callable[..., Any], arguments: list[str] | None = None) -> None:
    """Run a typer function as a command; errors of ours end it with exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app(arguments)
    except BCDError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
