"""A PostgreSQL server of a test's own, on loopback, gone with all its data afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.support.processes import running

USER, DATABASE = "bcd", "postgres"
ACCOUNTS = ("postgres", "nobody")  # PostgreSQL refuses to run as root
PATIENCE = 60  # seconds for a start on a busy machine


def program(name: str) -> str | None:
    """Path of one of PostgreSQL's programs; Debian keeps them out of PATH."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_version, reverse=True)
    return next((str(path) for path in newest), None) or shutil.which(name)


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server on an empty database; yields ``postgresql://USER@127.0.0.1:PORT/NAME``.

    Whoever reaches the port gets in, so it is for tests alone. It writes nothing safely, to be
    quick.
    """
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="bcd-postgres-"))
    try:
        if account:
            os.chown(folder, account["user"], account["group"])
        _initialise(folder / "data", account)
        with _serving(folder, account) as url:
            yield url
    finally:
        shutil.rmtree(folder)


@contextmanager
def _serving(folder: Path, account: dict[str, Any]) -> Iterator[str]:
    port = _free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": "40",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [str(program("postgres")), "-D", str(folder / "data"), "-p", str(port), *options]
    fast = signal.SIGINT  # SIGTERM would wait for open connections
    with (
        (folder / "log").open("w") as log,
        running(command, fast, stdout=log, stderr=log, cwd=folder, **account) as server,
    ):
        url = f"postgresql://{USER}@127.0.0.1:{port}/{DATABASE}"
        _wait(server, url, folder / "log")
        yield url


def _initialise(data: Path, account: dict[str, Any]) -> None:
    command = [str(program("initdb")), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8"]
    made = subprocess.run(
        [*command, "--no-sync"],
        cwd=data.parent,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        **account,
    )
    if made.returncode:
        raise RuntimeError(f"initdb failed: {made.stderr}")


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


def _account() -> dict[str, Any]:
    """Whom to run as, in subprocess' words: somebody else where we are root."""
    if os.getuid():
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next(known[name] for name in ACCOUNTS if name in known)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _version(path: Path) -> int:
    number = path.parts[-3]
    return int(number) if number.isdigit() else 0
