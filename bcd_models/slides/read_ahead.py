"""Reads a slide in threads, each with a file handle of its own, a little ahead of the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from bcd_models.runtime.ahead import ahead
from bcd_models.slides.slide_file import SlideFacts, SlideReader

MAX_READS_AHEAD = 4  # reads under way or waiting: they bound memory, whatever the slide's size

Job = TypeVar("Job")
Result = TypeVar("Result")


def read_ahead(
    facts: SlideFacts, jobs: Iterable[Job], read: Callable[[SlideReader, Job], Result]
) -> Iterator[Result]:
    """Yield what ``read`` makes of each job, in their order; it is called in threads."""
    own = threading.local()
    readers: list[SlideReader] = []

    def work(job: Job) -> Result:
        if not hasattr(own, "reader"):
            own.reader = SlideReader(facts)
            readers.append(own.reader)
        return read(own.reader, job)

    try:
        yield from ahead(work, jobs, MAX_READS_AHEAD)
    finally:
        for reader in readers:
            reader.close()
