"""The ``bcd`` command, one file a verb."""

from bcd_models.cli.command import main

__all__ = ["main"]
