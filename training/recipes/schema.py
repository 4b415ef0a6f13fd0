"""A recipe: everything that decides how a model is trained, one YAML file, checked strictly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from bcd_models.config import Strict, first_error
from bcd_models.errors import InputError
from bcd_models.models.backbones import BACKBONES

SplitKind = Literal["grouped", "neighbours", "random"]
JITTER = ("brightness", "contrast", "saturation")
HIGHEST_JPEG_QUALITY = 98
MAX_STRENGTHS = {"hue": 0.5, "resampling": 0.9, "jpeg": HIGHEST_JPEG_QUALITY - 5} | dict.fromkeys(
    ("stain", "brightness", "contrast"), 0.9
)  # that a common factor may not exceed


class Phase(Strict):
    """A stretch of epochs at one input size, with a warm-up and a cosine of its own.

    Attributes:
        size: Side in pixels of the input.
        epochs: Passes over the training rows.
        learning_rate: Peak, from which the cosine falls to zero.
        learns: "all" weights, or "norms_and_head" alone.
    """

    size: int = Field(ge=32, le=1024)
    epochs: int = Field(ge=1, le=1000)
    learning_rate: float = Field(5e-4, gt=0, le=1)
    learns: Literal["all", "norms_and_head"] = "all"


class Augment(Strict):
    """Strengths of the on-device augmentation; every one may be zero.

    Attributes:
        flips: Random flips and right-angle rotations.
        brightness: Largest relative change, as are contrast and saturation.
        stain: Largest relative change of each stain's amount (haematoxylin, eosin, DAB).
        mixup: Alpha of the Beta distribution MixUp draws from; 0 is none.
    """

    flips: bool = True
    brightness: float = Field(0.0, ge=0, lt=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    saturation: float = Field(0.0, ge=0, lt=1)
    stain: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0, le=10)


class Degrade(Strict):
    """Strengths of what training patches go through at the size they are stored at.

    Most go through one or two of the ways that have a strength. What is held out is never degraded.

    Attributes:
        spared: Share of the patches that go through none.
        strength: Of all of them together: what the other numbers say is multiplied by it.
        scale: Zoomed by 1 + this at most, and by as much less: 0.25 is from 0.8 to 1.25.
        stain: Largest relative change of each stain's amount.
        hue: Largest shift, in turns of the colour circle.
        brightness: Largest relative change, as is contrast.
        gamma: As scale.
        blur: Largest sigma of a Gaussian, in pixels.
        resampling: Largest share of the sides that is lost, by kernels of several kinds.
        noise: Largest standard deviation, in grey levels.
        sharpening: Largest amount of an unsharp mask of 1 pixel.
        jpeg: Lowest quality of JPEG, the highest is 98; with and without chroma subsampling.
    """

    spared: float = Field(0.2, ge=0, le=1)
    strength: float = Field(1.0, gt=0, le=2)
    scale: float = Field(0.0, ge=0, le=1)
    stain: float = Field(0.0, ge=0, lt=1)
    hue: float = Field(0.0, ge=0, le=0.5)
    brightness: float = Field(0.0, ge=0, lt=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    gamma: float = Field(0.0, ge=0, le=1)
    blur: float = Field(0.0, ge=0, le=10)
    resampling: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.0, ge=0, le=100)
    sharpening: float = Field(0.0, ge=0, le=10)
    jpeg: int = Field(0, ge=0, le=HIGHEST_JPEG_QUALITY)

    @property
    def is_on(self) -> bool:
        """Whether anything has a strength."""
        return bool(self.list_strengths())

    def list_strengths(self) -> dict[str, float]:
        """Return what has a strength, by name; of JPEG how far the lowest quality lies below 98."""
        own = self.model_dump(exclude={"spared", "strength", "jpeg"})
        own["jpeg"] = HIGHEST_JPEG_QUALITY - self.jpeg if self.jpeg else 0
        return {
            name: min(value * self.strength, max(value, MAX_STRENGTHS.get(name, math.inf)))
            for name, value in own.items()
            if value
        }


class Range(Strict):
    """Where ``training.tune`` draws a number from.

    Attributes:
        low: Smallest value; it may be drawn.
        high: Largest value; it may be drawn.
        log: Drawn evenly on a logarithmic scale.
        step: Drawn from low, low + step, ... to high, so that low itself is drawn often.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _sound(self) -> Range:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError("a logarithmic range begins above 0 and has no step")
        if self.step and not self.holds(self.high):
            raise ValueError("high must be a whole number of steps above low")
        return self

    def holds(self, value: float) -> bool:
        """Return whether a value can be drawn."""
        steps = (value - self.low) / self.step if self.step else 0.0
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-6


def _default_space() -> dict[str, Range]:
    return {
        "phases.learning_rate": Range(low=1e-4, high=2e-3, log=True),
        "weight_decay": Range(low=1e-3, high=0.2, log=True),
        "augment.mixup": Range(low=0, high=0.4, step=0.1),
        "augment.jitter": Range(low=0, high=0.3),
    }


class Tune(Strict):
    """How ``training.tune`` looks for better numbers; training itself takes no notice of it.

    Attributes:
        size: Side in pixels of a trial's input.
        epochs: Passes of a trial over the training rows of each fold.
        folds: Folds held out in turn, the same ones in every trial.
        share: Share of the cases that trials learn from, of each source and label.
        startup_trials: Trials drawn at random before TPE and the pruner begin to judge.
        heartbeat: Seconds between a worker's signs of life; four missed ones, and its trial is
            given to another.
        space: What is tuned: a number of the recipe by its dotted path, "phases.learning_rate"
            (of the first phase; all scale with it) or "augment.jitter" (brightness, contrast and
            saturation together).
    """

    size: int = Field(64, ge=32, le=1024)
    epochs: int = Field(3, ge=1, le=1000)
    folds: tuple[int, ...] = Field((0, 1), min_length=1)
    share: float = Field(1.0, gt=0, le=1)
    startup_trials: int = Field(5, ge=1, le=1000)
    heartbeat: int = Field(30, ge=1, le=3600)
    space: dict[str, Range] = Field(default_factory=_default_space, min_length=1)

    @field_validator("folds")
    @classmethod
    def _each_once(cls, folds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(folds)) < len(folds) or not set(folds) <= set(range(5)):
            raise ValueError("name some of the folds 0 to 4, each once")
        return folds

    @field_validator("space")
    @classmethod
    def _tunable(cls, space: dict[str, Range]) -> dict[str, Range]:
        known = _tunable_fields()
        for path, drawn in space.items():
            if path not in known:
                raise ValueError(f"{path} can't be tuned: choose from {', '.join(known)}")
            _check_range(path, drawn, known[path])
        twice = {f"augment.{name}" for name in JITTER} & space.keys()
        if twice and "augment.jitter" in space:
            raise ValueError(f"augment.jitter already sets {min(twice)}: tune one of them")
        return space


class Recipe(Strict):
    """How a model is trained.

    Attributes:
        name: Name of the model folder this makes.
        version: Version of the model it makes.
        arm: What comparisons call this recipe beside others of the same backbone.
        backbone: One of the registry's names.
        start: "imagenet" (timm's own weights, from the Hub) or "none"; ``--start FILE`` wins.
        start_lacks: Patterns of the tensors that a file of start weights may lack.
        settle_batches: Batches passed before the first step, to settle batch norms.
        split: Which manifest decides what is trained on.
        balance: Where the label imbalance is met: in the sampler, in the loss, both or neither.
        case_weight: A case weighs as much as it has rows, or as the root of that.
        case_share: The largest share of an epoch's draws that one case may have.
        sources: The sources learnt from; none named: all of them.
        learnt_share: Share of the cases learnt from, of each source and label.
        phases: Low resolution first; the last one's size is the model's own input size.
        epoch_steps: Steps of an epoch, whatever the number of rows; 0: one pass over them.
        batch_size: Images a step, over all processes and accumulated micro-batches together.
        accumulate: Micro-batches a step; each process takes its share of each.
        layer_decay: Learning rates fall by this factor from block to block towards the input.
        warmup_share: Share of each phase's steps in which the learning rate rises to its peak.
        ema: Decay of the weights' moving average within a phase, which is kept; 0: none.
        average: Share of the last phase's steps, its last, over which the weights' plain mean is
            taken, which is kept with batch norms estimated anew; 0: none.
        teachers: Share of the soft targets that comes from teachers' probabilities (``--teacher``).
        views: Views of an image that the model averages over, as in a decision rule.
        refer_share: Share of validation images nearest the threshold that the model refers.
        tune: What ``training.tune`` varies, and how it compares.
    """

    name: str
    version: str
    arm: str = Field("plain", min_length=1)
    backbone: str
    start: Literal["imagenet", "none"] = "imagenet"
    start_lacks: tuple[str, ...] = ()
    settle_batches: int = Field(0, ge=0, le=10_000)
    split: SplitKind = "grouped"
    balance: Literal["sampler", "loss", "both", "none"] = "sampler"
    case_weight: Literal["rows", "root"] = "rows"
    case_share: float = Field(1.0, gt=0, le=1)
    sources: tuple[str, ...] = ()
    learnt_share: float = Field(1.0, gt=0, le=1)
    phases: tuple[Phase, ...] = Field(min_length=1)
    epoch_steps: int = Field(0, ge=0, le=1_000_000)
    batch_size: int = Field(64, ge=2, le=65_536)
    accumulate: int = Field(1, ge=1, le=1024)
    layer_decay: float = Field(1.0, gt=0, le=1)
    weight_decay: float = Field(0.02, ge=0, le=1)
    warmup_share: float = Field(0.1, ge=0, lt=1)
    drop_path: float = Field(0.0, ge=0, lt=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    ema: float = Field(0.0, ge=0, lt=1)
    average: float = Field(0.0, ge=0, le=1)
    augment: Augment = Augment()
    degrade: Degrade = Degrade()
    teachers: float = Field(0.0, ge=0, le=1)
    views: Literal[1, 4, 8] = 1
    refer_share: float = Field(0.1, ge=0, le=0.5)
    seed: int = Field(0, ge=0)
    tune: Tune = Tune()

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"no backbone {name!r}: choose one of {', '.join(BACKBONES)}")
        return name

    @model_validator(mode="after")
    def _averaged_once(self) -> Recipe:
        if self.ema and self.average:
            raise ValueError("ema and average both average the weights: set one of them")
        return self

    def as_trained(self) -> dict[str, Any]:
        """Return all that decides a training, resolved: everything but how the recipe is tuned."""
        return self.model_dump(mode="json", exclude={"tune"})

    def decides(self) -> dict[str, Any]:
        """Return what decides weights and predictions: neither how it is tuned nor refused."""
        return self.model_dump(mode="json", exclude={"tune", "start_lacks"})

    @property
    def epochs(self) -> int:
        """Epochs of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def largest(self) -> int:
        """Side in pixels of the largest input of any phase."""
        return max(phase.size for phase in self.phases)

    @property
    def input_size(self) -> int:
        """Side in pixels of the model's own input: the last phase's."""
        return self.phases[-1].size

    def phase_of(self, epoch: int) -> tuple[Phase, int]:
        """Return the phase an epoch (from 0) lies in, and the epochs of that phase before it."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase, epoch
            epoch -= phase.epochs
        raise IndexError("the recipe has fewer epochs")


def _tunable_fields() -> dict[str, FieldInfo]:
    """Return the numbers that change what is learnt, by their paths in a recipe."""
    numbers = {name: f for name, f in Recipe.model_fields.items() if f.annotation in (int, float)}
    for path in ("seed", "refer_share", "teachers", "learnt_share", "average", "epoch_steps"):
        del numbers[path]
    strengths = {
        f"{group}.{name}": field
        for group, fields in (("augment", Augment.model_fields), ("degrade", Degrade.model_fields))
        for name, field in fields.items()
        if field.annotation in (int, float)
    }
    return {
        "phases.learning_rate": Phase.model_fields["learning_rate"],
        **numbers,
        "augment.jitter": Augment.model_fields[JITTER[0]],
        **strengths,
    }


def _check_range(path: str, drawn: Range, field: FieldInfo) -> None:
    if field.annotation is int and not (drawn.step and drawn.step.is_integer()):
        raise ValueError(f"{path} takes whole numbers: its range needs a whole step")
    typed: Any = Annotated[field.annotation, *field.metadata]
    allowed: TypeAdapter[Any] = TypeAdapter(typed)
    for end in (drawn.low, drawn.high):
        try:
            allowed.validate_python(end)
        except ValidationError as error:
            raise ValueError(first_error(error, f"{path} can't be {end:g}")) from None


def read(path: Path) -> Recipe:
    """Read a recipe; InputError names the key and what is wrong with it."""
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"recipe {path} can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"recipe {path} is not YAML: {error}") from None
    return parse(document, f"recipe {path}")


def parse(document: Any, where: str) -> Recipe:
    """Return the recipe that a document states; InputError names the key and what is wrong."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise InputError(first_error(error, where)) from None
