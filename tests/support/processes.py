"""Programs that a test starts: however it ends, they end with it, and so do their children."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PATIENCE = 20  # seconds to end by itself, once asked to


@contextmanager
def running(
    command: Sequence[str | Path], ask: signal.Signals = signal.SIGTERM, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Start a program in a session of its own, and end it with the block.

    Args:
        command: The program and its arguments.
        ask: Sent where it still runs at the block's end; SIGKILL follows where it stays.
        options: Of ``subprocess.Popen``.
    """
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(ask)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
