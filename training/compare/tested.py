"""What is compared on the validation and test parts: splits, floors, backbones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bcd_models.config import HeldOut
from training.compare import schema
from training.compare.rows import align_frames, auroc_of, counts_of, drawn_of, within
from training.compare.runs import Missing, Run, Test
from training.evaluate import metrics
from training.evaluate.metrics import truth_of
from training.evaluate.schema import Figures


def on_same_terms(runs: list[Run], larger: str) -> tuple[schema.OnSameTerms, ...]:
    """Return validation and test figures over all sources together, as the original's are."""
    lines = []
    for run in sorted(runs, key=lambda run: run.kind != "random"):
        names = run.names | {"split": run.kind}
        if run.held == HeldOut() and run.held_out is not None:
            frame = run.held_out
            figures = metrics.with_intervals(
                truth_of(frame), *_answers(run, frame), drawn_of(frame)
            )
            lines.append(
                schema.OnSameTerms(
                    **names,
                    part="validation",
                    counts=counts_of(frame),
                    figures=Figures.model_validate(figures),
                    auroc_within=auroc_of(within(frame, larger)),
                )
            )
        if run.test:
            lines.append(
                schema.OnSameTerms(
                    **names,
                    part="test",
                    counts=run.test.metrics.data.counts,
                    figures=run.test.metrics.overall,
                    auroc_within=run.test.within.figures["auroc"],
                )
            )
    if not lines:
        raise Missing("no run holds out the validation part, and none was evaluated on test")
    return tuple(lines)


def tested(runs: list[Run]) -> tuple[schema.Tested, ...]:
    """Return the test figures of the grouped runs."""
    lines = tuple(
        schema.Tested(**run.names, within=test.within) for run, test in _evaluated_runs(runs)
    )
    if not lines:
        raise Missing("no run on the grouped split was evaluated on test")
    return lines


def _evaluated_runs(runs: list[Run]) -> list[tuple[Run, Test]]:
    return [(run, run.test) for run in runs if run.kind == "grouped" and run.test]


def pairs(runs: list[Run], larger: str) -> tuple[schema.Pair, ...]:
    """Return EfficientNet-B2 minus MobileNetV2, of equal arms or where there is one of each."""
    light, heavy = (
        [one for one in _evaluated_runs(runs) if one[0].plan.backbone == name]
        for name in ("mobilenetv2", "efficientnet_b2")
    )
    alone = len(light) == len(heavy) == 1
    alike = [
        _subtract(ours, theirs, larger)
        for ours in heavy
        for theirs in light
        if alone or _arm_of(ours[0]) == _arm_of(theirs[0])
    ]
    if not alike:
        raise Missing("no two backbones of one arm were evaluated on the grouped test part")
    return tuple(alike)


def _arm_of(run: Run) -> tuple[str, HeldOut]:
    return run.plan.arm, run.held


def _subtract(ours: tuple[Run, Test], theirs: tuple[Run, Test], larger: str) -> schema.Pair:
    one, other = align_frames([within(test.frame, larger) for _, test in (ours, theirs)])
    differences = metrics.differences(
        truth_of(one), _answers(ours[0], one), _answers(theirs[0], other), drawn_of(one)
    )
    return schema.Pair(
        run=ours[0].name,
        other=theirs[0].name,
        counts=counts_of(one),
        differences=Figures.model_validate(differences),
    )


def _answers(run: Run, frame: pd.DataFrame) -> tuple[metrics.Floats, float]:
    """Return a run's probabilities and its threshold."""
    return frame["probability"].to_numpy(np.float64), run.threshold
