"""Fit the gate that refuses what is no H&E-stained tissue, and measure what it refuses.

python -m training.evaluate.suitability --corpus CORPUS --out SUITABILITY.json [--model FOLDER ...]

It learns from real patches outside the test part, as they are and degraded as training degrades
them, against photographs and documents that installed packages ship, drawn images and recoloured
patches (``negatives``). Nothing is measured by what has learnt from it: for each fold of the
grouped split a gate of its own learns from the other folds' cases and the other sources of
photographs and documents. Recoloured patches are of unseen cases alone: their changes are learnt
from others. The gate that is stored has learnt from all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier
from tqdm import tqdm

from bcd_models.config import SuitabilityConfig
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.hub.atomic import write_files
from bcd_models.images import suitability as gate
from bcd_models.local import degradations as d
from bcd_models.local import robustness
from bcd_models.local.degradations import Pixels
from bcd_models.local.ladder import LADDER
from bcd_models.prediction import NOTICE
from training.corpus import splits
from training.corpus.degrade import degrade
from training.corpus.selection import Corpus, open_corpus
from training.evaluate.robustness import draw_patches
from training.evaluate.suitability import negatives
from training.evaluate.suitability.negatives import Learnt
from training.evaluate.suitability.page import (
    MIN_CASE_PATCHES,
    REFUSED_SHARE,
    Refused,
    Suitability,
    tabulate,
)
from training.recipes.schema import Degrade
from training.run_folder import change_config

MAX_PATCHES = 10_000
MAX_RUNG_PATCHES = 1_000
HIDDEN_UNITS = 16
DECAY = 0.3
PASSES = 40
DIGITS = 4  # of a stored weight
SEED = 0
# As strong as the recipes' own; a gate must let pass what models are taught to survive.
DEGRADE = Degrade(
    spared=0, scale=0.25, stain=0.2, hue=0.1, brightness=0.25, contrast=0.25, gamma=0.25,
    blur=1.2, resampling=0.5, noise=10, sharpening=1, jpeg=30,
)  # fmt: skip

MAX_TINT = 0.1  # of red and of blue against green: lamps and cameras that no recipe imitates

Numbers = NDArray[np.floating]


@dataclass(frozen=True)
class Group:
    """Images of one source.

    Attributes:
        kind: What they are.
        source: Which of that kind.
        numbers: As ``measure_tiles`` gives them.
        folds: Which fold's gate judges each.
        learnt: The class that the gates learn them as; None: they are only measured on.
        kept: One of how many is learnt from.
    """

    kind: str
    source: str
    numbers: Numbers
    folds: NDArray[np.int64]
    learnt: Learnt | None
    kept: int = 1


def measure(corpus_folder: Path) -> Suitability:
    """Fit the gate and measure it out of fold; InputError where the corpus can't be used."""
    opened = open_corpus(corpus_folder, "grouped")
    drawn = _draw_rows(opened)
    patches = [np.asarray(i.convert("RGB")) for i in opened.rows.select(drawn.index)["image"]]
    folds = drawn["fold"].to_numpy()
    changed = _gather_changed(patches, drawn.index, folds)
    tissue = _gather_tissue(patches, drawn.index, folds)
    tissue += [group for group in changed if group.learnt == "tissue"]
    others = [group for group in changed if group.learnt != "tissue"] + _gather_pictures()
    about: str = opened.about["fingerprint"]
    by_fold = [
        fit([*tissue, *others], about, without=fold)
        for fold in tqdm(range(splits.FOLDS), "gates", disable=None)
    ]
    clean = tissue[0]
    odds = np.empty(len(folds))
    for fold, config in enumerate(by_fold):
        own = clean.folds == fold
        odds[own] = gate.against_tissue(gate.score(clean.numbers[own], config))
    threshold = float(f"{np.quantile(odds, 1 - REFUSED_SHARE):.{DIGITS}g}")
    judges = [config.model_copy(update={"threshold": threshold}) for config in by_fold]
    stored = fit([*tissue, *others], about).model_copy(update={"threshold": threshold})
    names = _judge(clean, judges)
    rungs = _climb(patches, drawn, judges)
    return Suitability(
        schema_version=1,
        gate=stored,
        corpus_fingerprint=about,
        split_sha256=opened.split.sha256,
        tissue=(
            _count("real patches", "all", names),
            *(
                _count("real patches", str(source), names[places])
                for source, places in drawn.groupby("source", sort=True).indices.items()
            ),
            *(_count(group.kind, group.source, _judge(group, judges)) for group in tissue[1:]),
            *rungs,
        ),
        cases=tuple(
            _count("case", str(case), names[places])
            for case, places in drawn.groupby("case_id", sort=True).indices.items()
            if len(places) >= MIN_CASE_PATCHES
        ),
        others=tuple(_count(one.kind, one.source, _judge(one, judges)) for one in others),
        notice=NOTICE,
    )


def fit(groups: Sequence[Group], fingerprint: str, without: int | None = None) -> SuitabilityConfig:
    """Fit a gate to what isn't of a fold; its threshold is for the caller to set."""
    numbers, classes = [], []
    for group in groups:
        if group.learnt:
            own = group.numbers[group.folds != without][:: group.kept, : gate.NETWORK_NUMBERS]
            numbers.append(own)
            classes.append(np.full(len(own), gate.CLASSES.index(group.learnt)))
    learnt, truth = np.concatenate(numbers), np.concatenate(classes)
    tissue = learnt[truth == 0]
    mean, deviation = _round(tissue.mean(0)), _round(tissue.std(0) + 1e-6)
    shown = ((learnt - mean) / deviation).clip(-gate.MAX_DEVIATIONS, gate.MAX_DEVIATIONS)
    network = MLPClassifier(
        (HIDDEN_UNITS,),
        alpha=DECAY,
        batch_size=256,
        learning_rate_init=3e-3,
        random_state=SEED,
    )
    for _ in range(PASSES):
        network.partial_fit(shown, truth, classes=range(len(gate.CLASSES)))
    hidden, output = (
        _round(np.vstack((weights, biases)))
        for weights, biases in zip(network.coefs_, network.intercepts_, strict=True)
    )
    return SuitabilityConfig.model_validate(
        {
            "mean": mean.tolist(),
            "deviation": deviation.tolist(),
            "hidden": hidden.tolist(),
            "output": output.tolist(),
            "threshold": 0.0,
            "corpus_fingerprint": fingerprint,
        }
    )


def _draw_rows(opened: Corpus) -> pd.DataFrame:
    """Draw patches that have a fold, as many from each case until it has no more."""
    folded = draw_patches(opened.table[opened.table["fold"] >= 0], MAX_PATCHES, SEED)
    if folded["fold"].nunique() < splits.FOLDS:
        raise InputError("the corpus lacks patches in some of its folds: no gate can be measured")
    return folded


def _gather_tissue(patches: list[Pixels], rows: pd.Index, folds: NDArray[np.int64]) -> list[Group]:
    groups = [Group("real patches", "all", _measure(patches), folds, "tissue")]
    for source, tint in {"all": 0.0, "under a tinted lamp": MAX_TINT}.items():
        degraded = []
        for patch, row in zip(tqdm(patches, "degraded", disable=None), rows, strict=True):
            rng = np.random.default_rng((SEED, row, bool(tint)))
            tinted = d.shift_white_balance(patch, *rng.uniform(1 - tint, 1 + tint, 2))
            degraded.append(degrade(tinted, DEGRADE, rng))
        groups.append(Group("degraded as in training", source, _measure(degraded), folds, "tissue"))
    return groups


def _gather_changed(patches: list[Pixels], rows: pd.Index, folds: NDArray[np.int64]) -> list[Group]:
    groups = []
    for number, change in enumerate(tqdm(negatives.CHANGES, "changed patches", disable=None)):
        turned = [
            change.apply(patch, np.random.default_rng((SEED, number, row)))
            for patch, row in zip(patches, rows, strict=True)
        ]
        numbers = _measure(turned)
        groups.append(Group(change.kind, change.source, numbers, folds, change.learnt, change.kept))
    return groups


def _gather_pictures() -> list[Group]:
    rng = np.random.default_rng(SEED)
    found = [*negatives.read_shipped(rng), *negatives.draw_all(rng)]
    places = {source: n for n, source in enumerate(dict.fromkeys(name for _, name, _ in found))}
    groups = [
        Group(kind, source, _measure(images), _repeat(places[source], images), "picture")
        for kind, source, images in found
    ]
    if (stained := negatives.read_real_stain(rng)) is not None:
        for fold in range(splits.FOLDS):  # whichever gate it is: none has learnt from it
            own = stained[fold :: splits.FOLDS]
            groups.append(
                Group("brown stain", "photographed", _measure(own), _repeat(fold, own), None)
            )
    return groups


def _repeat(place: int, images: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
    return np.full(len(images), place % splits.FOLDS)


def _measure(images: Iterable[Pixels]) -> Numbers:
    """Return the numbers of images of one shape, as many at once as the library takes."""
    several = iter(images)
    parts = iter(lambda: list(islice(several, gate.TILES_AT_ONCE)), [])
    return np.concatenate([gate.measure_tiles(np.stack(part)) for part in parts])


def _judge(group: Group, judges: Sequence[SuitabilityConfig]) -> NDArray[np.str_]:
    """Return the name of what each image's own fold finds, "" for nothing."""
    names = np.full(len(group.folds), "", dtype="U16")
    for fold, config in enumerate(judges):
        own = np.flatnonzero(group.folds == fold)
        found = gate.judge(group.numbers[own], config) if len(own) else []
        names[own] = [one.name if one else "" for one in found]
    return names


def _climb(
    patches: list[Pixels], drawn: pd.DataFrame, judges: Sequence[SuitabilityConfig]
) -> list[Refused]:
    """Count what is refused on each rung of the robustness ladder."""
    some = np.random.default_rng(SEED).permutation(len(patches))[:MAX_RUNG_PATCHES]
    shown, rows = [patches[place] for place in some], drawn.index[some]
    folds, rungs = drawn["fold"].to_numpy()[some], []
    for rung in tqdm(LADDER, "robustness ladder", disable=None):
        degraded = robustness.degrade(rung, shown, rows)
        group = Group(rung.kind, rung.words, _measure(degraded), folds, None)
        rungs.append(_count(rung.kind, rung.words, _judge(group, judges)))
    return rungs


def _count(kind: str, source: str, names: NDArray[np.str_]) -> Refused:
    by_finding = {name: float((names == name).mean()) for name in gate.WORDS if name in names}
    return Refused(
        kind=kind,
        source=source,
        images=len(names),
        refused=float((names != "").mean()),
        by_finding=by_finding,
    )


def _round(values: NDArray[Any]) -> NDArray[np.float64]:
    """Keep so many digits: a config is read by people too."""
    rounded: NDArray[np.float64] = np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"))(values)
    return rounded


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="JSON file to write, its table beside it as Markdown.")],
    model: Annotated[
        list[Path] | None, typer.Option(help="Model folder that the gate is stored in.")
    ] = None,
) -> None:
    """Fit the gate that refuses what is no H&E-stained tissue, and measure it out of fold."""
    for folder in model or []:
        model_folder.read_config(folder)  # before minutes of work
    document = measure(corpus)
    table = tabulate(document)
    write_files(
        {
            out: f"{document.model_dump_json(indent=1)}\n".encode(),
            out.with_suffix(".md"): f"# What the gate refuses\n\n{table}".encode(),
        }
    )
    for folder in model or []:
        change_config(folder, {"suitability": document.gate})
    typer.echo(table, nl=False)
