"""Steps of a study: commands of this package, done in turn or side by side."""

from __future__ import annotations

import hashlib
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
from bcd_models.hub.atomic import write_files
from training import command


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: What it does, in words.
        module: Below ``training``, as in ``python -m training.MODULE``.
        arguments: Of the command.
        result: What is there once it is done.
        before: A step whose result it reads and no other step does.
        files: Files and folders that it reads and writes. Where there are any, ``result`` is a
            record of what they held when it was done; it is done again where they hold anything
            else.
    """

    name: str
    module: str
    arguments: list[str]
    result: Path
    before: Step | None = None
    files: tuple[Path, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether it may be passed over."""
        if not self.files or not self.result.exists():
            return self.result.exists()
        return self.result.read_text("utf-8") == self._describe_files()

    def record(self) -> None:
        """Record what its files hold, once it is done."""
        if self.files:
            self.result.parent.mkdir(parents=True, exist_ok=True)
            write_files({self.result: self._describe_files().encode()})

    def _describe_files(self) -> str:
        """Return its arguments, and the SHA-256 of each of its files."""
        found = [file for path in self.files for file in (path, *sorted(path.rglob("*")))]
        hashed = (
            f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file}"
            for file in found
            if file.is_file()
        )
        return "\n".join([" ".join(self.arguments), *hashed, ""])


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
        if failed:
            return
        if _do_step(step, launch, workers):
            failed.append(step)
        else:
            step.record()

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
