"""Builds and launches the app: `python space/app.py`, or as it stands on the Hub."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_models.errors import BCDError
from clinic.settings import Settings

if TYPE_CHECKING:
    from clinic.http.gate import Gate


def main(arguments: list[str] | None = None) -> None:
    """Serve the app until interrupted."""
    options = _parse_options(arguments)
    _refuse_taken_port(options.host, options.port)
    folder = _make_temporary_folder(options.port)
    # Gradio reads these while it is imported and while pages are built.
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Or Gradio sums up its events after each one, dearer with every event, for a page nobody sees.
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app = build(Settings.from_environment(), folder)
        serve(app, options.host, options.port)
    except BCDError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(settings: Settings, folder: Path) -> Gate:
    """Open the installation and put the app together; Gradio keeps its files in ``folder`` alone.

    BCDError where a model, the data folder or the database can't be used.
    """
    from clinic.accounts import accounts
    from clinic.analysis.models import Models
    from clinic.installation import open_installation
    from clinic.upkeep import demo
    from clinic.web import build_app

    models = Models(settings.models, settings.device)
    clinic = open_installation(settings)
    password = accounts.create_first_admin(clinic)
    if password:
        print(f"Made the account admin with the password {password}, shown this once", flush=True)
    print(f"Computing on {models.device}", flush=True)
    app = build_app(clinic, models, folder)
    if settings.demo:
        demo.start(clinic, models)
    return app


def serve(app: Gate, host: str, port: int) -> None:
    """Serve until interrupted, after printing the address."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(f"Open http://{host}:{port}/", flush=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.end()
            await super().shutdown(sockets)

    # What a proxy says is looked at by the app itself, which knows whom to believe.
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    Server(config).run()


def _parse_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve the breast histology patch check.")
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    parser.add_argument("--port", type=int, default=port, help=f"default {port}")
    parser.add_argument("--host", default=host, help=f"address to listen on, default {host}")
    return parser.parse_args(arguments)


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            sys.exit(f"error: {host}:{port} can't be used ({error.strerror}): take another --port")


def _make_temporary_folder(port: int) -> Path:
    """Make a folder nobody else may read, empty even where the last run was killed."""
    folder = Path(tempfile.gettempdir()) / f"bcd-space-{port}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        sys.exit(f"error: {folder} can't be made ({error.strerror}): set TMPDIR to another folder")
    return folder


if __name__ == "__main__":
    main()
