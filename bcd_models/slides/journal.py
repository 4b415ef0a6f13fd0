"""What a run has done so far, kept beside its results, so that a killed run goes on.

One JSON object a line. The first says which slide, weights and grid it is about; each further one
holds a block's answers. A line that a kill cut short is taken off again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from bcd_models.errors import InputError

if TYPE_CHECKING:
    from bcd_models.slides.grid import Block, Grid
    from bcd_models.slides.slide_file import SlideFacts

FORMAT_VERSION = 3

Answer: TypeAlias = tuple[float, str | None]
"""A tile's margin, and the name of what makes it look unsuitable; None: nothing does."""


class Journal:
    """The finished blocks of one run.

    Args:
        file: Open for appending; None where nothing is to be kept.
        done: The answers of finished blocks, by row, column, rows and columns.
    """

    def __init__(
        self, file: IO[bytes] | None, done: dict[tuple[int, int, int, int], list[Answer]]
    ) -> None:
        self._file = file
        self.done = done

    def add(self, block: Block, answers: list[Answer]) -> None:
        """Note a finished block; InputError where the disk refuses."""
        if self._file:
            _append(self._file, {**asdict(block), "answers": answers})

    def answers_of(self, block: Block) -> list[Answer] | None:
        """Return a block's answers, where an earlier run finished it."""
        return self.done.get((block.row, block.column, block.rows, block.columns))


@contextmanager
def open_journal(path: Path | None, about: dict[str, Any]) -> Iterator[Journal]:
    """Go on with a journal, or begin it.

    Args:
        path: The file; None keeps nothing.
        about: What it must be about, ready for JSON.

    Raises:
        InputError: It is about something else, or can't be read or written.
    """
    if path is None:
        yield Journal(None, {})
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from None
    with file:
        file.seek(0)
        lines = list(_read_whole_lines(file.read()))
        if lines:
            _refuse_another(path, lines[0][0], about)
        file.truncate(lines[-1][1] if lines else 0)
        if not lines:
            _append(file, about)
        yield Journal(file, dict(map(_parse_block, (line for line, _ in lines[1:]))))


def describe_run(
    facts: SlideFacts, grid: Grid, weights_sha256: str, version: str
) -> dict[str, Any]:
    """Return what a journal is about: its answers hold for nothing else."""
    slide = asdict(facts) | {"path": str(facts.path.resolve())}
    about = {"format": FORMAT_VERSION, "release": version, "weights_sha256": weights_sha256}
    return json.loads(json.dumps({**about, "slide": slide, "grid": asdict(grid)}))  # type: ignore[no-any-return]


def _append(file: IO[bytes], document: dict[str, Any]) -> None:
    line = json.dumps(document).encode() + b"\n"
    try:
        written = file.write(line)
        if written != len(line):  # an unbuffered file may take a part, and refuse the rest
            file.write(line[written:])
    except OSError as error:
        raise InputError(f"{file.name} can't be written: {error.strerror}") from None


def _read_whole_lines(data: bytes) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each object up to the first damaged line, and where its line ends."""
    end = 0
    for line in data.splitlines(keepends=True):
        try:
            document = json.loads(line)
        except ValueError:
            return
        if not isinstance(document, dict) or not line.endswith(b"\n"):
            return
        end += len(line)
        yield document, end


def _parse_block(line: dict[str, Any]) -> tuple[tuple[int, int, int, int], list[Answer]]:
    answers = [(margin, name) for margin, name in line["answers"]]
    return (line["row"], line["column"], line["rows"], line["columns"]), answers


def _refuse_another(path: Path, kept: dict[str, Any], about: dict[str, Any]) -> None:
    if kept == about:
        return
    names = {
        "slide": "another slide, or the slide has changed",
        "weights_sha256": "another model",
        "grid": "another pixel size or field of view",
        "suitability": "another rule of what is suitable",
        "release": "another release of bcd-models",
    }
    reason = next(
        (names[key] for key in names if kept.get(key) != about.get(key)), "another format"
    )
    raise InputError(
        f"{path} is of an unfinished run with something else ({reason}): choose another folder, or "
        "delete that file to begin anew"
    )
