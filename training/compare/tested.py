"""What is compared on the validation and test parts: splits, floors, backbones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bcd_models.config import HeldOut
from bcd_models.local import metrics
from bcd_models.local.metrics import is_malignant
from training.compare import schema
from training.compare.rows import (
    align_frames,
    count_rows,
    measure_auroc,
    resample_cases,
    select_source,
)
from training.compare.runs import Missing, Run, Test
from training.evaluate.schema import Figures


def compare_on_same_terms(runs: list[Run], larger: str) -> tuple[schema.OnSameTerms, ...]:
    """Return validation and test figures over all sources together, as the original's are."""
    lines = []
    for run in sorted(runs, key=lambda run: run.kind != "random"):
        names = run.names | {"split": run.kind}
        if run.held == HeldOut() and run.held_out is not None:
            frame = run.held_out
            figures = metrics.measure_intervals(
                is_malignant(frame), *_answers(run, frame), resample_cases(frame)
            )
            lines.append(
                schema.OnSameTerms(
                    **names,
                    part="validation",
                    counts=count_rows(frame),
                    figures=Figures.model_validate(figures),
                    auroc_within=measure_auroc(select_source(frame, larger)),
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


def list_tested(runs: list[Run]) -> tuple[schema.Tested, ...]:
    """Return the test figures of the grouped runs."""
    lines = tuple(
        schema.Tested(
            **run.names, weights_sha256=test.metrics.model.weights_sha256, within=test.within
        )
        for run, test in _list_evaluated(runs)
    )
    if not lines:
        raise Missing("no run on the grouped split was evaluated on test")
    return lines


def _list_evaluated(runs: list[Run]) -> list[tuple[Run, Test]]:
    return [(run, run.test) for run in runs if run.kind == "grouped" and run.test]


def compare_backbones(runs: list[Run], larger: str) -> tuple[schema.Pair, ...]:
    """Return EfficientNet-B2 minus MobileNetV2, of equal arms or where there is one of each."""
    light, heavy = (
        [one for one in _list_evaluated(runs) if one[0].plan.backbone == name]
        for name in ("mobilenetv2", "efficientnet_b2")
    )
    alone = len(light) == len(heavy) == 1
    alike = [
        _subtract(ours, theirs, larger)
        for ours in heavy
        for theirs in light
        if alone or _identify_arm(ours[0]) == _identify_arm(theirs[0])
    ]
    if not alike:
        raise Missing("no two backbones of one arm were evaluated on the grouped test part")
    return tuple(alike)


def _identify_arm(run: Run) -> tuple[str, HeldOut]:
    return run.plan.arm, run.held


def _subtract(ours: tuple[Run, Test], theirs: tuple[Run, Test], larger: str) -> schema.Pair:
    one, other = align_frames([select_source(test.frame, larger) for _, test in (ours, theirs)])
    differences = metrics.measure_differences(
        is_malignant(one), _answers(ours[0], one), _answers(theirs[0], other), resample_cases(one)
    )
    return schema.Pair(
        run=ours[0].name,
        other=theirs[0].name,
        counts=count_rows(one),
        differences=Figures.model_validate(differences),
    )


def _answers(run: Run, frame: pd.DataFrame) -> tuple[metrics.Floats, float]:
    """Return a run's probabilities and its threshold."""
    return frame["probability"].to_numpy(np.float64), run.threshold
