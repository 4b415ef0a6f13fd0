"""Measure whether a model's heat maps show what it goes by, beside maps that no model makes.

python -m training.evaluate.faithfulness --model RUN/model --corpus CORPUS --out FAITHFULNESS.json

Each patch is mapped by the fold model that held its case out.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from bcd_models.config import Estimate
from bcd_models.errors import InputError
from bcd_models.explain.cells import GRID, compute_margins
from bcd_models.hub.atomic import write_files
from bcd_models.images.preprocess import normalise
from bcd_models.images.tissue import is_tissue
from bcd_models.local import metrics
from bcd_models.models.classifier import BCDClassifier
from bcd_models.runtime.torch_forward import TorchForward
from training.corpus.selection import Corpus, open_corpus
from training.evaluate import robustness
from training.evaluate.answers import read_patches
from training.evaluate.faithfulness import trials
from training.evaluate.faithfulness.maps import (
    HAEMATOXYLIN,
    RANDOM,
    WAYS,
    Cells,
    Inputs,
    MapOf,
    Way,
    blur,
    by_chance,
    by_haematoxylin,
    by_method,
    to_size,
)
from training.evaluate.faithfulness.page import Faithfulness, Measured, tabulate
from training.evaluate.schema import Counts

PATCHES = 160
MIN_PATCHES, MIN_CASES = 150, 60  # of which a published table is
GLASS_PATCHES = 60
RANDOMISED_PATCHES = 24
SEEDS = range(5)
CANDIDATES = 12  # of each label and case, that a composite's halves are chosen among
GLASS = 0.86  # of white, that a pixel of glass reaches in each colour
MIN_GLASS_CELLS, MIN_TISSUE_CELLS = 3, 9


@dataclass
class Patch:
    """A patch of a case, as its model takes it.

    Attributes:
        case: Its case.
        inputs: 1 x 3 x S x S.
        benign: A benign patch of the same case, likewise.
    """

    case: str
    inputs: Inputs
    benign: Inputs


@dataclass
class Composite:
    """A picture of which one half is malignant, and shows as much haematoxylin as the other.

    Attributes:
        case: That both halves are of.
        inputs: 1 x 3 x S x S.
        malignant: GRID x GRID, which cells.
    """

    case: str
    inputs: Inputs
    malignant: NDArray[np.bool_]


@dataclass
class Shown:
    """What one model's maps are measured on: of cases that it has not learnt from."""

    patches: list[Patch] = field(default_factory=list)
    composites: list[Composite] = field(default_factory=list)
    glass: list[Inputs] = field(default_factory=list)


@dataclass
class Found:
    """What came of a way's trials.

    Attributes:
        values: By trial, each with its case.
        glass: Cells of glass, and of tissue, of the same patches.
        cascade: Rank correlations, by how many parts of the network were randomised.
        seconds: Of a map, and of a forward.
    """

    values: dict[str, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))
    glass: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    cascade: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    seconds: list[tuple[float, float]] = field(default_factory=list)


def measure(
    models: Sequence[BCDClassifier],
    corpus_folder: Path,
    ways: Sequence[Way] = WAYS,
    patches: int = PATCHES,
) -> Faithfulness:
    """Put the maps of models of one recipe to every trial, pooled over the models.

    Args:
        models: Fold models, each measured on what it has not learnt from.
        corpus_folder: Their corpus.
        ways: Of making maps.
        patches: Malignant patches to map, evenly of the cases that hold both labels.

    Raises:
        InputError: The models are not of one recipe, corpus and split, or what they have not learnt
            from holds no case with both labels.
    """
    provenance = robustness.check_one_recipe(models)
    opened = open_corpus(corpus_folder, provenance.split)
    drawn = robustness.draw_rows(opened, provenance.held_out)
    judges = robustness.assign_judges(models, opened)[drawn.index]
    truth = metrics.is_malignant(drawn)
    both = drawn["case_id"].isin(drawn["case_id"][~truth]).to_numpy() & truth & (judges >= 0)
    chosen = robustness.draw_patches(drawn[both], patches)
    if not len(chosen):
        raise InputError("what the models have not learnt from holds no case with both labels")
    found = {name: Found() for name in (*(way.name for way in ways), HAEMATOXYLIN, RANDOM)}
    for number, model in enumerate(models):
        own = drawn[judges == number]
        shown = show(model, opened, own, chosen.index.intersection(own.index))
        for name, map_of, limit, randomised in arrange(model, ways):
            put_to_trials(model, shown, map_of, limit, found[name])
            if randomised:
                randomise(model, shown, map_of, randomised, found[name])
    return Faithfulness(
        models=tuple(map(robustness.describe_model, models)),
        corpus_fingerprint=opened.about["fingerprint"],
        counts=Counts(**metrics.count_images(chosen)),
        intervals=f"95%, bootstrap over whole cases, {metrics.RESAMPLES} resamples",
        ways=tuple(describe(name, one) for name, one in found.items()),
    )


def arrange(
    model: BCDClassifier, ways: Sequence[Way]
) -> Iterable[tuple[str, MapOf, int | None, Any]]:
    """Yield each way's name, its maps, its limit of patches, and its maps by a random forward."""
    decision = model.config.decision
    for way in ways:
        forward, used = model.prepare_method(way.method)
        if used != way.method:
            raise InputError(f"{model.config.name} can't be explained by {way.method} here")
        randomised = partial(by_method, way, decision=decision)
        yield way.name, by_method(way, forward, decision), way.patches, randomised
    yield HAEMATOXYLIN, by_haematoxylin(model.config.preprocess), None, None
    yield RANDOM, by_chance(0), None, None


def show(model: BCDClassifier, opened: Corpus, own: pd.DataFrame, chosen: pd.Index) -> Shown:
    """Read what a model's maps are measured on.

    Args:
        model: Whose maps.
        opened: Its corpus.
        own: Drawn rows that it has not learnt from.
        chosen: Those of them whose maps are measured.
    """
    images = dict(zip(own.index, read_patches(opened, own.index), strict=True))

    def prepare(pixels: NDArray[np.uint8]) -> Inputs:
        return normalise([model.prepare(pixels)], model.config.preprocess)

    shown, rng = Shown(), np.random.default_rng(0)
    benign = own[~metrics.is_malignant(own)].groupby("case_id").groups
    for row in chosen:
        case = own.at[row, "case_id"]
        other = prepare(images[rng.choice(benign[case])])
        shown.patches.append(Patch(case, prepare(images[row]), other))
    density = by_haematoxylin(model.config.preprocess)
    for number, case in enumerate(dict.fromkeys(own.loc[chosen, "case_id"])):
        halves = {
            label: [prepare(images[row]) for row in rows.index[:CANDIDATES]]
            for label, rows in own[own["case_id"] == case].groupby("label")
        }
        joined = compose(case, halves["malignant"], halves["benign"], number, density)
        shown.composites.append(joined)
    for row in rng.permutation(own.index):
        inputs = prepare(images[row])
        glass, tissue = find_glass(inputs, model)
        if glass.sum() >= MIN_GLASS_CELLS and tissue.sum() >= MIN_TISSUE_CELLS:
            shown.glass.append(inputs)
        if len(shown.glass) == GLASS_PATCHES:
            break
    return shown


def compose(
    case: str, malignant: list[Inputs], benign: list[Inputs], number: int, density: MapOf
) -> Composite:
    """Put two halves of a case together, of all pairs those that haematoxylin tells apart least.

    Args:
        case: Their case.
        malignant: Its malignant patches.
        benign: Its benign ones.
        number: Left, right, top and bottom are malignant in turn.
        density: Maps haematoxylin.
    """
    half = trials.HALVES[number % 4 // 2]
    cells = half if number % 2 else ~half
    side = benign[0].shape[-1]
    pixels = to_size(cells.astype(np.float32), side, Image.Resampling.NEAREST) > 0.5
    joined = [np.where(pixels, one, other) for one in malignant for other in benign]
    told = [abs(trials.separate(density(one), cells)[0] - 0.5) for one in joined]
    return Composite(case, joined[int(np.argmin(told))], cells)


def find_glass(inputs: Inputs, model: BCDClassifier) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which cells show glass alone, and which tissue, GRID x GRID each."""
    preprocess = model.config.preprocess
    mean, std = (np.array(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    rgb = np.clip(inputs[0] * std + mean, 0, 1)
    pixels = np.rint(255 * np.moveaxis(rgb, 0, -1)).astype(np.uint8)
    glass, tissue = (
        to_size(one.astype(np.float32), GRID, Image.Resampling.BOX)
        for one in (rgb.min(0) >= GLASS, is_tissue(pixels))
    )
    return glass >= trials.MIN_GLASS, tissue >= trials.MIN_TISSUE


def put_to_trials(
    model: BCDClassifier, shown: Shown, map_of: MapOf, limit: int | None, found: Found
) -> None:
    """Put one way of mapping to the trials that ask the network itself."""
    forward, _ = model.prepare_method("occlusion")
    slope, margins_of = model.config.decision.slope, partial(compute_margins, forward)
    for patch in shown.patches[:limit]:
        (one,), (other,) = patch.inputs, patch.benign
        cells = timed(map_of, patch.inputs, forward.logits, found)
        removals = {"tissue": other, "blur": blur(one)}
        for fill, filling in removals.items():
            deletion, insertion = trials.remove(margins_of, one, filling, cells)
            found.values[f"deletion_{fill}"].append((patch.case, slope * deletion))
            found.values[f"insertion_{fill}"].append((patch.case, slope * insertion))
        road = slope * trials.impute(margins_of, one, cells)
        found.values["road"].append((patch.case, road))
        turned = trials.turn_along(map_of, patch.inputs)
        found.values["turns"].append((patch.case, turned))
        found.values["shifts"].append((patch.case, trials.shift_along(map_of, patch.inputs)))
    for composite in shown.composites[:limit]:
        area, pointed = trials.separate(map_of(composite.inputs), composite.malignant)
        found.values["composites"].append((composite.case, area))
        found.values["pointing"].append((composite.case, pointed))
    for inputs in shown.glass[:limit]:
        values = to_size(map_of(inputs), GRID)
        for kept, where in zip(found.glass, find_glass(inputs, model), strict=True):
            kept += values[where].tolist()


def timed(map_of: MapOf, inputs: Inputs, logits: Any, found: Found) -> Cells:
    """Map an input, and note what it took beside a forward."""
    started = time.perf_counter()
    logits(inputs)
    forwarded = time.perf_counter()
    cells = map_of(inputs)
    found.seconds.append((time.perf_counter() - forwarded, forwarded - started))
    return cells


def randomise(
    model: BCDClassifier, shown: Shown, map_of: MapOf, by_forward: Any, found: Found
) -> None:
    """Compare maps with those of the same network with weights of chance.

    All layers, by five seeds; and by the first seed, its last fifth, two fifths and so on.
    """
    own, _ = model.prepare_method("layercam")  # by torch
    assert isinstance(own, TorchForward)
    limit = RANDOMISED_PATCHES // 3 if len(found.values["road"]) < len(shown.patches) else None
    patches = shown.patches[: limit or RANDOMISED_PATCHES]
    upright = [map_of(patch.inputs) for patch in patches]
    steps = [(seed, trials.CASCADE) for seed in SEEDS]
    steps += [(SEEDS[0], parts) for parts in range(1, trials.CASCADE)]
    for seed, parts in steps:
        network = trials.randomise(own.copy_network(), seed, parts)
        chance = by_forward(forward=TorchForward(network))
        for patch, cells in zip(patches, upright, strict=True):
            told = trials.correlate(cells, chance(patch.inputs))
            found.cascade[parts].append(told)
            if parts == trials.CASCADE:
                found.values["randomised"].append((patch.case, told))


def describe(name: str, found: Found) -> Measured:
    """Return a way's figures, each with its interval over cases."""
    figures = {trial: estimate(pairs) for trial, pairs in found.values.items()}
    both = [
        (case, (one + other) / 2)
        for (case, one), (_, other) in zip(
            found.values["deletion_tissue"], found.values["deletion_blur"], strict=True
        )
    ]
    glass, tissue = map(np.array, found.glass)
    maps, forwards = (median(seconds) for seconds in zip(*found.seconds, strict=True))
    return Measured(
        name=name,
        patches=len(found.values["road"]),
        figures={"deletion": estimate(both), **figures},
        glass=float((tissue < glass.mean()).mean()) if len(glass) else None,
        cascade=tuple(float(np.mean(found.cascade[parts])) for parts in sorted(found.cascade)),
        milliseconds=1000 * maps,
        forwards=maps / forwards,
    )


def estimate(pairs: list[tuple[str, float]]) -> Estimate:
    """Return the mean over patches, with its 95% interval over cases."""
    cases, values = zip(*pairs, strict=True)
    drawn = metrics.draw_resamples(cases, [""] * len(cases))
    times = drawn.drawn[:, drawn.case]
    spread = times @ np.array(values) / np.maximum(times.sum(1), 1)
    return metrics.estimate_interval(float(np.mean(values)), spread)


def main(
    model: Annotated[list[Path], typer.Option(help="Fold models, of one recipe.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    patches: Annotated[int, typer.Option(help="Malignant patches to map.")] = PATCHES,
) -> None:
    """Measure whether heat maps show what a model goes by."""
    models = [BCDClassifier.from_pretrained(folder) for folder in tqdm(model, disable=None)]
    document = measure(models, corpus, patches=patches)
    write_files({out: f"{document.model_dump_json(indent=1)}\n".encode()})
    typer.echo(tabulate(document), nl=False)
