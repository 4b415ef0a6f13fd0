"""A user's own labelled images: whether a split of them, and a model on them, can be trusted."""

from bcd_models.local.check_split import (
    Floor,
    Measured,
    SplitCheck,
    check_split,
    measure_images,
    read_split,
)

__all__ = ["Floor", "Measured", "SplitCheck", "check_split", "measure_images", "read_split"]
