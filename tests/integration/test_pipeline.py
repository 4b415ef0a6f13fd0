"""From a corpus to published models by one command, killed in between and gone on with."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bcd_models import BCDClassifier
from tests.conftest import ROOT
from tests.support import synthetic
from tests.support.processes import running
from training.card import write as card
from training.compare.schema import Report
from training.corpus import build as corpus
from training.evaluate.suitability import page as suitability
from training.study import slides
from training.study.plan import read_plan

SMOKE = ROOT / "tests" / "support" / "smoke"
FIRST = "mobilenetv2/plain/seed-0-fold-0: answers"


def command(corpus: Path, out: Path, *more: object) -> list[str]:
    asked = ["--corpus", str(corpus), "--out", str(out), "--plan", str(SMOKE / "study.yaml")]
    return [sys.executable, "-m", "training.study", *asked, *map(str, more)]


def run(asked: list[str], code: int = 0) -> list[str]:
    """Run a command to its end; returns the lines that it prints."""
    ended = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr[-2000:]
    return (ended.stdout if code == 0 else ended.stderr).splitlines()


def find_steps(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("==")]


@pytest.fixture(scope="module")
def whole_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of whole cases, with enough patients of a microscope's camera to measure."""
    folder = tmp_path_factory.mktemp("whole")
    idc = synthetic.idc_zip(folder / "idc.zip", cases=24, patches_per_case=49, seed=3)
    breakhis = synthetic.breakhis_tar(
        folder / "breakhis.tar.gz", patients_per_class=10, images_per_patient=1, size=(140, 92)
    )
    corpus.build({"idc": [idc], "breakhis": [breakhis]}, folder / "corpus", processes=1)
    return folder / "corpus"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_study_of_a_miniature_corpus(whole_corpus: Path, tmp_path: Path) -> None:
    out, cards, records = (tmp_path / name for name in ("study", "cards", "records"))
    one_by_one = command(whole_corpus, tmp_path / "elsewhere", "--next", "--records", records)
    for name in ("mobilenetv2: tuning", FIRST):
        assert run(one_by_one)[-1] == f"done: {name}"

    readme, page = tmp_path / "README.md", tmp_path / "slides.md"
    readme.write_text(f"# Results\n\n{card.RESULTS_BEGIN}\n{card.RESULTS_END}\n")
    page.write_text(f"# Slides\n\n{slides.BEGIN}\n{slides.END}\n")
    pages = ("--cards", cards, "--readme", readme, "--slides-page", page)
    whole = command(whole_corpus, out, *pages, "--records", records)
    with running(whole, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        steps = (line.strip() for line in first.stdout if line.startswith("=="))
        begun = [next(steps), next(steps)]
        os.killpg(first.pid, signal.SIGKILL)
    assert begun == [
        "== mobilenetv2, plain, seed 0, fold 1",  # the recorded one isn't trained again
        "== mobilenetv2/plain/seed-0-fold-1: answers",
    ]
    recorded = out / "runs" / "mobilenetv2" / "plain" / "seed-0-fold-0"
    stopped = run([*whole, "--workers", "2"], code=2)
    assert any(f"{recorded} has no weights, and slides are mapped" in line for line in stopped)
    assert not (recorded / "model" / "model.safetensors").exists()
    assert not cards.exists()

    shutil.rmtree(recorded)
    again = find_steps(run(command(whole_corpus, out, *pages)))
    assert again[:2] == ["== mobilenetv2, plain, seed 0, fold 0", f"== {FIRST}"]
    assert "== whole cases as slides" in again
    assert again[-2:] == ["== the comparison", "== the model folders"]
    assert "== mobilenetv2, plain, all" not in again

    report = Report.model_validate_json((cards / "report.json").read_bytes())
    lines = [(line.backbone, line.arm, line.seed, line.folds) for line in report.out_of_fold]
    floor = ("colour statistics", "floor", 0, (0, 1, 2, 3, 4))
    heavy, light = ("EfficientNet-B2", "plain", 0, (0,)), ("MobileNetV2", "plain", 0, (0, 1, 2))
    assert sorted(lines) == sorted([heavy, light, floor])
    assert {line.backbone for line in report.tested} == {"MobileNetV2", "EfficientNet-B2"}
    assert len(report.pairs) == 1
    assert [one.arm for one in report.asked] == ["mobilenetv2/plain, seed 0"]
    gate = suitability.load(cards / suitability.FILE).gate
    for name in ("bcd-mobilenetv2", "bcd-efficientnet-b2"):
        folder = cards / name
        model = BCDClassifier.from_pretrained(folder)
        assert model.config.provenance.split == "grouped"
        assert model.config.provenance.held_out.nothing
        assert model.suitability == gate
        for file in folder.glob("*.json"):
            weights = re.findall(r'"weights_sha256": "([0-9a-f]+)"', file.read_text())
            assert set(weights) == {model.weights_sha256}, file
        text = (folder / "README.md").read_text()
        assert text == card.render(folder)
        assert "### When images grow worse" in text
    light_model = BCDClassifier.from_pretrained(cards / "bcd-mobilenetv2")
    assert light_model.cameras is not None
    assert light_model.cameras.source == "breakhis"
    stored = slides.read(out / slides.FILE)
    assert stored.cases
    assert slides.tabulate(stored) in page.read_text()
    assert card.tabulate_results([cards / "bcd-mobilenetv2"]).splitlines()[2] in readme.read_text()

    before = {path: path.read_bytes() for path in cards.rglob("*") if path.is_file()}
    assert find_steps(run(command(whole_corpus, out, *pages))) == []
    (cards / "bcd-mobilenetv2" / "README.md").write_text("Something else.")
    assert find_steps(run(command(whole_corpus, out, *pages))) == ["== the model folders"]
    assert {path: path.read_bytes() for path in cards.rglob("*") if path.is_file()} == before
    assert run(command(whole_corpus, out, "--next", "--records", records)) == [
        f"0 runs from {records}",
        "nothing is missing",
    ]
    assert len(list(records.glob("runs/*/*/*/answers.parquet"))) == 4


def test_the_plan_of_the_full_corpora_is_one() -> None:
    assert read_plan(SMOKE / "full_size.yaml").arms[0].refit
