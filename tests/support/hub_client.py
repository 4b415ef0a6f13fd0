"""A long-lived client process of the loopback Hub, which runs one piece of code after another.

huggingface_hub reads its settings when it is imported and torch takes seconds to import: a process
that many tests share is both right and quick.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.hub import NO_WAITS, ROOT
from tests.support.processes import running

LOOP = (
    NO_WAITS
    + """
import json, sys
answers, sys.stdout = sys.stdout, sys.stderr
names = {}
for line in sys.stdin:
    names.pop("value", None)
    try:
        exec(json.loads(line), names)
        answer = {"value": names.get("value")}
    except BaseException as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=answers, flush=True)
"""
)


class ClientError(Exception):
    """The code raised; the text is the exception's type and message."""


class Client:
    """A process that runs code, whose names stay known to the code that follows.

    Args:
        process: Of ``LOOP``, with pipes.
        log: Where its standard error goes.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self.log = log

    def run(self, code: str) -> Any:
        """Run code; returns what it left in ``value``. Waits between retries take no time."""
        self.start(code)
        return self.finish()

    def fails(self, code: str) -> str:
        """Run code that must raise; returns the exception's type and message."""
        try:
            self.run(code)
        except ClientError as error:
            return str(error)
        raise AssertionError(f"nothing was raised by: {code}")

    def start(self, code: str) -> None:
        """Have code run, and don't wait for it."""
        assert self._process.stdin
        print(json.dumps(code), file=self._process.stdin, flush=True)

    def finish(self) -> Any:
        """What the code that was started left in ``value``.

        Raises:
            ClientError: The code raised.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"the client ended: {self.log.read_text()}"
        answer = json.loads(line)
        if "error" in answer:
            raise ClientError(answer["error"])
        return answer["value"]


@contextmanager
def running_client(env: Mapping[str, str], log: Path) -> Iterator[Client]:
    """Start a client in an environment from ``Hub.environment``; it ends with the block."""
    with (
        log.open("w") as stderr,
        running(
            [sys.executable, "-c", LOOP],
            env=dict(env),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        yield Client(process, log)
