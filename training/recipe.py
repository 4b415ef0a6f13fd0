"""A recipe: everything that decides how a model is trained, one YAML file, checked strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bcd_models.backbones import BACKBONES
from bcd_models.config import PreprocessConfig
from bcd_models.errors import InputError

INPUT_SIZE = PreprocessConfig.model_fields["input_size"].default


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Phase(_Strict):
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


class Augment(_Strict):
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


class Recipe(_Strict):
    """How a model is trained.

    Attributes:
        name: Name of the model folder this makes.
        version: Version of the model it makes.
        backbone: One of the registry's names.
        start: "imagenet" (timm's own weights, from the Hub) or "none"; ``--start FILE`` wins.
        settle_batches: Batches passed before the first step, to settle batch norms.
        split: Which manifest decides what is trained on.
        balance: Where the label imbalance is met: in the sampler, in the loss, both or neither.
        case_share: The largest share of an epoch's draws that one case may have.
        phases: Low resolution first, the model's own input size last.
        batch_size: Images a step, over all processes and accumulated micro-batches together.
        accumulate: Micro-batches a step; each process takes its share of each.
        layer_decay: Learning rates fall by this factor from block to block towards the input.
        warmup_share: Share of each phase's steps in which the learning rate rises to its peak.
        ema: Decay of the weights' moving average within a phase, which is kept; 0: none.
        teachers: Share of the soft targets that comes from teachers' probabilities (``--teacher``).
        refer_share: Share of validation images nearest the threshold that the model refers.
    """

    name: str
    version: str
    backbone: str
    start: Literal["imagenet", "none"] = "imagenet"
    settle_batches: int = Field(0, ge=0, le=10_000)
    split: Literal["grouped", "random", "leaky"] = "grouped"
    balance: Literal["sampler", "loss", "both", "none"] = "sampler"
    case_share: float = Field(1.0, gt=0, le=1)
    phases: tuple[Phase, ...] = Field(min_length=1)
    batch_size: int = Field(64, ge=2, le=65_536)
    accumulate: int = Field(1, ge=1, le=1024)
    layer_decay: float = Field(1.0, gt=0, le=1)
    weight_decay: float = Field(0.02, ge=0, le=1)
    warmup_share: float = Field(0.1, ge=0, lt=1)
    drop_path: float = Field(0.0, ge=0, lt=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    ema: float = Field(0.0, ge=0, lt=1)
    augment: Augment = Augment()
    teachers: float = Field(0.0, ge=0, le=1)
    refer_share: float = Field(0.1, ge=0, le=0.5)
    seed: int = Field(0, ge=0)

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"no backbone {name!r}: choose one of {', '.join(BACKBONES)}")
        return name

    @property
    def epochs(self) -> int:
        """Epochs of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def largest(self) -> int:
        """Side in pixels of the largest input, training's and the model's own."""
        return max(INPUT_SIZE, *(phase.size for phase in self.phases))

    def phase_of(self, epoch: int) -> tuple[Phase, int]:
        """The phase an epoch (from 0) lies in, and the epochs of that phase before it."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase, epoch
            epoch -= phase.epochs
        raise IndexError("the recipe has fewer epochs")


def read(path: Path) -> Recipe:
    """Read a recipe; InputError names the key and what is wrong with it."""
    try:
        document: Any = yaml.safe_load(path.read_text("utf-8"))
        return Recipe.model_validate(document)
    except OSError as error:
        raise InputError(f"recipe {path} can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"recipe {path} is not YAML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"recipe {path}: {key}: {first['msg']}") from None
