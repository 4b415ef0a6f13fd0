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
    import gradio as gr

TITLE = "Breast histology patch check"
MAX_UPLOAD = "64mb"
SWEEP, AGE = 300, 1800  # seconds: how often files are looked at, how long they are kept
MAX_WAITING = 64


def main(arguments: list[str] | None = None) -> None:
    """Serve the app until interrupted."""
    options = _options(arguments)
    _refuse_taken_port(options.host, options.port)
    folder = _own_temporary_folder(options.port)
    # Gradio reads these while it is imported and while pages are built.
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app = build(Settings.from_environment())
        launch(app, options.host, options.port)
    except BCDError as error:
        sys.exit(f"error: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(settings: Settings) -> gr.Blocks:
    """Put the page and the endpoints together.

    Raises:
        ModelFolderError: A model can't be used.
    """
    import gradio as gr

    from clinic.models import Models
    from clinic.ui.endpoints import add_endpoints
    from clinic.ui.try_page import add_try_page

    models = Models(settings.models)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(SWEEP, AGE)) as app:
        add_try_page(models)
        add_endpoints(models)
    return app.queue(max_size=MAX_WAITING)


def launch(app: gr.Blocks, host: str, port: int) -> None:
    """Serve until interrupted, after printing the address."""
    from clinic.ui import look
    from clinic.ui.try_page import EXAMPLES

    _, url, _ = app.launch(
        quiet=True,
        prevent_thread_lock=True,
        server_name=host,
        server_port=port,
        theme=look.theme(),
        css_paths=look.STYLE,
        allowed_paths=[str(EXAMPLES)],
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
    )
    print(f"Open {url}", flush=True)
    app.block_thread()


def _options(arguments: list[str] | None) -> argparse.Namespace:
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


def _own_temporary_folder(port: int) -> Path:
    """A folder nobody else may read, empty even where the last run was killed."""
    folder = Path(tempfile.gettempdir()) / f"bcd-space-{port}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


if __name__ == "__main__":
    main()
