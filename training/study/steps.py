"""Steps of a study: commands of this package, done in turn or side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import typer

from bcd_models.errors import BCDError
from training import command


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: What it does, in words.
        module: Below ``training``, as in ``python -m training.MODULE``.
        arguments: Of the command.
        result: What is there once it is done; None: it is done every time.
        before: A step whose result it reads and no other step does.
    """

    name: str
    module: str
    arguments: list[str]
    result: Path | None
    before: Step | None = None

    @property
    def is_done(self) -> bool:
        """Whether it may be passed over."""
        return self.result is not None and self.result.exists()


def do_steps(stage: list[Step], launch: list[str], workers: int) -> None:
    """Do those steps of a stage that aren't done.

    Args:
        stage: Steps that wait for none of each other.
        launch: What starts a training, up to the module's name; empty: this process trains.
        workers: Steps at a time, each a process of its own; of one, this process does them.

    Raises:
        BCDError: A step failed; those under way were finished, and no other was begun.
    """
    failed: list[Step] = []

    def attempt(step: Step) -> None:
        if step.before and not step.before.is_done:
            attempt(step.before)
        if not failed and _do_step(step, launch, workers):
            failed.append(step)

    undone = [step for step in stage if not step.is_done]
    if workers == 1:
        for step in undone:
            attempt(step)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(attempt, undone))
    if failed:
        raise BCDError(f"step {failed[0].name!r} failed: mend what it says above, then go on")


def _do_step(step: Step, launch: list[str], workers: int) -> int:
    """Do one step; returns its exit code."""
    typer.echo(f"== {step.name}")
    module = f"training.{step.module}"
    if workers > 1:
        threads = max(1, (os.cpu_count() or 1) // workers)
        shared = os.environ | {"OMP_NUM_THREADS": str(threads)}
        asked = [sys.executable, "-m", module, *step.arguments]
        return subprocess.run(asked, env=shared, check=False).returncode
    if launch and step.module == "train":
        return subprocess.run([*launch, module, *step.arguments], check=False).returncode
    try:
        command.run(_find_main(module), step.arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _find_main(name: str) -> Callable[..., None]:
    """Return what ``python -m NAME`` calls, of a module or of a package."""
    module = import_module(name)
    if hasattr(module, "__path__"):
        module = import_module(f"{name}.__main__")
    main: Callable[..., None] = module.main
    return main
