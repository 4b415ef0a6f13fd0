"""Everything that travels with a model's weights, checked strictly on the way in.

A model folder's ``config.json`` is timm's own plus one object, ``bcd``. What timm needs too (mean,
std, input size) is written into timm's part from here, and checked to agree when read.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from bcd_models.errors import InputError, ModelFolderError

SCHEMA_VERSION: Literal[2] = 2
Label = Literal["benign", "malignant"]
LABELS: tuple[Label, ...] = get_args(Label)

RGB = tuple[float, float, float]
MIN_CAMERA_AUROC = 0.80  # lower end, over patients, for answers about microscope cameras' fields
# A list of numbers over several lines, which the config has in one.
ROW = re.compile(r"\[\n([-+.e\d,\s]+)\]")


class Strict(BaseModel):
    """A document checked strictly: unknown keys and numbers that are none are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def first_error(error: ValidationError, where: str = "", root: str = "") -> str:
    """Return the first thing that is wrong with a document, in one line: where, and what.

    Args:
        error: Of pydantic.
        where: What the document is called, such as its file.
        root: The key that the checked part stands under.
    """
    first = error.errors()[0]
    place = ".".join(filter(None, (root, *map(str, first["loc"]))))
    return ": ".join(filter(None, (where, place, first["msg"])))


def refuse_newer(document: dict[str, Any], newest: int, where: str) -> None:
    """ModelFolderError where a document's schema is newer than this release reads."""
    version = document.get("schema_version")
    if isinstance(version, int) and version > newest:
        raise ModelFolderError(
            f"{where} has schema version {version}, this release of bcd-models reads up to "
            f"{newest}: upgrade with pip install -U bcd-models"
        )


class PreprocessConfig(Strict):
    """How an RGB image becomes the network's input.

    Attributes:
        input_size: Side in pixels that a tile is resized to; tiles are square.
        mean: Per channel, on the scale where white is 1.
        std: Per channel, on the same scale.
        field_width_um: Width in micrometres of the tissue a training patch shows.
        mpp: Micrometres a pixel of the training patches, before they were resized.
        white_point: Whether the colour of a slide's or large field's glass is divided out.
    """

    input_size: int = Field(224, ge=32, le=1024)
    interpolation: Literal["bicubic"] = "bicubic"
    antialias: Literal[True] = True
    resize: Literal["squash"] = "squash"
    mean: RGB
    std: RGB
    field_width_um: float = Field(200.0, gt=0)
    mpp: float = Field(4.0, ge=0.05, le=20)
    white_point: bool = False


class Estimate(Strict):
    """A figure, and the ends of its 95% interval."""

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"the interval's low end {self.low} is above its high end {self.high}")
        return self


class OperatingPoint(Strict):
    """A named threshold, and what it was measured to do on cases that were not learnt from.

    Attributes:
        threshold: The label is "malignant" at or above this calibrated probability.
        refer: Calibrated probabilities from the first to the second value are referred.
        sensitivity: Share of the malignant patches that are labelled so; None: not measured.
        specificity: Share of the others that are not.
        positive_predictive_value: Share of those labelled malignant that are, at ``prevalence``.
        negative_predictive_value: Share of the others that are not, at ``prevalence``.
        prevalence: Share of malignant patches among those measured on.
    """

    threshold: float = Field(gt=0, lt=1)
    refer: tuple[float, float] | None = None
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None
    positive_predictive_value: Estimate | None = None
    negative_predictive_value: Estimate | None = None
    prevalence: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _read_0_2_0(cls, document: Any) -> Any:
        """Read a threshold alone, which a point was until release 0.2.0."""
        return {"threshold": document} if isinstance(document, float) else document

    @property
    def missed_of_100(self) -> int | None:
        """How many of 100 malignant patches are labelled benign; None: not measured."""
        return None if self.sensitivity is None else round(100 * (1 - self.sensitivity.value))

    def predictive_values(self, prevalence: float) -> tuple[float, float] | None:
        """Return the positive and the negative predictive value at another prevalence.

        Args:
            prevalence: Share of malignant patches, between 0 and 1.

        Returns:
            Shares from 0 to 1; None: not measured. A point that labels nothing so has 0 for it.
        """
        if self.sensitivity is None or self.specificity is None:
            return None
        sensitivity, specificity = self.sensitivity.value, self.specificity.value
        found, missed = prevalence * sensitivity, prevalence * (1 - sensitivity)
        spared, alarmed = (1 - prevalence) * specificity, (1 - prevalence) * (1 - specificity)
        return found / ((found + alarmed) or 1), spared / ((spared + missed) or 1)


class DecisionConfig(Strict):
    """From a logit margin to a probability, a label and a referral: three separate things.

    Attributes:
        slope: Calibration: probability = sigmoid(slope * margin + intercept).
        intercept: See ``slope``.
        threshold: The label is "malignant" at or above this calibrated probability.
        refer: Calibrated probabilities from the first to the second value are referred.
        views: How many views of an image have their margins averaged, each for one pass: the
            image itself, its four turns, or these and their reflections.
        points: Operating points, by name.
        context: Standard deviation, in tiles, of the Gaussian by which the margins of a slide's or
            large field's tiles are averaged with their neighbours' before; 0: they are not.
    """

    slope: float = Field(1.0, gt=0)
    intercept: float = 0.0
    threshold: float = Field(0.5, gt=0, lt=1)
    refer: tuple[float, float] | None = None
    views: Literal[1, 4, 8] = 1
    points: dict[str, OperatingPoint] = {}
    context: float = Field(0.0, ge=0, le=5)

    @property
    def own_point(self) -> str:
        """The operating point that the rule is at by default; "": none of its points."""
        at = (name for name, one in self.points.items() if one.threshold == self.threshold)
        return next(at, "")

    def at(self, point: str | None) -> Self:
        """Return the rule at one of its operating points; None: as it is by default.

        Raises:
            InputError: No such point; the message lists those there are.
        """
        if point is None:
            return self
        if point not in self.points:
            known = f"choose one of {', '.join(self.points)}" if self.points else "it has none"
            raise InputError(f"no operating point {point!r} of this model: {known}")
        chosen = self.points[point]
        return self.model_copy(update={"threshold": chosen.threshold, "refer": chosen.refer})

    @model_validator(mode="after")
    def _band_holds_threshold(self) -> Self:
        rules: tuple[DecisionConfig | OperatingPoint, ...] = (self, *self.points.values())
        for one in rules:
            if one.refer and not 0 <= one.refer[0] <= one.threshold <= one.refer[1] <= 1:
                raise ValueError(
                    f"referral band {one.refer} does not hold threshold {one.threshold}"
                )
        return self


class LocalCalibration(Strict):
    """What a model was calibrated on by ``bcd calibrate``, and which model that was.

    Attributes:
        date: Of the calibration, as in 2026-11-30.
        fingerprint: SHA-256 of the images' files, labels, cases and scales.
        images: How many there were.
        cases: Of how many cases.
        malignant: How many of the images are malignant.
        larger_fields: Whether they show more than one field of the model's, and the rule of tiles
            was calibrated; else that of single images.
        promise: How much of a further case's images its referral bands promise to be decided
            wrongly at most, on average; None: nothing.
        parent: Name of the model.
        parent_version: Its version.
        parent_weights_sha256: SHA-256 of its weights, which stay as they are.
    """

    date: str
    fingerprint: str
    images: int
    cases: int
    malignant: int
    larger_fields: bool
    promise: float | None = None
    parent: str
    parent_version: str
    parent_weights_sha256: str

    @property
    def words(self) -> str:
        """When and on what, for people."""
        kind = "larger fields" if self.larger_fields else "single fields"
        kept = f"referral promises {self.promise:.0%}" if self.promise else "no promise of referral"
        return (
            f"{kind}, {self.date}, on {self.images:,} images ({self.malignant:,} malignant) of "
            f"{self.cases:,} cases, data {self.fingerprint[:8]}; {kept}"
        )


class Decides(Strict):
    """What a config says of the way from margins to answers.

    Attributes:
        decision: How a margin becomes an answer about an image of one tile.
        tile_decision: How it becomes one about a tile of a slide or large field, for which there
            are fewer views; None: as ``decision`` says.
        calibrated: On what the rules in force were calibrated locally, that of single images and
            that of tiles each at most once; left out of files where there is nothing.
    """

    decision: DecisionConfig = DecisionConfig()
    tile_decision: DecisionConfig | None = None
    calibrated: tuple[LocalCalibration, ...] = ()

    @model_serializer(mode="wrap")
    def _leave_out_nothing(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        if not document["calibrated"]:
            del document["calibrated"]
        return document

    def drop_other_weights(self, weights_sha256: str) -> Self:
        """Return it without the calibrations of other weights, such as those before a training."""
        kept = [one for one in self.calibrated if one.parent_weights_sha256 == weights_sha256]
        return self.model_copy(update={"calibrated": tuple(kept)})

    @property
    def for_tiles(self) -> DecisionConfig:
        """The decision rule of a slide's or large field's tiles."""
        return self.tile_decision or self.decision


class HeldOut(Strict):
    """What a training held out of the rows outside the test part; by default the validation part.

    Attributes:
        fold: One of the folds.
        case: One case, and nothing else.
        nothing: Everything outside the test part was learnt from.
    """

    fold: int | None = None
    case: str | None = None
    nothing: bool = False

    @property
    def words(self) -> str:
        """Such as "fold 2"; "" for the validation part."""
        if self.fold is not None:
            return f"fold {self.fold}"
        if self.case:
            return f"without {self.case}"
        return "train and validation" if self.nothing else ""


class Provenance(Strict):
    """Where the weights come from; empty where a field does not apply.

    Attributes:
        images: Of the corpus, by source.
        corpus_fingerprint: SHA-256 of the corpus' rows.
        split: Kind of the manifest: "grouped", "neighbours" or "random".
        split_sha256: Of the manifest.
        held_out: What of the split was not learnt from.
        recipe: All that decided the training.
        seed: Of the training.
        start: "imagenet", "none", or the name of the file of start weights.
        start_sha256: Of that file.
        inputs: SHA-256 of other runs' answers learnt from, and predictions calibrated on.
        git_commit: Of the code; ends in "-dirty" where that had been changed since.
        versions: Of Python and libraries.
    """

    images: dict[str, int] = {}
    corpus_fingerprint: str = ""
    split: str = ""
    split_sha256: str = ""
    held_out: HeldOut = HeldOut()
    recipe: dict[str, Any] = {}
    seed: int = 0
    start: str = ""
    start_sha256: str = ""
    inputs: dict[str, str] = {}
    git_commit: str = ""
    versions: dict[str, str] = {}

    @property
    def corpus(self) -> str:
        """The corpus in words: images by source."""
        return ", ".join(f"{name}: {count}" for name, count in self.images.items())

    @property
    def split_words(self) -> str:
        """The split and what was held out of it, in words."""
        return ", ".join(filter(None, (self.split, self.held_out.words)))

    @model_validator(mode="before")
    @classmethod
    def _read_schema_1(cls, document: Any) -> Any:
        """Take apart what schema 1 said in prose: the corpus, and what was held out."""
        if not isinstance(document, dict):
            return document
        known = dict(document)
        if isinstance(corpus := known.pop("corpus", None), str):
            pairs = [one.split(": ") for one in corpus.split(", ") if one]
            known["images"] = {name: int(count) for name, count in pairs}
        kind, _, words = str(known.get("split", "")).partition(", ")
        if words:
            which, _, held = words.partition(" ")
            known["split"] = kind
            known["held_out"] = {
                "fold": {"fold": held},
                "without": {"case": held},
                "train": {"nothing": True},
            }.get(which, words)
        return known


class Graph(Strict):
    """An ONNX graph beside the weights: it answers only for the weights that it names.

    Attributes:
        sha256: Of the graph's file.
        weights_sha256: Of the weights' file that it points into.
    """

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")


class SuitabilityConfig(Strict):
    """The small network that tells H&E-stained tissue from other tiles, by 30 numbers of each.

    Attributes:
        mean: Of each number, over the tissue that it learnt from.
        deviation: Standard deviation of each.
        hidden: Weights of the hidden units, a row a number; the last row holds their biases.
        output: Weights of tissue, another stain, a picture and a pen, a row a unit; biases last.
        threshold: A tile is refused above these log-odds against tissue.
        corpus_fingerprint: Of the corpus that it learnt from.
    """

    mean: tuple[float, ...] = Field(min_length=30, max_length=30)
    deviation: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=30, max_length=30)
    hidden: tuple[tuple[float, ...], ...] = Field(min_length=31, max_length=31)
    output: tuple[tuple[float, float, float, float], ...] = Field(min_length=2)
    threshold: float
    corpus_fingerprint: str = ""

    @model_validator(mode="after")
    def _layers_fit(self) -> Self:
        if {len(row) for row in self.hidden} != {len(self.output) - 1}:
            raise ValueError("the rows of hidden and output don't fit together")
        return self


class CameraValidation(Strict):
    """How a model ranks fields of microscope cameras, of patients that it has not learnt from.

    Attributes:
        source: Of the images.
        images: How many of them, or of their tiles, there were.
        cases: Of how many patients.
        auroc: With its 95% interval over patients; None: not measured.
    """

    source: str = ""
    images: int = Field(0, ge=0)
    cases: int = Field(0, ge=0)
    auroc: Estimate | None = None

    @property
    def is_enough(self) -> bool:
        """Whether answers about such fields are to be relied on as any other."""
        return self.auroc is not None and self.auroc.low >= MIN_CAMERA_AUROC


class ModelConfig(Decides):
    """The ``bcd`` object of a model folder's ``config.json``; schema 1 is read as 2.

    Attributes:
        schema_version: Of this object.
        name: The model's name.
        version: Its version.
        backbone: Its entry of the registry of backbones.
        preprocess: How an image becomes its input.
        provenance: Where the weights come from.
        graphs: Graphs in the folder, by file name.
        suitability: What tells tissue from what the model knows nothing of; None: no tile is
            refused.
        cameras: How it does on microscope cameras' fields, which are referred unless that is
            enough; None: the folder doesn't say, and none is referred for it.
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    name: str
    version: str
    backbone: str
    preprocess: PreprocessConfig
    provenance: Provenance = Provenance()
    graphs: dict[str, Graph] = {}
    suitability: SuitabilityConfig | None = None
    cameras: CameraValidation | None = None

    @field_validator("schema_version")
    @classmethod
    def _written_as_newest(cls, _version: int) -> int:
        return SCHEMA_VERSION

    def to_json(self, architecture: str, pretrained: dict[str, Any]) -> str:
        """Return the whole ``config.json``.

        Args:
            architecture: What timm calls the network.
            pretrained: What timm has to know of it besides the preprocessing, such as the names of
                its first and last layer.
        """
        document = {
            "architecture": architecture,
            "num_classes": len(LABELS),
            "label_names": list(LABELS),
            "pretrained_cfg": pretrained | self._timm_preprocessing(),
            "bcd": self.model_dump(mode="json"),
        }
        text = json.dumps(document, indent=2)
        return ROW.sub(lambda row: f"[{' '.join(row[1].split())}]", text) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Read ``config.json``.

        Args:
            text: The file's text.
            where: What to call the file in errors.

        Raises:
            ModelFolderError: Not JSON, no ``bcd`` object, a newer schema, an unknown key, or a
                timm part that contradicts ours.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ModelFolderError(
                f"{where} is not JSON ({error}): download or save it again"
            ) from None
        ours = document.get("bcd") if isinstance(document, dict) else None
        if not isinstance(ours, dict):
            raise ModelFolderError(
                f"{where} has no 'bcd' object: not a model folder of bcd-models; "
                "write one with save_pretrained"
            )
        refuse_newer(ours, SCHEMA_VERSION, where)
        try:
            config = cls.model_validate(ours)
        except ValidationError as error:
            raise ModelFolderError(first_error(error, where, "bcd")) from None
        stated = document.get("pretrained_cfg")
        timm_part = stated if isinstance(stated, dict) else {}
        shared = {
            "num_classes": (document.get("num_classes"), len(LABELS)),
            "label_names": (document.get("label_names"), list(LABELS)),
        }
        for key, expected in config._timm_preprocessing().items():
            shared[f"pretrained_cfg.{key}"] = timm_part.get(key), expected
        for key, (found, expected) in shared.items():
            if found != expected:
                raise ModelFolderError(f"{where}: {key!r} contradicts the 'bcd' object beside it")
        return config

    def _timm_preprocessing(self) -> dict[str, Any]:
        """Return what timm is told of the preprocessing."""
        size = self.preprocess.input_size
        return {
            "input_size": [3, size, size],
            "interpolation": self.preprocess.interpolation,
            "crop_pct": 1.0,
            "crop_mode": self.preprocess.resize,
            "mean": list(self.preprocess.mean),
            "std": list(self.preprocess.std),
            "num_classes": len(LABELS),
        }
