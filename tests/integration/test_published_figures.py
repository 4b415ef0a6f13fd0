"""What README and cards say is what metrics.json says, of the very weights beside it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bcd_models.hub import folder as model_folder
from bcd_models.prediction import NOTICE
from tests.benchmarks.record import put_table
from tests.conftest import CARDS, MODELS, ROOT
from training.card import write as card

ASKED = {"0.92", "0.85", "0.93", "0.86"}  # of the study, before it began
STUDY = CARDS / "study" / "0.2.0"
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", MODELS)
def test_card_is_what_its_figures_make(name: str) -> None:
    text = (CARDS / name / "README.md").read_text()
    assert text == card.render(CARDS / name)
    assert NOTICE in text
    gate, decisions = (
        json.loads((CARDS / file).read_text())
        for file in ("suitability.json", f"{name}/decisions.json")
    )
    config = json.loads((CARDS / name / "config.json").read_text())["bcd"]
    assert config["suitability"] == gate["gate"]
    points = config["decision"]["points"]
    assert points == {key: one["point"] for key, one in decisions["points"].items()}
    # What model, card and README do is what the headline promises, by default and at each point.
    bands = {
        key: next(promise["refer"] for promise in one["promises"] if promise["alpha"] == 0.05)
        for key, one in decisions["points"].items()
    }
    assert {key: point["refer"] for key, point in points.items()} == bands
    assert config["decision"]["refer"] == bands["balanced"]
    for page in (text, README):
        assert (
            f"| real patches of unseen cases, 10,000 | {gate['tissue'][0]['refused']:.2%} |" in page
        )
        (headline,) = (
            one for one in decisions["points"]["balanced"]["promises"] if one["alpha"] == 0.05
        )
        band = "{:.3f} to {:.3f}".format(*headline["refer"])
        assert f"| 5% | {band} | {headline['realised']['referred']:.1%} |" in page
        assert "nothing for another hospital until `bcd validate`" in page
    assert (
        "![Share wrong of the decided, over the share that is decided](risk-coverage.png)" in text
    )
    metrics = json.loads((CARDS / name / "metrics.json").read_text())
    assert metrics["data"]["split"] == "grouped"
    assert metrics["data"]["part"] == "test"
    assert (CARDS / name / "evaluation-test.png").is_file()


def test_readme_table_is_what_the_figures_make() -> None:
    results = card.tabulate_results([CARDS / name for name in MODELS])
    assert card.put_results(README, results) == README


def test_every_figure_said_of_the_study_is_one_of_its_report() -> None:
    files = [STUDY / "report.json", *(CARDS / name / "metrics.json" for name in MODELS)]
    found = {float(n) for file in files for n in re.findall(r"-?\d+\.\d+", file.read_text())}
    known = {form.format(number) for number in found for form in ("{:.3f}", "{:+.3f}", "{:.1%}")}
    known |= {f"{number:.1f}" for number in found}
    said = re.findall(
        r"(?<![\w.])[+-]?\d+\.\d+%?(?![\w.])", (ROOT / "docs" / "study.md").read_text()
    )
    assert len(said) > 30
    assert [number for number in said if number not in known | ASKED] == []


def test_the_bench_table_is_what_was_measured() -> None:
    assert put_table(README) == README


@pytest.mark.parametrize("name", MODELS)
def test_every_file_of_figures_names_the_weights_beside_it(name: str) -> None:
    _, sha256 = model_folder.read_weights(CARDS / name)
    files = sorted((CARDS / name).glob("*.json"))
    assert len(files) > 2
    for file in files:
        named = re.findall(r'"weights_sha256": "([0-9a-f]+)"', file.read_text())
        assert set(named) == {sha256}, file


def test_validation_is_of_the_published_weights() -> None:
    (found,) = re.findall(
        r'"weights_sha256": "([0-9a-f]+)"', (ROOT / "docs" / "validation.json").read_text()
    )
    assert found in {model_folder.read_weights(CARDS / name)[1] for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_says_of_microscope_cameras_stands_in_its_card(name: str) -> None:
    cameras = model_folder.read_config(CARDS / name).cameras
    assert cameras is not None
    assert not cameras.is_enough
    text = (CARDS / name / "README.md").read_text()
    found = cameras.auroc and card.describe_estimate(cameras.auroc.model_dump())
    assert (f"AUROC {found}" if found else "AUROC was not measured") in text
    assert "**not validated for microscope cameras**" in text


@pytest.mark.slow
def test_readmes_python_runs(tmp_path: Path) -> None:
    first, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for name in ("cards", "space"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-c", first], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "carcinoma" in done.stdout or "refer" in done.stdout
    assert (tmp_path / "overlay.png").is_file()


def test_readmes_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 5
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []
