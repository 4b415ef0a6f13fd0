"""From a corpus to published models by one command, killed in between and gone on with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bcd_models import BCDClassifier
from tests.conftest import ROOT
from training import card, pipeline
from training.comparison.schema import Report

SMOKE = ROOT / "tests" / "support" / "smoke"


def command(corpus: Path, out: Path, cards: Path) -> list[str]:
    where = ["--corpus", str(corpus), "--out", str(out), "--cards", str(cards)]
    return [sys.executable, "-m", "training.pipeline", "--plan", str(SMOKE / "study.yaml"), *where]


@pytest.mark.slow
def test_the_whole_study_of_a_miniature_corpus(corpus_folder: Path, tmp_path: Path) -> None:
    out, cards = tmp_path / "study", tmp_path / "cards"
    with subprocess.Popen(
        command(corpus_folder, out, cards), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert [line for line, _ in zip(first.stdout, range(2), strict=False)]
        first.kill()
    second = subprocess.run(
        command(corpus_folder, out, cards), cwd=ROOT, capture_output=True, text=True
    )
    assert second.returncode == 0, second.stderr[-2000:]
    report = Report.model_validate_json((cards / "report.json").read_bytes())
    assert report.square
    assert len(report.tested) >= 2
    assert {line.arm for line in report.out_of_fold} >= {"plain", "tuned", "eight views"}
    assert len(report.leaks) == 1
    assert (cards / "report.md").read_text()
    for name in ("bcd-mobilenetv2", "bcd-efficientnet-b2"):
        folder = cards / name
        model = BCDClassifier.from_pretrained(folder)
        assert model.config.provenance.split == "grouped, train and validation"
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["model"]["weights_sha256"] == model.weights_sha256
        assert (folder / "README.md").read_text() == card.render(folder)
    again = subprocess.run(
        command(corpus_folder, out, cards), cwd=ROOT, capture_output=True, text=True
    )
    done_again = [line for line in again.stdout.splitlines() if line.startswith("==")]
    assert all("chang" in line or "compar" in line or "model" in line for line in done_again)


def test_every_change_of_the_plan_makes_a_recipe() -> None:
    plan, recipes = pipeline.read_plan(pipeline.PLAN)
    study = pipeline.Study(plan, recipes, Path(), Path(), None, None, None)
    arms = list(pipeline.single_changes(study))
    assert len({arm.arm for arm in arms}) == len(plan.changes) > 10
    plain = next(iter(recipes.values()))
    for arm in arms:
        assert arm.model_copy(update={"arm": plain.arm}) != plain


@pytest.mark.parametrize(
    ("change", "key"),
    [({"trails": 3}, "trails"), ({"seeds": 1}, "seeds"), ({"recipes": []}, "recipes")],
)
def test_a_wrong_plan_is_refused_by_key(
    tmp_path: Path, change: dict[str, object], key: str
) -> None:
    shutil.copytree(SMOKE, tmp_path / "plan")
    path = tmp_path / "plan" / "study.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(pipeline.InputError, match=key):
        pipeline.read_plan(path)
