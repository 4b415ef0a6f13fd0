"""Files that come from a user, and files made for one."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio.data_classes import FileData

from bcd_models.errors import ImageError
from bcd_models.explanation import Explanation
from bcd_models.models.classifier import BCDClassifier
from clinic.reports.layout import lay_out_answers

T = TypeVar("T")

FILE_GONE = "the file is no longer on the server: hand it in again"


def add_upload(**options: Any) -> gr.File:
    """Add a file input whose listeners get the bytes; the file leaves the server's disk with them.

    So it can be the input of one event alone; what later events need is kept in a ``gr.State``.
    (Not a class of its own: Gradio writes a stub beside the source of each one.)
    """
    made = gr.File(**options)
    made.preprocess = _take_files  # type: ignore[method-assign]
    return made


def _take_files(payload: Any) -> Any:
    """Return the bytes of a file, or of each one of several; None where there is none."""
    if payload is None:
        return None
    files = getattr(payload, "root", payload)
    return (
        _take_file(files) if isinstance(files, FileData) else [_take_file(file) for file in files]
    )


def _take_file(file: FileData) -> bytes:
    path = Path(file.path)
    try:
        data = path.read_bytes()
    except OSError:
        raise gr.Error(FILE_GONE, print_exception=False) from None
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()
    return data


def require_file(handed_in: T | None) -> T:
    """Return what a user handed in, of one file or of several; ImageError where it is nothing."""
    if not handed_in:
        raise ImageError("no image yet: choose a file first")
    return handed_in


def write_report(
    images: Sequence[bytes],
    explanations: Sequence[Explanation],
    model: BCDClassifier,
    when: datetime,
) -> str:
    """Write a report; its file name tells the images' bytes and nothing about a person."""
    sha256 = hashlib.sha256(b"".join(images)).hexdigest()
    return write_file(
        lay_out_answers(explanations, model.config, when), f"bcd-report-{sha256[:8]}.pdf"
    )


def write_file(data: bytes, name: str) -> str:
    """Write a file that Gradio may serve, for ``delete_old_files`` to find; returns its path."""
    path = Path(tempfile.mkdtemp(dir=find_own_folder())) / name
    path.write_bytes(data)
    return str(path)


def find_own_folder() -> Path:
    """Return where the app's own files may lie for the moment: nobody else's, and looked after."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())


def delete_old_files(folder: Path, age: float) -> None:
    """Delete what lies in Gradio's folder for longer than ``age`` seconds.

    The folder is created again where the system has removed it, as it does in /tmp.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    before = time.time() - age
    for path in folder.iterdir():
        with suppress(OSError):  # a listener may delete it meanwhile
            if path.stat().st_mtime < before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
