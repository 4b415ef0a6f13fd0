"""Files that come from a user, and files made for one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from datetime import datetime
from pathlib import Path

from bcd_models.classifier import BCDClassifier
from bcd_models.errors import ImageError
from bcd_models.explain import Explanation
from clinic.report import report


def handed_in(path: str | None) -> str:
    """The path of a user's file; ImageError where there is none, or none any more."""
    if not path:
        raise ImageError("no image yet: choose a file first")
    if not Path(path).is_file():
        raise ImageError("the image is no longer on the server: hand it in again")
    return path


def made_report(image: str, explanation: Explanation, model: BCDClassifier, when: datetime) -> str:
    """Write an image's report; its file name tells the image's bytes and nothing about a person."""
    sha256 = hashlib.sha256(Path(image).read_bytes()).hexdigest()
    return made(report(explanation, model.config, when), f"bcd-report-{sha256[:8]}.pdf")


def made(data: bytes, name: str) -> str:
    """Write a file where Gradio may serve it from and deletes it in time; returns its path."""
    folder = tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR"))
    path = Path(folder) / name
    path.write_bytes(data)
    return str(path)
