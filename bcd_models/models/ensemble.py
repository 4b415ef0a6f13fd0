"""BCDEnsemble: several classifiers that answer as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from bcd_models.config import Decides, first_error, refuse_newer
from bcd_models.errors import InputError, ModelFolderError
from bcd_models.hub import folder as model_folder
from bcd_models.images.open import open_pixels
from bcd_models.models.classifier import BCDClassifier
from bcd_models.models.predictor import MapAsk, Margins, Predictor, as_list
from bcd_models.runtime.choice import Runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from bcd_models.config import CameraValidation, SuitabilityConfig
    from bcd_models.explanation import Explanation
    from bcd_models.images.field import TissueField
    from bcd_models.images.open import ImageSource, Several
    from bcd_models.prediction import Prediction

SCHEMA_VERSION = 1

MemberName = Annotated[str, Field(pattern=f"^{model_folder.MEMBER}$")]


class EnsembleConfig(Decides):
    """The ``bcd_ensemble`` object of an ensemble's ``config.json``.

    Attributes:
        name: The ensemble's name.
        version: Its version.
        members: The sub-folder of each member, a model folder in itself.
        decision: What is made of the mean of the members' calibrated log-odds: ``slope`` and
            ``intercept`` calibrate it once more, threshold and referral band are the ensemble's
            own. Views are each member's own affair.
        tile_decision: The same for tiles of slides and large fields.
    """

    schema_version: Literal[1] = 1
    name: str
    version: str
    members: tuple[MemberName, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _members_differ(self) -> Self:
        if len({name.casefold() for name in self.members}) < len(self.members):
            raise ValueError("two members have one name")
        if self.decision.views != 1 or self.for_tiles.views != 1:
            raise ValueError("decision.views must be 1: each member's config has its own")
        return self


class BCDEnsemble(Predictor):
    """Several classifiers whose mean calibrated log-odds is the answer.

    Each member's margin is first calibrated by its own decision rule, so that all speak on one
    scale, and the log-odds are averaged: a logarithmic opinion pool. The mean of probabilities
    would draw every answer towards one half and be less sure than its calibrated members have
    reason to be (Ranjan & Gneiting, JRSS B 2010); a mean of log-odds, calibrated once more, does
    not (Satopaa et al., International Journal of Forecasting 2014).

    Research use only: an aid to, and no replacement for, a pathologist.

    Args:
        config: Names the members, in their order, and holds the ensemble's decision rule.
        members: The classifiers.

    Raises:
        InputError: Not as many members as the config names.
    """

    config: EnsembleConfig
    members: list[BCDClassifier]

    def __init__(self, config: EnsembleConfig, members: Sequence[BCDClassifier]) -> None:
        if len(members) != len(config.members):
            raise InputError(
                f"{len(members)} members, the config names {len(config.members)}: "
                f"{', '.join(config.members)}"
            )
        self.config = config
        self.members = list(members)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Load an ensemble's folder; ModelFolderError where it or a member can't be used."""
        config = read_config(folder)
        model = cls(config, [BCDClassifier.from_folder(folder / name) for name in config.members])
        model_folder.check_calibrated(folder, config, model.weights_sha256)
        return model

    @property
    def weights_sha256(self) -> str:
        """SHA-256 over the members' own in their order, each in hex and a line of its own."""
        return _hash_together(member.weights_sha256 for member in self.members)

    def __call__(self, pixels: Sequence[Tensor]) -> Tensor:
        """Return logits N x 2, whose difference is the mean calibrated log-odds of malignant.

        Args:
            pixels: What ``preprocess`` gives: each member's input, in their order.
        """
        import torch

        log_odds = []
        for member, own in zip(self.members, pixels, strict=True):
            logits, decision = member(own), member.config.decision
            log_odds.append(decision.slope * (logits[:, 1] - logits[:, 0]) + decision.intercept)
        half = torch.stack(log_odds).mean(0) / 2
        return torch.stack([-half, half], dim=1)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the members' networks, as ``torch.nn.Module.to`` does; returns self."""
        for member in self.members:
            member.to(*args, **kwargs)
        return self

    def preprocess(self, images: ImageSource | Several) -> list[Tensor]:
        """Return each member's input, N x 3 x S x S float32, for one image or several."""
        pixels = [open_pixels(image) for image in as_list(images)]
        return [member.preprocess(pixels) for member in self.members]

    @property
    def parameter_count(self) -> int:
        """How many numbers of all members are learnt."""
        return sum(member.parameter_count for member in self.members)

    def files(self) -> dict[str, bytes]:
        """``config.json``, and a model folder for each member."""
        config = self.config.drop_other_weights(self.weights_sha256)
        ours = {model_folder.ENSEMBLE: config.model_dump(mode="json")}
        files = {
            f"{name}/{path}": data
            for name, member in zip(self.config.members, self.members, strict=True)
            for path, data in member.files().items()
        }
        return {**files, model_folder.CONFIG: (json.dumps(ours, indent=2) + "\n").encode()}

    @property
    def runtime(self) -> Runtime:
        """What computes the members' logits, as in ``BCDClassifier``; set for all of them."""
        return self.members[0].runtime

    @runtime.setter
    def runtime(self, wanted: str) -> None:
        for member in self.members:
            member.runtime = wanted

    def prepare(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Return the square that each member takes of an image's pixels."""
        return tuple(member.prepare(pixels) for member in self.members)

    def compute_margins(
        self, inputs: Sequence[tuple[NDArray[np.uint8], ...]], as_tiles: bool = False
    ) -> Margins:
        """Return the mean of the members' calibrated log-odds of malignant, one an image."""
        log_odds, given = [], []
        for member, own in zip(self.members, zip(*inputs, strict=True), strict=True):
            said, config = member.compute_margins(own, as_tiles), member.config
            decision = config.for_tiles if as_tiles else config.decision
            log_odds.append(decision.slope * np.array(said.values) + decision.intercept)
            given.append(said)
        return Margins(
            np.mean(log_odds, axis=0).tolist(),
            ", ".join(dict.fromkeys(said.runtime for said in given)),
        )

    @property
    def tile_views(self) -> int:
        """How many views a tile of a slide or large field gets, of the members the most."""
        return max(member.tile_views for member in self.members)

    @property
    def field_um(self) -> float:
        """Side in micrometres of the field that the members' training patches show.

        Raises:
            InputError: The members' fields differ.
        """
        return self._shared("fields", "micrometres", {member.field_um for member in self.members})

    @property
    def mpp(self) -> float:
        """Micrometres a pixel of the members' training patches; InputError where they differ."""
        return self._shared("scales", "mpp", {member.mpp for member in self.members})

    @property
    def white_point(self) -> bool:
        """Whether the colour of glass is divided out; InputError where the members differ."""
        values = {float(member.white_point) for member in self.members}
        return bool(self._shared("white points", "0: no, 1: yes", values))

    @property
    def suitability(self) -> SuitabilityConfig | None:
        """The first member's that has one: members see the same tiles."""
        return next((m.suitability for m in self.members if m.suitability), None)

    @property
    def cameras(self) -> CameraValidation | None:
        """Of a member for which it is not enough, if there is one; None: of none."""
        known = (member.cameras for member in self.members)
        return next((one for one in known if one and not one.is_enough), None)

    def _shared(self, what: str, unit: str, values: set[float]) -> float:
        if len(values) != 1:
            differing = ", ".join(f"{value:g}" for value in sorted(values))
            raise InputError(
                f"{self.config.name}: the members' {what} differ ({differing} {unit}): "
                "predict with each member alone"
            )
        return values.pop()

    def margins_of(self, tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the mean log-odds of N x H x W x 3 RGB tiles of one size, shape (N,)."""
        return np.array(self.compute_margins([self.prepare(tile) for tile in tiles], True).values)

    def explain_opened(
        self, image: Image, field: TissueField, prediction: Prediction, ask: MapAsk
    ) -> Explanation:
        """Return the mean of the members' heat maps, each beyond that member's own threshold.

        At an operating point it is the member's own threshold there, where it has such a point.
        """
        from bcd_models.explanation import Explanation

        own, of_members = replace(prediction, point=""), []
        for member in self.members:
            rule = member.config.for_tiles if field.shown.size > 1 else member.config.decision
            of_member = prediction if prediction.point in rule.points else own
            of_members.append(member.explain_opened(image, field, of_member, ask))
        maps = [one.heatmap for one in of_members]
        mean: NDArray[np.float32] = np.mean(maps, axis=0, dtype=np.float32)
        used = ", ".join(dict.fromkeys(one.method for one in of_members))
        return Explanation(image, ask.label, mean, prediction, field.seen, method=used)


def _hash_together(sha256s: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{one}\n" for one in sha256s).encode()).hexdigest()


def read_config(folder: Path) -> EnsembleConfig:
    """Read and check an ensemble's ``config.json``; ModelFolderError where it can't be used."""
    where = folder / model_folder.CONFIG
    document = model_folder.read_document(folder)
    ours = document.get(model_folder.ENSEMBLE) if isinstance(document, dict) else None
    if not isinstance(ours, dict):
        raise ModelFolderError(
            f"{where} has no {model_folder.ENSEMBLE!r} object: load a single model with "
            "BCDClassifier"
        )
    refuse_newer(ours, SCHEMA_VERSION, str(where))
    if surplus := sorted(document.keys() - {model_folder.ENSEMBLE}):
        raise ModelFolderError(f"{where}: unknown key {surplus[0]!r}")
    try:
        return EnsembleConfig.model_validate(ours)
    except ValidationError as error:
        raise ModelFolderError(first_error(error, str(where), model_folder.ENSEMBLE)) from None
