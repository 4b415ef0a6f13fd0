"""What a model said of some rows, as Parquet: what figures, comparisons and teachers read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bcd_models.errors import InputError

COLUMNS = ("name", "sha256", "case_id", "source", "magnification", "label")


def write(
    frame: pd.DataFrame,
    margins: NDArray[np.float64],
    probability: NDArray[np.float64],
    path: Path,
) -> None:
    """Write one line a row, whole or not at all.

    Args:
        frame: A corpus table, one line a row.
        margins: Logit margins (malignant minus benign).
        probability: Calibrated P(malignant).
        path: Parquet file.
    """
    table = frame[list(COLUMNS)].assign(margin=margins, probability=probability)
    beside = path.with_name(f".{path.name}.new")
    try:
        table.to_parquet(beside, index=False)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error}") from None


def read(path: Path) -> pd.DataFrame:
    """The lines again; InputError where there is no such file or it is another one."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    missing = {*COLUMNS, "margin", "probability"} - set(table.columns)
    if missing:
        raise InputError(f"{path} holds no predictions: it lacks {', '.join(sorted(missing))}")
    return table
