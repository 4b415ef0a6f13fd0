"""What a model said of some rows, as Parquet: what figures, comparisons and teachers read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from training.corpus import splits

COLUMNS = ("name", "sha256", "case_id", "source", "magnification", "label")


def encode(
    frame: pd.DataFrame, margins: NDArray[np.float64], probability: NDArray[np.float64]
) -> bytes:
    """Return a Parquet file's bytes, one line a row.

    Args:
        frame: A corpus table, one line a row.
        margins: Logit margins (malignant minus benign).
        probability: Calibrated P(malignant).
    """
    table = frame[list(COLUMNS)].assign(margin=margins, probability=probability)
    return bytes(table.to_parquet(index=False))


def write(
    frame: pd.DataFrame,
    margins: NDArray[np.float64],
    probability: NDArray[np.float64],
    path: Path,
) -> None:
    """Write such a file, whole or not at all."""
    write_files({path: encode(frame, margins, probability)})


def read(path: Path, answers: tuple[str, ...] = ("margin", "probability")) -> pd.DataFrame:
    """Read the lines again; InputError where there is no such file or it is another one."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    missing = {*COLUMNS, *answers} - set(table.columns)
    if missing:
        raise InputError(f"{path} holds no predictions: it lacks {', '.join(sorted(missing))}")
    return table


def pool_folds(published: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Return the rows that an arm's fold runs held out, each with its ``margin`` and ``fold``.

    Args:
        published: A study's table as recorded up to release 0.2.0: a line an image, and a column of
            margins a run, ``BACKBONE/ARM/fold-K``.
        arm: As "BACKBONE/ARM"; no rows where the table holds none of it.
    """
    runs = {f"{arm}/fold-{fold}": fold for fold in range(splits.FOLDS)}
    held = [name for name in runs if name in published]
    about = [name for name in published if "/" not in name]
    rows = published.melt(about, held, "run", "margin").dropna(subset="margin")
    return rows.assign(fold=rows.pop("run").map(runs)).reset_index(drop=True)
