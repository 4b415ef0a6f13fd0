"""``decisions.json``: what a model's operating points and referral bands rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from bcd_models.config import OperatingPoint, Strict, first_error
from bcd_models.errors import InputError
from bcd_models.prediction import NOTICE
from training.evaluate.decide import referral
from training.evaluate.reliability import Reliability
from training.evaluate.schema import Counts

DECISIONS, TILE_DECISIONS = "decisions.json", "decisions-tiles.json"
CURVE = "risk-coverage.png"


class Promise(Strict):
    """What a referral band promises over cases, and what came of it on folds it was not chosen on.

    Attributes:
        alpha: The largest expected share of a case's patches that are decided wrongly.
        refer: The band, chosen on all folds.
        realised: What came of it.
        by_images: What came of MAPIE's band of the same alpha; None: too few images.
    """

    alpha: float
    refer: tuple[float, float]
    realised: referral.Realised
    by_images: referral.Realised | None


class PointFigures(Strict):
    """An operating point, the promises that hold at it, and its risk-coverage curve."""

    point: OperatingPoint
    promises: tuple[Promise, ...]
    curve: tuple[referral.Coverage, ...]


class Decisions(Strict):
    """A ``decisions.json``.

    Attributes:
        weights_sha256: Of the model.
        arm: Whose fold models gave the margins.
        source: What they were measured on.
        counts: How much of it there is.
        calibration: How far their probabilities can be believed.
        points: By name.
        notice: For research use only.
    """

    schema_version: Literal[1] = 1
    weights_sha256: str
    arm: str
    source: str
    counts: Counts
    calibration: Reliability
    points: dict[str, PointFigures]
    notice: str = NOTICE

    def find_promise(self, refer: tuple[float, float] | None) -> Promise | None:
        """Return what a band promises at the point by default; None: nothing."""
        promises = next(iter(self.points.values())).promises
        return next((one for one in promises if one.refer == refer), None)


def read(folder: Path, weights_sha256: str, name: str = DECISIONS) -> Decisions | None:
    """Read a model folder's ``decisions.json``, or that of its tiles; None where it has none.

    Raises:
        InputError: It can't be read, or is of other weights.
    """
    path = folder / name
    if not path.is_file():
        return None
    try:
        decisions = Decisions.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(first_error(error, str(path))) from None
    if decisions.weights_sha256 != weights_sha256:
        raise InputError(f"{path} is of other weights: run python -m training.evaluate.decide")
    return decisions
