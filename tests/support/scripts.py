"""The app called as scripts call it: by gradio_client, patiently."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradio_client import Client

TIMEOUT = 60  # seconds; of its own, httpx gives uploads and calls 5, too few on a busy machine


def connect(url: str, **options: Any) -> Client:
    """Make a client that reads no certificates, which takes longer than a call.

    Args:
        url: Of the app.
        options: Of ``gradio_client.Client``.
    """
    quiet = {"verbose": False, "analytics_enabled": False, "ssl_verify": False}
    return Client(url, httpx_kwargs={"timeout": TIMEOUT}, **quiet, **options)


@contextmanager
def client_of(url: str, **options: Any) -> Iterator[Client]:
    """Make a client that is closed with the block."""
    client = connect(url, **options)
    try:
        yield client
    finally:
        client.close()
