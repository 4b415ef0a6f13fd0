"""What is compared on held-out folds: arms, backbone by tuning, shares of the cases."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from training.compare import schema
from training.compare.rows import (
    align_frames,
    count_rows,
    measure_auroc,
    measure_frame,
    select_source,
    subtract_auroc,
)
from training.compare.runs import Missing, Pool, Run, pool_arms, pool_folds
from training.corpus import splits
from training.corpus.selection import open_data
from training.evaluate.schema import Neighbours

ARMS = ("plain", "tuned")
FLOOR = ("colour statistics", "floor")


def compare_arms(
    runs: list[Run], larger: str, floor: pd.DataFrame | None = None
) -> tuple[schema.OutOfFold, ...]:
    """Return each arm's pooled folds, by seed, beside the plain arm and the colour floor."""
    whole = _pool_whole_arms(runs)
    if not whole:
        raise Missing("no run holds out a fold")
    plain = {
        (pool.first.backbone, pool.first.plan.seed): pool
        for pool in whole
        if pool.first.plan.arm == "plain"
    }
    lines = []
    for pool in whole:
        beside: dict[str, Any] = {}
        base = plain.get((pool.first.backbone, pool.first.plan.seed), pool)
        if base is not pool and set(pool.runs) & set(base.runs):
            difference, images = subtract_auroc(pool.frame, base.frame, larger)
            beside = {"minus_plain": difference, "paired_images": images}
        if floor is not None:
            beside["minus_floor"], _ = subtract_auroc(pool.frame, floor, larger)
        lines.append(_measure_pool(pool, larger).model_copy(update=beside))
    if floor is not None:
        backbone, arm = FLOOR
        lines.append(
            schema.OutOfFold(
                backbone=backbone,
                arm=arm,
                learnt_share=1,
                folds=tuple(range(splits.FOLDS)),
                **measure_frame(select_source(floor, larger)),
            )
        )
    return tuple(lines)


def _pool_whole_arms(runs: list[Run]) -> list[Pool]:
    whole = [pool for pool in pool_arms(runs) if pool.first.plan.learnt_share == 1]
    return sorted(
        whole, key=lambda pool: (pool.first.plan.backbone, pool.first.plan.arm != "plain")
    )


def _measure_pool(pool: Pool, larger: str) -> schema.OutOfFold:
    return schema.OutOfFold(
        backbone=pool.first.backbone,
        arm=pool.first.plan.arm,
        seed=pool.first.plan.seed,
        learnt_share=pool.first.plan.learnt_share,
        folds=tuple(pool.runs),
        **measure_frame(select_source(pool.frame, larger)),
    )


def compare_square(runs: list[Run], larger: str, corpus: Path | None) -> schema.Square:
    """Compare backbone x (plain, tuned) over the folds of all four, with what each was given.

    Of several seeds, the first.
    """
    seed = min(run.plan.seed for run in runs)
    whole = [pool for pool in _pool_whole_arms(runs) if pool.first.plan.seed == seed]
    four = [pool for pool in whole if pool.first.plan.arm in ARMS]
    if len(four) < 4:
        names = [f"{pool.first.backbone} {pool.first.plan.arm}" for pool in four]
        raise Missing(
            "it takes fold runs of arms plain and tuned of both backbones; there are "
            f"{', '.join(names) or 'none'}"
        )
    folds = sorted(set.intersection(*(set(pool.runs) for pool in four)))
    if not folds:
        raise Missing("the four arms hold no fold in common")
    four = [pool_folds(pool.runs, folds) for pool in four]
    frames = align_frames([select_source(pool.frame, larger) for pool in four])
    measured = [measure_frame(frame) for frame in frames]
    corners = tuple(
        schema.Corner(
            backbone=pool.first.backbone,
            arm=pool.first.plan.arm,
            auroc=one["auroc"],
            balanced_accuracy=one["balanced_accuracy"],
            budget=_add_up_budget(pool, corpus),
        )
        for pool, one in zip(four, measured, strict=True)
    )
    return schema.Square(
        folds=tuple(folds),
        counts=measured[0]["counts"],
        corners=corners,
        unequal=_list_unequal_budgets(corners),
    )


def _add_up_budget(pool: Pool, corpus: Path | None) -> schema.Budget:
    phases = pool.first.plan.phases
    passes = None
    if corpus:
        passes = sum(
            run.plan.count_draws(len(open_data(corpus, run.plan, run.held).training.frame))
            for run in pool.runs.values()
        )
    return schema.Budget(
        phases=", ".join(f"{phase.epochs} at {phase.size} px" for phase in phases),
        epochs=sum(run.plan.epochs for run in pool.runs.values()),
        image_passes=passes,
        seconds=sum(run.seconds for run in pool.runs.values()),
    )


def _list_unequal_budgets(corners: tuple[schema.Corner, ...]) -> tuple[str, ...]:
    """Return what the four were not given alike, one line each."""
    lines = []
    for name, words in {"phases": "epochs a fold", "image_passes": "image passes"}.items():
        given = [getattr(corner.budget, name) for corner in corners]
        if len(set(given)) > 1:
            each = (f"{c.backbone} {c.arm} {g}" for c, g in zip(corners, given, strict=True))
            lines.append(f"{words}: {'; '.join(each)}")
    return tuple(lines)


def compare_shares(runs: list[Run], larger: str) -> tuple[schema.LearningCurve, ...]:
    """Set arms that learnt from a share of the cases beside the one that had all.

    Each curve is over the folds that all its shares hold; arms of one recipe and share are alike.
    """
    series: dict[str, dict[float, Pool]] = defaultdict(dict)
    for pool in pool_arms(runs):
        recipe = str(pool.first.decided("arm", "learnt_share", "seed"))
        series[recipe].setdefault(pool.first.plan.learnt_share, pool)
    curves = []
    for by_share in series.values():
        of_recipe = [by_share[share] for share in sorted(by_share)]
        whole = of_recipe[-1].first
        if of_recipe[0].first.plan.learnt_share == 1:
            continue
        folds = sorted(set.intersection(*(set(pool.runs) for pool in of_recipe)))
        if not folds:
            raise Missing(f"the shares of {whole.backbone} hold no fold in common")
        points = tuple(_measure_pool(pool_folds(pool.runs, folds), larger) for pool in of_recipe)
        curves.append(
            schema.LearningCurve(backbone=whole.backbone, arm=whole.plan.arm, points=points)
        )
    if not curves:
        raise Missing("no run that holds out a fold learnt from a share of the cases")
    return tuple(curves)


def compare_neighbours(runs: list[Run], larger: str) -> tuple[Neighbours, ...]:
    """Compare folds by case with folds that keep neighbouring case ids together."""
    by_case = {_identify_recipe(pool): pool for pool in pool_arms(runs)}
    by_id = {_identify_recipe(pool): pool for pool in pool_arms(runs, "neighbours")}
    both = [(by_case[recipe], by_id[recipe]) for recipe in by_id if recipe in by_case]
    if not both:
        raise Missing(
            "it takes fold runs of one recipe on the grouped split and on the neighbours split"
        )
    return tuple(_set_beside(*pair, larger) for pair in both)


def _identify_recipe(pool: Pool) -> str:
    return str(pool.first.decided("split", "seed"))


def _set_beside(by_case: Pool, by_run: Pool, larger: str) -> Neighbours:
    one, other = align_frames([select_source(pool.frame, larger) for pool in (by_case, by_run)])
    difference, _ = subtract_auroc(by_run.frame, by_case.frame, larger)
    return Neighbours(
        backbone=by_case.first.backbone,
        arm=by_case.first.plan.arm,
        counts=count_rows(one),
        by_case=measure_auroc(one),
        by_run=measure_auroc(other),
        difference=difference,
    )
