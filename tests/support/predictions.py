"""Predictions made by hand, of a few images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from training.corpus import predictions
from training.run_folder import PREDICTIONS


def write_predictions(folder: Path, labels: str, margins: list[float], source: str = "idc") -> Path:
    """Write a run's folder that predicted an image a label, m or b; those of one name are alike."""
    malignant = [label == "m" for label in labels]
    frame = pd.DataFrame(
        {
            "name": [f"{i}.png" for i in range(len(labels))],
            "sha256": [f"{folder.name}/{source}/{i}" for i in range(len(labels))],
            "case_id": f"{source}/1",
            "source": source,
            "magnification": "",
            "label": ["malignant" if one else "benign" for one in malignant],
        }
    )
    folder.mkdir(parents=True)
    told = np.array(margins)
    predictions.write(frame, told, told, folder / PREDICTIONS)
    return folder
