"""What is compared on held-out folds: arms, each beside the plain one and the colour floor."""

from __future__ import annotations

from typing import Any

import pandas as pd

from training.compare import schema
from training.compare.rows import measure_frame, select_source, subtract_auroc
from training.compare.runs import Missing, Pool, Run, pool_arms
from training.corpus import splits

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
        folds=tuple(pool.runs),
        **measure_frame(select_source(pool.frame, larger)),
    )
