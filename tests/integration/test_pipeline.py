"""From a corpus to published models by one command, killed in between and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bcd_models import BCDClassifier
from bcd_models.errors import InputError
from tests.conftest import ROOT
from tests.support.processes import running
from training.card import write as card
from training.compare.schema import Report
from training.study import stages as pipeline
from training.study.plan import read_plan

SMOKE = ROOT / "tests" / "support" / "smoke"


def command(corpus: Path, out: Path, cards: Path, workers: int) -> list[str]:
    asked = ["--corpus", str(corpus), "--out", str(out), "--cards", str(cards)]
    asked += ["--plan", str(SMOKE / "study.yaml"), "--workers", str(workers)]
    return [sys.executable, "-m", "training.study", *asked]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_study_of_a_miniature_corpus(corpus_folder: Path, tmp_path: Path) -> None:
    out, cards = tmp_path / "study", tmp_path / "cards"
    with running(
        command(corpus_folder, out, cards, workers=2),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        begun = [line.strip() for line, _ in zip(first.stdout, range(3), strict=False)]
        os.killpg(first.pid, signal.SIGKILL)
    assert begun[:2] == ["== mobilenetv2: study", "== efficientnet_b2: study"]
    second = subprocess.run(
        command(corpus_folder, out, cards, workers=2), cwd=ROOT, capture_output=True, text=True
    )
    assert second.returncode == 0, second.stderr[-2000:]
    report = Report.model_validate_json((cards / "report.json").read_bytes())
    assert report.square
    assert len(report.tested) >= 2
    arms = {(line.backbone, line.arm): line.folds for line in report.out_of_fold}
    assert arms["MobileNetV2", "plain"] == (0, 1)
    assert arms["MobileNetV2", "eight views"] == arms["EfficientNet-B2", "no balance"] == (0,)
    assert {line.split for line in report.on_same_terms} == {"grouped", "random"}
    (curve,) = report.learning_curves
    assert [(point.learnt_share, point.folds) for point in curve.points] == [(0.5, (0,)), (1, (0,))]
    assert len(report.neighbours) == 1
    assert report.missing == {}
    for name in ("bcd-mobilenetv2", "bcd-efficientnet-b2"):
        folder = cards / name
        model = BCDClassifier.from_pretrained(folder)
        assert model.config.provenance.split == "grouped"
        assert model.config.provenance.held_out.nothing
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["model"]["weights_sha256"] == model.weights_sha256
        assert (folder / "README.md").read_text() == card.render(folder)
    again = subprocess.run(
        command(corpus_folder, out, cards, workers=1), cwd=ROOT, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert [line for line in again.stdout.splitlines() if line.startswith("==")] == [
        "== each change alone, and the tuned recipes",
        "== the changes together",
        "== the comparison",
        "== the model folders",
    ]


def test_every_change_of_the_plan_makes_a_recipe() -> None:
    plan, recipes = read_plan(pipeline.PLAN)
    study = pipeline.Study(plan, recipes, Path(), Path(), None, None, None)
    arms = pipeline.list_single_changes(study)
    assert len({(arm.backbone, arm.arm) for arm in arms}) == len(plan.changes) > 10
    for arm, change in zip(arms, plan.changes, strict=True):
        assert arm.backbone == (change.backbone or "mobilenetv2")
        plain = recipes[arm.backbone]
        assert arm.model_copy(update={"arm": plain.arm}) != plain


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"trails": 3}, "trails"),
        ({"trials": 0}, "trials"),
        ({"recipes": []}, "recipes"),
        ({"change_folds": []}, "change_folds"),
        ({"change_folds": [0, 2]}, "change_folds: .*name some of folds"),
        ({"folds": [1, 2], "change_folds": [0]}, "change_folds: .*name some of folds"),
        (
            {"changes": [{"arm": "a", "set": {"ema": 0.9}, "backbone": "resnet"}]},
            r"changes\.0\.backbone: no recipe is of 'resnet': choose from mobilenetv2, ",
        ),
    ],
)
def test_a_wrong_plan_is_refused_by_key(
    tmp_path: Path, change: dict[str, object], key: str
) -> None:
    shutil.copytree(SMOKE, tmp_path / "plan")
    path = tmp_path / "plan" / "study.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(InputError, match=key):
        read_plan(path)
