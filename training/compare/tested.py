"""What is compared on the validation and test parts: splits, floors, backbones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bcd_models.config import HeldOut
from training.compare import schema
from training.compare.rows import align_frames, auroc_of, counts_of, drawn_of, truth_of, within
from training.compare.runs import Missing, Run, Test
from training.evaluate import metrics
from training.evaluate.schema import Counts, Estimate, Figures


def on_same_terms(runs: list[Run], larger: str) -> tuple[schema.OnSameTerms, ...]:
    """Validation and test figures over all sources together, as the original's are."""
    found = []
    for run in sorted(runs, key=lambda run: run.kind != "random"):
        if run.kind == "leaky":  # trained on half of each test case
            continue
        if run.held == HeldOut() and run.held_out is not None:
            found.append(_on_validation(run, run.held_out, larger))
        if run.test:
            found.append(_on_test(run, run.test))
    if not found:
        raise Missing("no run holds out the validation part, and none was evaluated on test")
    return tuple(found)


def _on_validation(run: Run, frame: pd.DataFrame, larger: str) -> schema.OnSameTerms:
    auroc = auroc_of(within(frame, larger))
    return _same_terms(run, "validation", counts_of(frame), _figures(run, frame), auroc)


def _on_test(run: Run, test: Test) -> schema.OnSameTerms:
    metrics = test.metrics
    auroc = test.within.figures["auroc"]
    return _same_terms(run, "test", metrics.data.counts, metrics.overall, auroc)


def _same_terms(
    run: Run, part: str, counts: Counts, figures: Figures, auroc_within: Estimate
) -> schema.OnSameTerms:
    return schema.OnSameTerms(
        run=run.name,
        backbone=run.backbone,
        arm=run.plan.arm,
        learnt=run.learnt,
        split=run.kind,
        part=part,
        counts=counts,
        figures=figures,
        auroc_within=auroc_within,
    )


def tested(runs: list[Run]) -> tuple[schema.Tested, ...]:
    """Test figures of the grouped runs."""
    found = tuple(
        schema.Tested(
            run=run.name,
            backbone=run.backbone,
            arm=run.plan.arm,
            learnt=run.learnt,
            within=test.within,
        )
        for run, test in _evaluated_runs(runs, "grouped")
    )
    if not found:
        raise Missing("no run on the grouped split was evaluated on test")
    return found


def _evaluated_runs(runs: list[Run], kind: str) -> list[tuple[Run, Test]]:
    return [(run, run.test) for run in runs if run.kind == kind and run.test]


def pairs(runs: list[Run], larger: str) -> tuple[schema.Pair, ...]:
    """EfficientNet-B2 minus MobileNetV2, of equal arms or where there is one of each."""
    light, heavy = (
        [found for found in _evaluated_runs(runs, "grouped") if found[0].plan.backbone == name]
        for name in ("mobilenetv2", "efficientnet_b2")
    )
    alone = len(light) == len(heavy) == 1
    alike = [
        _pair(*ours, *theirs, larger)
        for ours in heavy
        for theirs in light
        if alone or _arm(ours[0]) == _arm(theirs[0])
    ]
    if not alike:
        raise Missing("no two backbones of one arm were evaluated on the grouped test part")
    return tuple(alike)


def _arm(run: Run) -> tuple[str, HeldOut]:
    return run.plan.arm, run.held


def _pair(ours: Run, one: Test, theirs: Run, other: Test, larger: str) -> schema.Pair:
    frames = align_frames([within(test.frame, larger) for test in (one, other)])
    return schema.Pair(
        run=ours.name,
        other=theirs.name,
        counts=counts_of(frames[0]),
        differences=_differences(ours, frames[0], theirs, frames[1]),
    )


def _said(run: Run, frame: pd.DataFrame) -> tuple[metrics.Floats, float]:
    return frame["probability"].to_numpy(np.float64), run.threshold


def _figures(run: Run, frame: pd.DataFrame) -> Figures:
    found = metrics.with_intervals(truth_of(frame), *_said(run, frame), drawn_of(frame))
    return Figures.model_validate(found)


def _differences(ours: Run, one: pd.DataFrame, theirs: Run, other: pd.DataFrame) -> Figures:
    gaps = metrics.differences(truth_of(one), _said(ours, one), _said(theirs, other), drawn_of(one))
    return Figures.model_validate(gaps)
