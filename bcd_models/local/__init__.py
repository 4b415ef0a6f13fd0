"""A user's own labelled images: whether a split of them, and a model on them, can be trusted.

``measure`` and ``calibrate`` take arrays, ``validate`` and ``recalibrate`` a model and images.
"""

from bcd_models.images.image_list import read_labelled
from bcd_models.local.figures import Figures, measure
from bcd_models.local.recalibration import (
    Calibration,
    calibrate,
    recalibrate,
    refuse_existing,
    write_folder,
)
from bcd_models.local.splits import (
    Floor,
    Measured,
    SplitCheck,
    check_split,
    measure_images,
    read_split,
)
from bcd_models.local.validation import Validation, validate

__all__ = [
    "Calibration",
    "Figures",
    "Floor",
    "Measured",
    "SplitCheck",
    "Validation",
    "calibrate",
    "check_split",
    "measure",
    "measure_images",
    "read_labelled",
    "read_split",
    "recalibrate",
    "refuse_existing",
    "validate",
    "write_folder",
]
