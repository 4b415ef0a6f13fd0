"""Compare ways of asking the same weights: views, fields, degraded, ensembles, neighbours.

python -m training.compare.ways RUN... --corpus CORPUS --out WAYS.json

Runs are those of folds, of one arm or several, whose answers were recorded. Each image is scored by
the run that held its case out; differences are paired over whole cases. Nothing is trained, and
the test part is not read.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray

from bcd_models.decision import log_odds, smooth_margins
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.local import metrics, robustness
from bcd_models.local.calibration import cross_fit
from bcd_models.local.ladder import LADDER
from bcd_models.local.points import keep_sensitivity
from bcd_models.prediction import NOTICE
from training import command, run_folder
from training.corpus import splits
from training.corpus.selection import Corpus, check_corpus, find_unlearnt_rows, open_corpus
from training.evaluate import answers
from training.recipes import schema as recipe

BASE = "views_1"
ALONE = ("views_4", "views_8", "size_128", "size_160")
FIELDS = (BASE, "field_0.8", "field_1.25")
SIGMAS = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # tiles
MIN_NEIGHBOURS = 6.0  # of eight, on average, from which a case's patches are the whole of it
PLACE = re.compile(r"_x(\d+)_y(\d+)_class")

Floats = NDArray[np.float64]


def read_arms(runs: list[Path], opened: Corpus) -> dict[str, pd.DataFrame]:
    """Return each arm's answers about rows of the larger source that its folds held out.

    Arms of one fold are left out: there is no other fold to calibrate them on.

    Args:
        runs: Folders of fold runs.
        opened: Their corpus.

    Raises:
        InputError: A run is of another corpus, holds out no fold, or has no answers.
    """
    larger = splits.find_larger_source(opened.table)
    parts = defaultdict(list)
    for run in runs:
        plan, provenance = recipe.read(run / run_folder.RECIPE), run_folder.read_provenance(run)
        check_corpus(provenance, opened)
        if provenance.held_out.fold is None:
            raise InputError(f"{run} holds out no fold")
        rows = find_unlearnt_rows(opened, provenance.held_out)
        rows &= (opened.table["source"] == larger).to_numpy()
        said = answers.read(run)[rows].astype(np.float64)
        name = f"{plan.backbone}/{plan.arm}, seed {plan.seed}"
        parts[name].append(opened.table[rows].join(said).assign(views=plan.views))
    return {name: pd.concat(some).sort_index() for name, some in parts.items() if len(some) > 1}


def compare_ways(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return the AUROC of one view, and of each other way what it adds, with its interval."""
    truth, drawn = _truth_and_resamples(frame)
    base = frame[BASE].to_numpy()
    ways = {name: frame[name].to_numpy() for name in ALONE if name in frame}
    ways["three fields"] = frame[list(FIELDS)].mean(axis=1).to_numpy()
    found = {BASE: metrics.measure_interval(metrics.auroc, truth, base, drawn)}
    for name, margins in ways.items():
        found[name] = metrics.measure_difference(metrics.auroc, truth, margins, base, drawn)
    return found


def compare_ensembles(arms: dict[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Return what the mean log-odds of two or more arms adds to its best member.

    All are asked with four views and calibrated on the folds that they don't answer for.
    """
    found = {}
    for size in range(2, len(arms) + 1):
        for names in itertools.combinations(arms, size):
            shared = list(set.intersection(*(set(arms[name].index) for name in names)))
            frames = [arms[name].loc[sorted(shared)] for name in names]
            if len({name.split("/")[0] for name in names}) < size or not shared:
                continue  # seeds of one network are not an ensemble that ships
            truth, drawn = _truth_and_resamples(frames[0])
            members = [
                cross_fit(one["views_4"].to_numpy(), truth, one["fold"].to_numpy())
                for one in frames
            ]
            best = max(members, key=lambda one: metrics.auroc(truth, one))
            mean = np.mean(members, axis=0)
            found[" + ".join(names)] = {
                "auroc": metrics.measure_interval(metrics.auroc, truth, mean, drawn),
                "minus_best": metrics.measure_difference(metrics.auroc, truth, mean, best, drawn),
            }
    return found


def compare_rungs(frame: pd.DataFrame, views: int) -> dict[str, dict[str, Any]]:
    """Return the robustness ladder of an arm: its clean figures, and each rung's less these.

    Calibration and threshold, the prevalence, are those that clean images give, of the folds that a
    row was not held out with.
    """
    truth, folds = metrics.is_malignant(frame), frame["fold"].to_numpy()
    clean = frame[f"views_{views}"].to_numpy()
    names = [rung.name for rung in LADDER]
    shown = frame[names].notna().all(axis=1).to_numpy()
    resamples = metrics.draw_resamples(frame["case_id"][shown], frame["source"][shown])
    threshold = log_odds(truth.mean())

    def answer(margins: Floats) -> robustness.Answers:
        said = cross_fit(clean, truth, folds, margins)[shown]
        return said, (said >= threshold).astype(np.float64)

    beside, drawn = answer(clean), truth[shown]
    found = {"clean": robustness.estimate_figures(drawn, beside, resamples).model_dump()}
    for name in names:
        ours = answer(frame[name].to_numpy())
        gap = robustness.estimate_differences(drawn, ours, beside, resamples)
        found[name] = gap.model_dump()
    return found


def compare_context(frame: pd.DataFrame) -> dict[str, Any] | None:
    """Return what a tile's neighbours add in whole cases; None without two of these.

    The width of the Gaussian that a case is smoothed by is the one that is best, on average, in the
    others. Recall and specificity are at the threshold that finds 95% of all out-of-fold carcinoma
    without smoothing.
    """
    cases = dict(find_whole_cases(frame))
    if len(cases) < 2:
        return None
    threshold = keep_sensitivity(frame[BASE].to_numpy(), metrics.is_malignant(frame))
    grids = {case: lay_out(own) for case, own in cases.items()}
    truths = {case: metrics.is_malignant(own) for case, own in cases.items()}

    def smooth(case: str, sigma: float) -> Floats:
        grid, places = grids[case]
        return smooth_margins(grid, sigma)[places]

    area = {
        (case, sigma): metrics.auroc(truths[case], smooth(case, sigma))
        for case in cases
        for sigma in SIGMAS
    }
    lines = []
    for case in cases:
        others = [other for other in cases if other != case]
        sigma = max(SIGMAS, key=lambda one: np.mean([area[other, one] for other in others]))
        line: dict[str, Any] = {"case": case, "tiles": len(truths[case]), "sigma": sigma}
        for name, width in (("alone", 0.0), ("with_neighbours", sigma)):
            called, truth = smooth(case, width) >= threshold, truths[case]
            line[name] = {
                "auroc": area[case, width],
                "recall": float(called[truth].mean()),
                "specificity": float((~called[~truth]).mean()),
            }
        lines.append(line)
    chosen = max(SIGMAS, key=lambda one: np.mean([area[case, one] for case in cases]))
    return {"cases": lines, "sigma_of_all": chosen}


def find_whole_cases(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the cases with both labels of which nearly every patch is there."""
    for case, own in frame.groupby("case_id"):
        if own["name"].str.extract(PLACE).isna().any(axis=None) or own["label"].nunique() < 2:
            continue
        grid, _ = lay_out(own)
        known = np.pad(~np.isnan(grid), 1)
        steps = [step for step in itertools.product((-1, 0, 1), repeat=2) if any(step)]
        around = np.sum([np.roll(known, step, (0, 1)) for step in steps], axis=0)
        if around[known].mean() >= MIN_NEIGHBOURS:
            yield str(case), own


def lay_out(own: pd.DataFrame) -> tuple[Floats, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return a case's margins on the grid of its patches, and each row's place on it."""
    pixels = own["name"].str.extract(PLACE).astype(int).to_numpy()
    side = min(np.diff(np.unique(axis)).min(initial=50) for axis in pixels.T)
    columns, rows = ((pixels - pixels.min(0)) // side).T
    grid = np.full((rows.max() + 1, columns.max() + 1), np.nan)
    grid[rows, columns] = own[BASE]
    return grid, (rows, columns)


def _truth_and_resamples(
    frame: pd.DataFrame,
) -> tuple[NDArray[np.bool_], metrics.Resamples]:
    return metrics.is_malignant(frame), metrics.draw_resamples(frame["case_id"], frame["source"])


def main(
    runs: Annotated[list[Path], typer.Argument(help="Runs of folds, whose answers are recorded.")],
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
) -> None:
    """Compare ways of asking the same weights."""
    opened = open_corpus(corpus, "grouped")
    arms = read_arms(runs, opened)
    document = {
        "corpus_fingerprint": opened.about["fingerprint"],
        "ways": {name: compare_ways(frame) for name, frame in arms.items()},
        "ladder": {
            name: compare_rungs(frame, int(frame["views"].iloc[0])) for name, frame in arms.items()
        },
        "context": {name: compare_context(frame) for name, frame in arms.items()},
        "ensembles": compare_ensembles(arms),
        "notice": NOTICE,
    }
    write_files({out: f"{json.dumps(document, indent=1)}\n".encode()})
    typer.echo(json.dumps(document, indent=1))


if __name__ == "__main__":
    command.run(main)
