"""The schema of ``metrics.json``, checked strictly when it is written and when it is read.

python -m training.evaluate.schema --schema docs/metrics.schema.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import typer
from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    RootModel,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails

from bcd_models.config import Estimate, Strict, first_error
from bcd_models.decision import PROBABILITY_BINS
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.local.metrics import METRICS
from training import command
from training.recipes.schema import SplitKind

SCHEMA_VERSION = 1
NOT_ESTIMABLE: Literal["not estimable"] = "not estimable"


# Images in each bin.
Histogram = Annotated[list[int], Field(min_length=PROBABILITY_BINS, max_length=PROBABILITY_BINS)]


class Counts(Strict):
    """Images, their cases, and images of each label."""

    images: int = Field(ge=0)
    cases: int = Field(ge=0)
    benign: int = Field(ge=0)
    malignant: int = Field(ge=0)


class Figures(RootModel[dict[str, Estimate]]):
    """The figures of one set of images, each row of ``METRICS`` one.

    "recall" and what follows from it are of malignant.
    """

    model_config = ConfigDict(frozen=True)

    def __getitem__(self, name: str) -> Estimate:
        return self.root[name]

    def __contains__(self, name: str) -> bool:
        return name in self.root

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        asked = [name for name, metric in METRICS.items() if not metric.optional]
        wrong = [("missing", name) for name in asked if name not in self.root]
        wrong += [("extra_forbidden", name) for name in self.root if name not in METRICS]
        if wrong:
            lines = [InitErrorDetails(type=k, loc=(n,), input=self.root) for k, n in wrong]
            raise ValidationError.from_exception_data("Figures", lines)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        schema |= {
            "additionalProperties": False,
            "properties": dict.fromkeys(METRICS, schema["additionalProperties"]),
            "required": [name for name, metric in METRICS.items() if not metric.optional],
        }
        return reference


class Calibration(Strict):
    """Slope and intercept of truth on log-odds, and the ECE that perfect calibration would show."""

    slope: float
    intercept: float
    ece_if_perfectly_calibrated: float


class Referral(Strict):
    """Share of images in the referral band; accuracy of the rest, none where nothing is left."""

    referred_share: float = Field(ge=0, le=1)
    accuracy_of_the_rest: float | None


class MacroOverCases(Strict):
    """Mean AUROC within the cases that hold both labels; none below ten of them."""

    cases: int = Field(ge=0)
    auroc: float | None


class Subgroup(Strict):
    """One source or magnification."""

    counts: Counts
    figures: Figures | Literal["not estimable"]


class Floor(Strict):
    """A floor's AUROC, and the model's minus it over the same resamples."""

    auroc: Estimate
    model_minus_floor: Estimate


class Floors(Strict):
    """What a network has to earn its keep above."""

    source_alone: Floor
    colour_statistics: Floor


class Within(Strict):
    """The headline: the same measurements within the larger source alone."""

    source: str
    counts: Counts
    figures: Figures
    calibration: Calibration
    referral: Referral
    macro_over_cases: MacroOverCases
    floors: Floors


class Model(Strict):
    """Which weights were measured, and by which threshold and referral band; none: not recorded."""

    name: str
    version: str
    weights_sha256: str
    threshold: float
    refer: tuple[float, float] | None = None


class Data(Strict):
    """What was measured on, and what was learnt from."""

    corpus_fingerprint: str
    split: SplitKind
    split_sha256: str
    part: Literal["train", "validation", "test"]
    counts: Counts
    train_counts: Counts
    only_trained_on: dict[str, Counts]


class Training(Strict):
    """What the weights cost.

    Attributes:
        epochs: Of all phases.
        seconds: Of all epochs, scoring after each one included.
        hardware: What they ran on, in words; "" where it was not recorded.
    """

    epochs: int
    seconds: float
    hardware: str


class Neighbours(Strict):
    """Folds by case beside folds that keep neighbouring case ids together, on the same images.

    Attributes:
        backbone: What people call it.
        arm: Of the recipes.
        counts: Images of the larger source that both scored.
        by_case: AUROC with folds by case.
        by_run: AUROC with neighbouring case ids in one fold.
        difference: The second minus the first, paired.
    """

    backbone: str
    arm: str
    counts: Counts
    by_case: Estimate
    by_run: Estimate
    difference: Estimate


class Group(Strict):
    """A quarter of the images, from dark to bright or from little tissue to much.

    Attributes:
        by: "brightness", the mean of all channels, or "tissue", the share of its pixels.
        low: Of the quarter.
        high: Of the quarter.
        counts: How many.
        recall: At the prevalence of all quarters as threshold.
        specificity: At the same.
    """

    by: Literal["brightness", "tissue"]
    low: float
    high: float
    counts: Counts
    recall: Estimate
    specificity: Estimate


class OtherSource(Strict):
    """Another source than the larger one: the mean log-odds of tiles, images and cases.

    Attributes:
        source: Which.
        learnt: Whether its other cases were learnt from; else this is zero-shot.
        counts: Tiles.
        auroc: By "tile", "image" and "case".
        called: By subtype, the number of images, and the share called malignant at the prevalence
            of the larger source as threshold.
    """

    source: str
    learnt: bool
    counts: Counts
    auroc: dict[str, Estimate]
    called: dict[str, tuple[int, float]]


class Metrics(Strict):
    """A ``metrics.json``.

    ``within`` and ``probabilities`` are missing in files written before they were measured,
    ``training`` where the cost is not known: evaluation sees a model, its release its run,
    ``neighbours`` where no comparison measured it, of this backbone or another, and ``groups`` and
    ``others``, which are out of fold, where no comparison of its folds did.
    """

    schema_version: Literal[1]
    model: Model
    data: Data
    intervals: str
    overall: Figures
    calibration: Calibration
    referral: Referral
    macro_over_cases: MacroOverCases
    per_source: dict[str, Subgroup]
    per_magnification: dict[str, Subgroup]
    floors: Floors
    probabilities: Histogram | None = None
    within: Within | None = None
    training: Training | None = None
    neighbours: Neighbours | None = None
    groups: tuple[Group, ...] = ()
    others: tuple[OtherSource, ...] = ()
    notice: str


def read(path: Path) -> Metrics:
    """Read a ``metrics.json``; InputError names the key and what is wrong with it."""
    try:
        text = path.read_text("utf-8")
        version = json.loads(text).get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise InputError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}")
        return Metrics.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise InputError(first_error(error, str(path))) from None
    except InputError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no metrics file ({error}): run training.evaluate") from None


def main(
    schema: Annotated[Path, typer.Option(help="JSON schema to write.")],
) -> None:
    """Write the JSON schema of metrics.json."""
    write_files({schema: f"{json.dumps(Metrics.model_json_schema(), indent=1)}\n".encode()})
    typer.echo(f"schema: {schema}")


if __name__ == "__main__":
    command.run(main)
