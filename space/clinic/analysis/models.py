"""The models the app offers: known at start, loaded on first use, kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from bcd_models.config import ModelConfig
from bcd_models.errors import BCDError, InputError, ModelFolderError
from bcd_models.hub.folder import (
    METRICS,
    WEIGHTS,
    locate,
    read_config,
    read_graphs,
    read_weights,
    refuse_infinite,
)
from bcd_models.models.backbones import get_backbone
from bcd_models.models.classifier import BCDClassifier
from bcd_models.runtime.device import choose_device

log = logging.getLogger(__name__)


class ModelGone(BCDError):
    """A model's folder is gone, damaged or another's since the start."""


@dataclass(frozen=True)
class OfferedModel:
    """What is known of a model before it is loaded."""

    folder: Path  # where its files are
    config: ModelConfig  # what travels with its weights
    weights_sha256: str  # SHA-256 of its weights file
    hint: str = ""  # how well it did on its test part, or "" where its folder does not say
    figures: str = ""  # the same with intervals, and on what data; "" too
    reference: tuple[int, ...] = ()  # images of the test part in each bin of probability; empty too

    @property
    def title(self) -> str:
        """What people call it."""
        return get_backbone(self.config.backbone).title

    def to_dict(self) -> dict[str, Any]:
        """Return what ``/models`` answers about it."""
        return {
            "name": self.config.name,
            "title": self.title,
            "version": self.config.version,
            "weights_sha256": self.weights_sha256,
            "threshold": self.config.decision.threshold,
            "points": list(self.config.decision.points),
        }


class Models:
    """Models of some folders or Hub ids, by name; the first is the default. Safe for threads.

    ``device`` is what they compute on. ModelFolderError where one can't be used, or two have one
    name; InputError where there is no such device here.
    """

    def __init__(self, sources: Sequence[str], device: str = "auto") -> None:
        self.device = choose_device(device)
        self._wanted = device
        self._offered: dict[str, OfferedModel] = {}
        self._loaded: dict[str, BCDClassifier] = {}
        self._loading = Lock()
        for source in sources:
            offered = _read_model(locate(source))
            name = offered.config.name
            if name in self._offered:
                both = f"{self._offered[name].folder} and {offered.folder}"
                raise ModelFolderError(f"{both} both hold a model named {name}: offer one of them")
            self._offered[name] = offered

    @property
    def names(self) -> list[str]:
        """The names on offer, the default first."""
        return list(self._offered)

    @property
    def choices(self) -> list[tuple[str, str]]:
        """What people choose from: each model's title with how well it did, and its name."""
        return [
            (f"{one.title}, {one.hint}" if one.hint else one.title, name)
            for name, one in self._offered.items()
        ]

    @property
    def point_choices(self) -> list[tuple[str, str]]:
        """What people choose from: operating points in words, and their names.

        The first, "", is each model's own; it is called by its name where all models agree on it.
        """
        rules = [one.config.decision for one in self._offered.values()]
        own = {rule.own_point for rule in rules}
        name = own.pop() if len(own) == 1 else ""
        others = dict.fromkeys(point for rule in rules for point in rule.points if point != name)
        return [(name or "each model's own", ""), *((point, point) for point in others)]

    def check_point(self, name: str) -> str:
        """Return which choice an operating point is; InputError where no model has it."""
        rules = (one.config.decision for one in self._offered.values())
        known = dict.fromkeys(point for rule in rules for point in rule.points)
        if name and name not in known:
            some = ", ".join(known) or "there is none"
            raise InputError(f"no model has an operating point {name!r}: choose one of {some}")
        return name if (name, name) in self.point_choices else ""

    def describe(self, name: str) -> OfferedModel:
        """Return what is known of a model; InputError where there is none of that name."""
        if not isinstance(name, str) or name not in self._offered:
            raise InputError(f"no model {name!r}: choose one of {', '.join(self._offered)}")
        return self._offered[name]

    def find(self, name: str, weights_sha256: str) -> OfferedModel | None:
        """Return the model on offer by that name, if it has these very weights."""
        offered = self._offered.get(name)
        return offered if offered and offered.weights_sha256 == weights_sha256 else None

    def load(self, name: str) -> BCDClassifier:
        """Return the model itself, read from its folder by whoever asks first.

        Raises:
            InputError: There is none of that name.
            ModelGone: The folder no longer holds what it held at the start.
        """
        offered = self.describe(name)
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = _load(offered, self._wanted)
            return self._loaded[name]


def _load(offered: OfferedModel, device: str) -> BCDClassifier:
    """Load a model as it was at the start; its user needn't know where it lay."""
    name = offered.config.name
    try:
        model = BCDClassifier.from_pretrained(offered.folder, device=device)
    except ModelFolderError as error:
        log.error("model %s: %s", name, error)
        raise ModelGone(f"the model {name} can't be loaded: contact the administrator") from None
    if model.weights_sha256 != offered.weights_sha256 or model.config != offered.config:
        log.error("model %s: %s was changed since the start", name, offered.folder)
        raise ModelGone(f"the model {name} was changed: ask the administrator to restart the app")
    return model


def _read_model(folder: Path) -> OfferedModel:
    folder = folder.absolute()  # or, once it is gone, its name could be taken for a Hub id
    config = read_config(folder)
    get_backbone(config.backbone)
    weights, sha256 = read_weights(folder)
    read_graphs(folder, config, sha256)
    refuse_infinite(weights, str(folder / WEIGHTS))  # or a damaged file would be told by a visitor
    return OfferedModel(folder, config, sha256, **_read_metrics(folder / METRICS, sha256))


def _read_metrics(path: Path, sha256: str) -> dict[str, Any]:
    """Return what is known of the test part, if it was measured with these very weights."""
    if not path.is_file():
        return {}
    try:
        metrics = json.loads(path.read_text("utf-8"))
        measured, overall = metrics["model"]["weights_sha256"], metrics["overall"]
        auroc, data = _interval(overall["auroc"], ".2f"), metrics["data"]
        found = {
            "hint": f"AUROC {auroc} on {data['counts']['cases']} held-out cases",
            "figures": _figures(overall, data),
            "reference": tuple(metrics.get("probabilities") or ()),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{path} is not what training.evaluate writes: {error!r}") from None
    return found if measured == sha256 else {}


def _figures(overall: dict[str, Any], data: dict[str, Any]) -> str:
    tested, learnt = data["counts"], data["train_counts"]
    return (
        f"AUROC {_interval(overall['auroc'], '.3f')}, "
        f"sensitivity {_interval(overall['recall'], '.1%')}, "
        f"specificity {_interval(overall['specificity'], '.1%')} at the threshold; 95% intervals "
        f"over whole cases. Tested on {tested['images']:,} images of {tested['cases']} cases "
        f"({data['part']} part of the {data['split']} split), learnt from {learnt['images']:,} "
        f"images of {learnt['cases']} others."
    )


def _interval(found: dict[str, float], form: str) -> str:
    return f"{found['value']:{form}} ({found['low']:{form}} to {found['high']:{form}})"
