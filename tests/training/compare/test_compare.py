"""Comparisons of run folders made by hand, where every number can be worked out."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from bcd_models import BCDClassifier
from bcd_models.config import DecisionConfig, ModelConfig, PreprocessConfig, Provenance
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.local.metrics import METRICS, Metric
from bcd_models.models import backbones
from bcd_models.prediction import NOTICE
from tests.conftest import CARDS, MODELS
from training import command, run_folder
from training.card import write as card
from training.compare import page as report_page
from training.compare import report as compare
from training.compare import schema
from training.corpus import predictions
from training.evaluate import cost
from training.evaluate import measure as evaluate
from training.evaluate import schema as measured
from training.recipes import schema as recipe
from training.train import run as train

BACKBONES = {name: backbones.BACKBONES[name] for name in ("mobilenetv2", "efficientnet_b2")}

RECIPE: dict[str, Any] = {
    "name": "bcd-small",
    "version": "0.0.1",
    "start": "none",
    "phases": [{"size": 32, "epochs": 2}],
}
DECISION = DecisionConfig(threshold=0.45, refer=(0.4, 0.5))
CASES, EACH = 60, 8


@cache
def tissue() -> pd.DataFrame:
    """What the corpus of all these runs holds: 60 cases of IDC, 4 of BreaKHis."""
    rng = np.random.default_rng(5)
    cases = [f"idc/{i}" for i in range(CASES)] + [f"breakhis/{i}" for i in range(4)]
    frame = pd.DataFrame({"case_id": np.repeat(cases, EACH)})
    frame["source"] = frame["case_id"].str.partition("/")[0]
    malignant = rng.random(len(frame)) < 0.4
    of_case = (frame["case_id"].str[-1].astype(int) % 2 == 1).to_numpy()
    malignant = np.where(frame["source"] == "idc", malignant, of_case)
    frame["label"] = np.where(malignant, "malignant", "benign")
    frame["magnification"] = np.where(frame["source"] == "idc", "", "40")
    frame["sha256"] = [f"{i:064x}" for i in range(len(frame))]
    frame["name"] = frame["sha256"].str[-6:] + ".png"
    return frame


def select_rows(first: int, last: int, source: str = "idc") -> pd.DataFrame:
    cases = [f"{source}/{i}" for i in range(first, last)]
    frame = tissue()
    return frame[frame["case_id"].isin(cases)].reset_index(drop=True)


FOLDS = [select_rows(10 * k, 10 * k + 10) for k in range(5)]
TEST = select_rows(48, 60)
SMOKE = pd.concat([select_rows(0, 4, "breakhis")], ignore_index=True)


def margins_of(frame: pd.DataFrame, skill: float, seed: int) -> np.ndarray:
    """Margins that tell the labels apart the better, the more skill; of an image, always equal."""
    noise = [np.random.default_rng((seed, int(image, 16))).normal() for image in frame["sha256"]]
    return skill * ((frame["label"] == "malignant") - 0.5) * 2 + np.array(noise)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model folder of each backbone, of random weights."""
    above = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    preprocess = PreprocessConfig(input_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    for name in BACKBONES:
        config = ModelConfig(
            name="bcd-small",
            version="0.0.1",
            backbone=name,
            preprocess=preprocess,
            decision=DECISION,
        )
        BCDClassifier(config).save_pretrained(above / name)
    return {name: above / name for name in BACKBONES}


class Bench:
    """Writes run folders as ``training.train`` and ``training.evaluate`` leave them."""

    def __init__(self, folder: Path, models: dict[str, Path]) -> None:
        self.folder, self.models = folder, models
        self.runs: list[Path] = []

    def run(
        self,
        name: str,
        split: str,
        held_out: pd.DataFrame | None = None,
        test: pd.DataFrame | None = None,
        *,
        backbone: str = "mobilenetv2",
        skill: float = 1.0,
        seed: int = 0,
        seconds: float = 2.5,
        provenance: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        run = self.folder / name
        run.mkdir(parents=True)
        kind = split.split(",")[0]
        plan = recipe.Recipe.model_validate(
            RECIPE | {"backbone": backbone, "split": kind, "seed": seed} | changes
        )
        (run / run_folder.RECIPE).write_text(yaml.safe_dump(plan.model_dump(mode="json")))
        about = {"corpus": "idc: 480", "corpus_fingerprint": "c0ffee", "split": split}
        described = Provenance.model_validate(about | (provenance or {}))
        (run / run_folder.RUN_FILE).write_text(described.model_dump_json())
        line = json.dumps({"epoch": 1, "seconds": seconds})
        (run / "epochs.jsonl").write_text(f"{line}\n{line}\n")
        shutil.copytree(self.models[backbone], run / run_folder.MODEL)
        if held_out is not None:
            said(held_out, skill, seed, run / run_folder.PREDICTIONS)
        if test is not None:
            said(test, skill, seed, run / "predictions-test.parquet")
            self.measure(run, kind, test, skill, seed)
        self.runs.append(run)
        return run

    def measure(self, run: Path, kind: str, test: pd.DataFrame, skill: float, seed: int) -> None:
        margins = margins_of(test, skill, seed)
        scored = test.assign(
            margin=margins,
            probability=calibrate(margins, DECISION),
            source_alone=0.4,
            colour_statistics=margins_of(test, 0.5, seed=99),
        )
        counts = {"images": 300, "cases": 40, "benign": 200, "malignant": 100}
        whole = evaluate._measure(scored, DECISION, "overall")
        inner = evaluate._measure(scored[scored["source"] == "idc"], DECISION, "figures")
        document = measured.Metrics.model_validate(
            {
                "schema_version": 1,
                "model": {
                    "name": "bcd-small",
                    "version": "0.0.1",
                    "weights_sha256": model_folder.read_weights(run / "model")[1],
                    "threshold": DECISION.threshold,
                },
                "data": {
                    "corpus_fingerprint": "c0ffee",
                    "split": kind,
                    "split_sha256": "",
                    "part": "test",
                    "counts": counts | {"images": len(test)},
                    "train_counts": counts,
                    "only_trained_on": {},
                },
                "intervals": "95%",
                **whole,
                "per_source": {},
                "per_magnification": {},
                "within": {"source": "idc", "counts": counts, **inner},
                "notice": NOTICE,
            }
        )
        (run / "metrics-test.json").write_text(document.model_dump_json())


def said(frame: pd.DataFrame, skill: float, seed: int, path: Path) -> None:
    margins = margins_of(frame, skill, seed)
    predictions.write(frame, margins, calibrate(margins, DECISION), path)


@pytest.fixture
def bench(tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(cost, "_seconds", lambda _model, _images: 0.01)
    return Bench(tmp_path / "runs", models)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> Bench:
    """A whole study: everything that a comparison has a section for."""
    study = Bench(tmp_path_factory.mktemp("study"), models)
    for backbone, gain in {"mobilenetv2": 0.0, "efficientnet_b2": 0.2}.items():
        own: dict[str, Any] = {"backbone": backbone}
        for fold in range(2):
            where, held = f"grouped, fold {fold}", FOLDS[fold]
            study.run(f"{backbone}/plain-{fold}", where, held, **own, skill=0.9 + gain)
            study.run(
                f"{backbone}/tuned-{fold}", where, held, **own, skill=1.3, arm="tuned", dropout=0.1
            )
        study.run(f"{backbone}/final", "grouped, train and validation", test=TEST, **own)
        study.run(f"{backbone}/grouped", "grouped", FOLDS[3], TEST, **own, skill=0.9 + gain)
        mixed = pd.concat([FOLDS[4], SMOKE], ignore_index=True)
        study.run(f"{backbone}/random", "random", mixed, **own, skill=1.5)
        study.run(f"{backbone}/out", "grouped, without breakhis/1", SMOKE, **own, skill=2)
    return study


@pytest.fixture(scope="module")
def report(study: Bench) -> schema.Report:
    return compare.compare(study.runs)


def test_the_command_writes_report_page_and_figures(
    study: Bench, report: schema.Report, tmp_path: Path, capsys
) -> None:
    compare.write(report, tmp_path / "report")
    names = {path.name for path in (tmp_path / "report").iterdir()}
    pictures = {
        "test-auroc.png",
        "out-of-fold-differences.png",
    }
    assert names == {"report.json", "report.md", *pictures}
    page = (tmp_path / "report" / "report.md").read_text()
    assert set(re.findall(r"\]\((.*?)\)", page)) == pictures
    for name in pictures:
        with Image.open(tmp_path / "report" / name) as image:
            assert image.width == 990

    few = [str(run) for run in study.runs if run.name == "random"]
    with pytest.raises(SystemExit) as end:
        command.run(compare.main, [*few, "--out", str(tmp_path / "report")])
    assert end.value.code == 0
    assert "left out: Test figures: no run on the grouped split" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"report.json", "report.md"}


def halved(value: Any) -> Any:
    """The same document with half of every number that is no count."""
    if isinstance(value, dict):
        return {key: halved(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [halved(inner) for inner in value]
    return value / 2 if isinstance(value, float) else value


def test_the_page_is_made_of_the_report_alone(report: schema.Report) -> None:
    document = json.loads(report.model_dump_json())
    same, other = (
        report_page.render(schema.Report.model_validate_json(json.dumps(found)))
        for found in (document, halved(document))
    )
    assert same == report_page.render(report)
    cells, others = (
        [cell for line in page.splitlines() if line[:1] == "|" for cell in line.split("|")]
        for page in (same, other)
    )
    estimates = [
        (cell, half)
        for cell, half in zip(cells, others, strict=True)
        if re.search(r"\d\.\d.* to ", cell) and re.search("[1-9]", cell)
    ]
    assert len(estimates) > 100
    assert all(cell != half for cell, half in estimates)


def test_every_number_of_the_page_is_in_the_report(report: schema.Report) -> None:
    numbers = re.findall(r"-?\d+(?:\.\d+)?%?", report.model_dump_json())
    known = {form(float(n.strip("%"))) for n in numbers for form in FORMS} | set(numbers)
    known |= {str(len(one.folds)) for one in report.out_of_fold}
    page = report_page.render(report).replace(",", "").replace("+", "")
    for words in sorted((m.words for m in METRICS.values()), key=len, reverse=True):
        page = page.replace(words, "")
    written = re.findall(r"(?<![\w.`/-])-?\d+(?:\.\d+)?%?(?![\w`/])", page)
    assert len(written) > 300
    assert [number for number in written if number not in known] == []


FORMS = (
    lambda x: f"{x:.3f}",
    lambda x: f"{x:.1f}",
    lambda x: f"{x:.0f}",
    lambda x: f"{x:.1%}",
    lambda x: f"{x:.2%}",
    lambda x: f"{100 * x:.1f}%",
)


def test_notice_words_and_claims(report: schema.Report) -> None:
    page = report_page.render(report)
    assert page.count(NOTICE) == 2
    assert "invasive carcinoma" in page
    for claimed in ("87.78%", "85.91%", "14.09%", "92.15%", "91.28%", "8.72%"):
        assert claimed in page
    assert set(report.missing) == {"asked"}  # no corpus was named


def test_the_random_split_stands_on_the_page(bench: Bench) -> None:
    bench.run("random", "random", FOLDS[4], skill=1.5)
    bench.run("grouped", "grouped", FOLDS[3], TEST)
    found = compare.compare(bench.runs)
    by_hand = roc_auc_score(FOLDS[4]["label"], margins_of(FOLDS[4], 1.5, 0))
    lines = report_page.render(found).splitlines()
    (line,) = [line for line in lines if "| random, validation | 80 |" in line]
    assert line.split(" | ")[-1].startswith(f"{by_hand:.3f} (")


def test_ours_are_measured_on_the_originals_terms(report: schema.Report) -> None:
    found = {(one.run, one.part): one for one in report.on_same_terms}
    random = found["mobilenetv2/random", "validation"]
    frame = pd.concat([FOLDS[4], SMOKE], ignore_index=True)
    truth = frame["label"] == "malignant"
    called = calibrate(margins_of(frame, 1.5, 0), DECISION) >= DECISION.threshold
    assert random.counts.images == 112
    assert random.figures["accuracy"].value == pytest.approx((called == truth).mean())
    assert random.figures["false_negative_rate"].value == pytest.approx(1 - called[truth].mean())
    inner = margins_of(FOLDS[4], 1.5, 0)
    assert random.auroc_within.value == roc_auc_score(FOLDS[4]["label"], inner)
    assert ("mobilenetv2/grouped", "validation") in found
    assert ("mobilenetv2/final", "test") in found


def test_folds_are_pooled_and_paired_with_plain(report: schema.Report) -> None:
    found = {(one.backbone, one.arm): one for one in report.out_of_fold}
    assert set(found) == {(b.title, arm) for b in BACKBONES.values() for arm in ("plain", "tuned")}
    tuned = found["MobileNetV2", "tuned"]
    rows = pd.concat(FOLDS[:2])
    values = [roc_auc_score(rows["label"], margins_of(rows, skill, 0)) for skill in (1.3, 0.9)]
    assert tuned.folds == (0, 1)
    assert tuned.counts.images == tuned.paired_images == 160
    assert tuned.auroc.value == pytest.approx(values[0])
    assert tuned.minus_plain is not None
    assert tuned.minus_plain.value == pytest.approx(values[0] - values[1])
    assert found["MobileNetV2", "plain"].minus_plain is None


def test_arms_stand_beside_the_colour_floor(bench: Bench, tmp_path: Path) -> None:
    for fold in (0, 1):
        bench.run(f"plain-{fold}", f"grouped, fold {fold}", FOLDS[fold], skill=1.3)
    rows = pd.concat(FOLDS, ignore_index=True)
    (tmp_path / "floor").mkdir()
    said(rows, 0.4, 7, tmp_path / "floor" / run_folder.PREDICTIONS)
    found = compare.compare(bench.runs, floor_folder=tmp_path / "floor")
    plain, floor = found.out_of_fold
    assert floor.backbone == "colour statistics"
    assert floor.counts.images == len(rows)
    assert floor.auroc.value == pytest.approx(
        roc_auc_score(rows["label"], margins_of(rows, 0.4, 7))
    )
    falls, rises, _ = roc_curve(rows["label"] == "malignant", margins_of(rows, 0.4, 7))
    assert floor.balanced_accuracy.value == pytest.approx((1 + (rises - falls).max()) / 2)
    assert found.hours == pytest.approx(2 * 2 * 2.5 / 3600)  # runs, epochs
    shared = rows["sha256"].isin(pd.concat(FOLDS[:2])["sha256"])
    theirs = roc_auc_score(rows["label"][shared], margins_of(rows, 0.4, 7)[shared])
    assert plain.minus_floor is not None
    assert plain.minus_floor.value == pytest.approx(plain.auroc.value - theirs)


def test_unequal_folds_are_compared_over_the_shared_ones(bench: Bench) -> None:
    for fold in (0, 1, 2):
        bench.run(f"plain-{fold}", f"grouped, fold {fold}", FOLDS[fold])
    bench.run("jitter-1", "grouped, fold 1", FOLDS[1], arm="no jitter", skill=2)
    bench.run("alone-4", "grouped, fold 4", FOLDS[4], arm="alone")
    found = compare.compare(bench.runs)
    plain, jitter, alone = found.out_of_fold
    assert plain.folds == (0, 1, 2)
    assert jitter.paired_images == 80
    assert jitter.minus_plain is not None
    rows = FOLDS[1]
    values = [roc_auc_score(rows["label"], margins_of(rows, skill, 0)) for skill in (2, 1)]
    assert jitter.minus_plain.value == pytest.approx(values[0] - values[1])
    assert alone.minus_plain is None
    page = report_page.render(found)
    assert f"Not made: {found.missing['pairs']}." in page
    assert page.count("Some arms hold other folds than plain") == 1
    equal = compare.compare(bench.runs[:3])
    assert "other folds than plain" not in report_page.render(equal)


def test_backbones_are_paired_by_arm_and_part(report: schema.Report) -> None:
    assert {(pair.run, pair.other) for pair in report.pairs} == {
        ("efficientnet_b2/final", "mobilenetv2/final"),
        ("efficientnet_b2/grouped", "mobilenetv2/grouped"),
    }
    final, grouped = sorted(report.pairs, key=lambda pair: pair.run)
    assert final.differences["auroc"] == measured.Estimate(value=0, low=0, high=0)
    values = [roc_auc_score(TEST["label"], margins_of(TEST, s, 0)) for s in (0.9 + 0.2, 0.9)]
    assert grouped.differences["auroc"].value == pytest.approx(values[0] - values[1])
    assert grouped.counts.images == len(TEST)


def test_multiply_adds_by_hand() -> None:
    convolution = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert cost.count_multiply_adds(convolution, 10) == 10 * 10 * 8 * 3 * 3 * 3
    depthwise = torch.nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    assert cost.count_multiply_adds(depthwise, 10) == 10 * 10 * 3 * 3 * 3


def test_costs_are_of_the_model_folder(report: schema.Report, models) -> None:
    found = {line.backbone: line.cost for line in report.costs}
    assert found["MobileNetV2"].parameters == 2_226_434
    assert found["EfficientNet-B2"].macs > found["MobileNetV2"].macs > 1_000_000
    weights = models["mobilenetv2"] / "model.safetensors"
    assert found["MobileNetV2"].file_bytes == weights.stat().st_size
    assert all(one.latency_ms > 0 and one.throughput > 0 for one in found.values())


def changed(run: Path, name: str, **changes: Any) -> None:
    document = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(document | changes))


def test_runs_that_do_not_belong_together_are_refused(bench: Bench, tmp_path: Path) -> None:
    one = bench.run("a/one", "grouped, fold 0", FOLDS[0])
    cases = {
        "two corpora": {"provenance": {"corpus_fingerprint": "bad"}},
        "of two grouped splits": {"provenance": {"split_sha256": "bad"}},
        "are both arm 'plain' of MobileNetV2 but differ in dropout": {"dropout": 0.3},
        "same arm, seed and fold": {},
    }
    for number, (reason, differs) in enumerate(cases.items()):
        other = bench.run(f"b/{number}", "grouped, fold 0", FOLDS[0], **differs)
        with pytest.raises(InputError, match=reason):
            compare.compare([one, other])
    with pytest.raises(InputError, match="named twice"):
        compare.compare([one, one])


def test_unfinished_and_damaged_runs_are_refused(bench: Bench, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        command.run(compare.main, [str(tmp_path / "none"), "--out", str(tmp_path / "report")])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: recipe ")
    assert not (tmp_path / "report").exists()

    run = bench.run("run", "grouped", FOLDS[0], TEST)
    changed(run, "metrics-test.json", within=None)
    with pytest.raises(InputError, match="lacks the test part within the larger source"):
        compare.compare([run])
    damaged = {
        "metrics-test.json": ("{}", "schema_version: Field required"),
        "predictions-test.parquet": ("text", "can't be read"),
        "predictions.parquet": (None, "can't be read"),
        "model/config.json": (None, r"config\.json"),
        "epochs.jsonl": ("{}", "is no run of training.train: 'seconds'"),
        "run.json": (None, "is no run of training.train"),
    }
    whole = bench.run("whole", "grouped", FOLDS[0], TEST)
    for name, (text, reason) in damaged.items():
        other = shutil.copytree(whole, tmp_path / f"without {Path(name).name}")
        (other / name).unlink() if text is None else (other / name).write_text(text)
        with pytest.raises(InputError, match=reason):
            compare.compare([other])


def test_figures_of_other_weights_are_refused(bench: Bench) -> None:
    run = bench.run("run", "grouped", FOLDS[0], TEST)
    document = json.loads((run / "metrics-test.json").read_text())
    changed(run, "metrics-test.json", model=document["model"] | {"weights_sha256": "other"})
    with pytest.raises(InputError, match="measures other weights"):
        compare.compare([run])


def test_runs_that_share_one_label_can_not_be_compared(bench: Bench) -> None:
    benign = FOLDS[0]["label"] == "benign"
    shared = pd.concat([FOLDS[0][benign], FOLDS[1]], ignore_index=True)
    bench.run("plain", "grouped, fold 0", FOLDS[0])
    bench.run("tuned", "grouped, fold 0", shared, arm="tuned")
    with pytest.raises(InputError, match="do not hold both labels"):
        compare.compare(bench.runs)


def test_runs_without_any_score_are_refused(bench: Bench) -> None:
    run = bench.run("final", "grouped, train and validation")
    with pytest.raises(InputError, match="no run was scored"):
        compare.compare([run])


def test_a_report_has_all_titles(report: schema.Report) -> None:
    page = report_page.render(report)
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert titles == [*report_page.TITLES.values(), "Cost", "Runs", "Limits"]
    assert set(report_page.TITLES) <= set(schema.Report.model_fields)


def test_seeds_of_an_arm_are_lines_of_their_own(bench: Bench) -> None:
    skills = {("plain", 0): 0.8, ("plain", 1): 1.2, ("degraded", 1): 1.0, ("degraded", 2): 1.0}
    for (arm, seed), skill in skills.items():
        name = f"{arm}/seed-{seed}"
        bench.run(name, "grouped, fold 0", FOLDS[0], TEST, arm=arm, skill=skill, seed=seed)
    found = compare.compare(bench.runs)
    lines = {(one.arm, one.seed): one for one in found.out_of_fold}
    assert lines.keys() == skills.keys()
    truth = FOLDS[0]["label"] == "malignant"
    of_seed_1 = [
        roc_auc_score(truth, margins_of(FOLDS[0], skills[arm, 1], 1))
        for arm in ("degraded", "plain")
    ]
    gained = lines["degraded", 1].minus_plain
    assert gained is not None
    assert gained.value == pytest.approx(of_seed_1[0] - of_seed_1[1])
    assert lines["plain", 1].minus_plain is lines["degraded", 2].minus_plain is None
    page = report_page.render(found)
    for words in ("plain", "plain, seed 1", "degraded, seed 1", "degraded, seed 2"):
        assert f"| MobileNetV2 | {words} | 1 (0) |" in page
        assert f" MobileNetV2, {words}, learnt from all but fold 0 |" in page
    assert compare.draw(found).keys() >= {"out-of-fold-differences.png"}


def test_a_name_never_ends_a_cell(bench: Bench) -> None:
    bench.run("plain", "grouped, fold 0", FOLDS[0], arm="x|y")
    page = report_page.render(compare.compare(bench.runs))
    assert "| MobileNetV2 | x/y |" in page
    assert "x|y" not in page


def test_the_page_is_made_again_by_a_command(report: schema.Report, tmp_path: Path) -> None:
    compare.write(report, tmp_path)
    (tmp_path / "report.md").unlink()
    report_page.main(tmp_path)
    assert (tmp_path / "report.md").read_text() == report_page.render(report)


def test_one_more_metric_takes_one_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    informedness = Metric(
        name="informedness",
        words="Youden's J",
        compute=lambda block: block.recall + block.specificity - 1,
        hub="informedness",
        optional=True,
    )
    monkeypatch.setitem(METRICS, informedness.name, informedness)
    run = bench.run("grouped", "grouped", FOLDS[3], TEST)

    entry = json.loads((run / "metrics-test.json").read_text())["within"]["figures"]["informedness"]
    called = calibrate(margins_of(TEST, 1, 0), DECISION) >= DECISION.threshold
    truth = TEST["label"] == "malignant"
    assert entry["value"] == pytest.approx(called[truth].mean() - called[~truth].mean())
    assert entry["low"] < entry["value"] < entry["high"]
    in_schema = measured.Metrics.model_json_schema()["$defs"]["Figures"]
    assert "informedness" in in_schema["properties"]
    assert "informedness" not in in_schema["required"]

    words = f"| Youden's J | {100 * entry['value']:.1f}%"
    assert words in report_page.render(compare.compare([run]))
    shutil.copy(run / "metrics-test.json", run / run_folder.MODEL / card.METRICS_FILE)
    text = card.render(run / run_folder.MODEL)
    assert words in text
    assert ModelCard(text).data.eval_results[-1].metric_type == "informedness"
    for name in MODELS:  # measured before there was such a row
        assert card.render(CARDS / name) == (CARDS / name / "README.md").read_text()


@pytest.mark.slow
def test_a_study_of_real_runs(bench: Bench, corpus_folder: Path, tmp_path: Path) -> None:
    for split in ("grouped", "random"):
        plan = RECIPE | {"backbone": "mobilenetv2", "split": split}
        plan["phases"] = [{"size": 32, "epochs": 1}]
        (tmp_path / f"{split}.yaml").write_text(yaml.safe_dump(plan))
        model = train.train(tmp_path / f"{split}.yaml", corpus_folder, tmp_path / split)
        evaluate.main(model, corpus_folder, tmp_path / split / "metrics-test.json")
    found = compare.compare([tmp_path / "grouped", tmp_path / "random"], corpus_folder)
    compare.write(found, tmp_path / "report")
    assert [run.name for run in found.runs] == ["grouped", "random"]
    assert [(one.split, one.part) for one in found.on_same_terms] == [
        (split, part) for split in ("random", "grouped") for part in ("validation", "test")
    ]
    assert found.on_same_terms[-1].counts == found.tested[0].within.counts
    assert set(found.missing) == {"pairs", "out_of_fold", "asked"}
