"""From a corpus to published models by one command, killed in between and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bcd_models import BCDClassifier
from tests.conftest import ROOT
from tests.support.processes import running
from training.card import write as card
from training.compare.schema import Report
from training.study.plan import read_plan

SMOKE = ROOT / "tests" / "support" / "smoke"
FIRST = "mobilenetv2/plain/seed-0-fold-0: answers"


def command(corpus: Path, out: Path, *more: object) -> list[str]:
    asked = ["--corpus", str(corpus), "--out", str(out), "--plan", str(SMOKE / "study.yaml")]
    return [sys.executable, "-m", "training.study", *asked, *map(str, more)]


def run(asked: list[str]) -> list[str]:
    """Run a command to its end; returns the lines that it prints."""
    ended = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_study_of_a_miniature_corpus(corpus_folder: Path, tmp_path: Path) -> None:
    out, cards, records = (tmp_path / name for name in ("study", "cards", "records"))
    one_by_one = command(corpus_folder, tmp_path / "elsewhere", "--next", "--records", records)
    for name in ("mobilenetv2: tuning", FIRST):
        assert run(one_by_one)[-1] == f"done: {name}"

    whole = command(corpus_folder, out, "--cards", cards, "--records", records, "--workers", 2)
    with running(whole, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        steps = (line.strip() for line in first.stdout if line.startswith("=="))
        begun = [next(steps), next(steps)]
        os.killpg(first.pid, signal.SIGKILL)
    assert begun == [
        "== mobilenetv2, plain, seed 1, fold 0",  # the recorded one isn't trained again
        "== mobilenetv2/plain/seed-1-fold-0: answers",
    ]
    assert next(line for line in run(whole) if line.startswith("==")) == begun[1]
    recorded = out / "runs" / "mobilenetv2" / "plain" / "seed-0-fold-0"
    assert not (recorded / "model" / "model.safetensors").exists()

    report = Report.model_validate_json((cards / "report.json").read_bytes())
    lines = [(line.backbone, line.arm, line.seed, line.folds) for line in report.out_of_fold]
    floor = ("colour statistics", "floor", 0, (0, 1, 2, 3, 4))
    heavy, light = ("EfficientNet-B2", "plain", 0, (0,)), ("MobileNetV2", "plain", 0, (0,))
    assert sorted(lines) == sorted([heavy, light, ("MobileNetV2", "plain", 1, (0,)), floor])
    assert {line.backbone for line in report.tested} == {"MobileNetV2", "EfficientNet-B2"}
    assert len(report.pairs) == 1
    assert set(report.missing) == {"asked"}  # one fold calibrates no other
    for name in ("bcd-mobilenetv2", "bcd-efficientnet-b2"):
        folder = cards / name
        model = BCDClassifier.from_pretrained(folder)
        assert model.config.provenance.split == "grouped"
        assert model.config.provenance.held_out.nothing
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["model"]["weights_sha256"] == model.weights_sha256
        assert (folder / "README.md").read_text() == card.render(folder)

    again = run(command(corpus_folder, out, "--cards", cards))
    assert [line for line in again if line.startswith("==")] == [
        "== the comparison",  # of the folds, which points and neighbours rest on
        "== the comparison",  # with the test part
        "== the model folders",
    ]
    assert run(command(corpus_folder, out, "--next", "--records", records)) == [
        f"0 runs from {records}",
        "nothing is missing",
    ]
    assert len(list(records.glob("runs/*/*/*/answers.parquet"))) == 3


def test_the_plan_of_the_full_corpora_is_one() -> None:
    assert read_plan(SMOKE / "full_size.yaml").arms[0].refit
