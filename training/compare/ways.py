"""What fold models answered, measured in every way of asking: views, fields, degraded, together.

Each image is scored by the run that held its case out, as ``training.evaluate.answers`` recorded
it; differences are paired over whole cases. Nothing is trained or scored again, and the test part
is not read.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bcd_models.config import Estimate
from bcd_models.decision import log_odds, smooth_margins
from bcd_models.local import metrics, robustness
from bcd_models.local.calibration import cross_fit, fit_line, fit_lines
from bcd_models.local.degradations import Pixels
from bcd_models.local.metrics import Floats
from bcd_models.local.points import keep_sensitivity
from training.compare import groups, published, schema
from training.compare.rows import align_frames, resample_cases, select_source
from training.compare.runs import Missing, Run
from training.corpus import splits
from training.corpus.selection import Corpus
from training.evaluate import answers
from training.evaluate.reliability import measure_reliability
from training.evaluate.robustness import climb_recorded, find_climbed

BASE = "views_1"
ALONE = ("views_4", "views_8", "size_128", "size_160")
FIELDS = (BASE, "field_0.8", "field_1.25")
SIGMAS = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # tiles
MIN_NEIGHBOURS = 6.0  # of eight, on average, from which a case's patches are the whole of it
PLACE = re.compile(r"_x(\d+)_y(\d+)_class")


@dataclass(frozen=True)
class Arm:
    """The recorded answers of an arm and seed.

    Attributes:
        name: As "backbone/arm, seed".
        folds: Which there are.
        views: Of the recipe.
        larger: Rows of the larger source that were held out, with all columns of ``answers``.
        others: By source that holds both labels, whether it was learnt from, and its rows with a
            ``margin``.
    """

    name: str
    folds: tuple[int, ...]
    views: int
    larger: pd.DataFrame
    others: dict[str, tuple[bool, pd.DataFrame]]


def read_arms(runs: list[Run], opened: Corpus | None) -> list[Arm]:
    """Return what the fold runs of each arm and seed answered about rows of a corpus.

    Arms of one fold are left out: there is no other fold to calibrate them on.

    Raises:
        Missing: There are none.
    """
    of_name: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        recorded = run.kind == "grouped" and (run.folder / answers.ANSWERS).is_file()
        if recorded and run.held.fold is not None:
            name = f"{run.plan.backbone}/{run.plan.arm}, seed {run.plan.seed}"
            of_name[name].append(run)
    whole = {name: of_arm for name, of_arm in of_name.items() if len(of_arm) > 1}
    if opened is None or not whole:
        raise Missing("it takes the corpus and the recorded answers of an arm's folds")
    return [_read_arm(name, of_arm, opened) for name, of_arm in whole.items()]


def _read_arm(name: str, runs: list[Run], opened: Corpus) -> Arm:
    larger, plan = splits.find_larger_source(opened.table), runs[0].plan
    table = opened.table.assign(row=opened.table.index)
    frame = answers.read_folds([run.folder for run in runs], opened)
    left_out = []
    for run in runs:
        said = answers.read(run.folder).astype(np.float64)
        left_out.append(said["other"].fillna(said[BASE]))
    mean = pd.concat(left_out, axis=1).mean(axis=1)
    others = {}
    for source in sorted(set(opened.table["source"]) - {larger}):
        learnt = not plan.sources or source in plan.sources
        margin = frame[f"views_{plan.views}"] if learnt else mean
        own = select_source((frame if learnt else table).assign(margin=margin), source)
        if own["label"].nunique() == 2:
            others[source] = learnt, own
    folds = tuple(sorted(run.held.fold for run in runs if run.held.fold is not None))
    return Arm(name, folds, plan.views, select_source(frame, larger), others)


def measure_arm(arm: Arm, patches: Iterable[Pixels], earlier: pd.DataFrame) -> schema.Asked:
    """Measure an arm's answers in all ways.

    Args:
        arm: Of several folds.
        patches: Pixels of its rows of the larger source.
        earlier: The table of the published models' margins.
    """
    frame = arm.larger
    margins = frame[f"views_{arm.views}"].to_numpy()
    truth, folds = metrics.is_malignant(frame), frame["fold"].to_numpy()
    frame = frame.assign(margin=margins, log_odds=cross_fit(margins, truth, folds))
    line = fit_line(margins, truth)
    threshold = float(log_odds(truth.mean()))
    gains = compare_ways(frame)
    return schema.Asked(
        arm=arm.name,
        folds=arm.folds,
        views=arm.views,
        clean=published.measure_clean(frame, arm.name.partition("/")[0], earlier),
        calibration=measure_reliability(frame),
        one_view=gains.pop(BASE),
        gains=gains,
        climb=climb_ladder(frame, arm.views),
        groups=groups.measure_groups(frame, patches),
        context=compare_context(frame),
        others=tuple(
            groups.measure_other(source, learnt, own, line, threshold)
            for source, (learnt, own) in arm.others.items()
        ),
    )


def compare_ways(frame: pd.DataFrame) -> dict[str, Estimate]:
    """Return the AUROC of one view, and of each other way what it adds."""
    truth, drawn = metrics.is_malignant(frame), resample_cases(frame)
    base = frame[BASE].to_numpy()
    ways = {name: frame[name].to_numpy() for name in ALONE if name in frame}
    ways["three fields"] = frame[list(FIELDS)].mean(axis=1).to_numpy()
    found = {BASE: metrics.measure_interval(metrics.auroc, truth, base, drawn)}
    for name, margins in ways.items():
        found[name] = metrics.measure_difference(metrics.auroc, truth, margins, base, drawn)
    return found


def compare_ensembles(arms: list[Arm]) -> tuple[schema.Ensemble, ...]:
    """Return what the mean log-odds of two or more arms adds to its best member.

    All are asked with four views and calibrated on the folds that they don't answer for.
    """
    found = []
    for size in range(2, len(arms) + 1):
        for members in itertools.combinations(arms, size):
            if len({one.name.partition("/")[0] for one in members}) < size:
                continue  # seeds of one network are not an ensemble that ships
            frames = align_frames([one.larger for one in members])
            truth, drawn = metrics.is_malignant(frames[0]), resample_cases(frames[0])
            each = [
                cross_fit(one["views_4"].to_numpy(), truth, one["fold"].to_numpy())
                for one in frames
            ]
            best = max(each, key=lambda one: metrics.auroc(truth, one))
            mean = np.mean(each, axis=0)
            found.append(
                schema.Ensemble(
                    members=tuple(one.name for one in members),
                    auroc=metrics.measure_interval(metrics.auroc, truth, mean, drawn),
                    minus_best=metrics.measure_difference(metrics.auroc, truth, mean, best, drawn),
                )
            )
    return tuple(found)


def climb_ladder(frame: pd.DataFrame, views: int) -> robustness.Climb:
    """Climb the robustness ladder with an arm's answers.

    Calibration and threshold, the prevalence, are those that clean images give, of the folds that a
    row was not held out with.
    """
    truth, folds = metrics.is_malignant(frame), frame["fold"].to_numpy()
    clean = frame[f"views_{views}"].to_numpy()
    slope, intercept = fit_lines(clean, truth, folds)
    threshold = float(log_odds(truth.mean()))
    shown = find_climbed(frame)
    return climb_recorded(frame[shown], f"views_{views}", slope[shown], intercept[shown], threshold)


def compare_context(frame: pd.DataFrame) -> schema.Context | None:
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

    def measure(case: str, sigma: float) -> schema.TileFigures:
        called, truth = smooth(case, sigma) >= threshold, truths[case]
        recall, specificity = called[truth].mean(), (~called[~truth]).mean()
        return schema.TileFigures(
            auroc=area[case, sigma], recall=float(recall), specificity=float(specificity)
        )

    def choose_width(among: Iterable[str]) -> float:
        return max(SIGMAS, key=lambda sigma: np.mean([area[case, sigma] for case in among]))

    lines = []
    for case in cases:
        sigma = choose_width([other for other in cases if other != case])
        lines.append(
            schema.WholeCase(
                case=case,
                tiles=len(truths[case]),
                sigma=sigma,
                alone=measure(case, 0.0),
                with_neighbours=measure(case, sigma),
            )
        )
    return schema.Context(sigma=choose_width(cases), cases=tuple(lines))


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
