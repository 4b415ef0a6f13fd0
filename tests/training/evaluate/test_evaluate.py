"""What is measured of a model, on a miniature corpus and on tables made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from bcd_models import BCDClassifier
from bcd_models.config import DecisionConfig, HeldOut, ModelConfig, Provenance
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from bcd_models.models.backbones import write_config
from tests.conftest import MODELS
from training import command
from training.corpus import build as corpus
from training.corpus import predictions, splits
from training.evaluate import figures
from training.evaluate import measure as evaluate
from training.evaluate import schema as measured

RECIPE = {
    "name": "bcd-small",
    "version": "0.0.1",
    "backbone": "mobilenetv2",
    "phases": [{"size": 32, "epochs": 1}],
}
DECISION = DecisionConfig(slope=0.5, intercept=-0.2, threshold=0.3, refer=(0.25, 0.35))


@pytest.fixture(scope="module")
def corpus_of(corpus_folder: Path) -> tuple[pd.DataFrame, str]:
    rows, about = corpus.load(corpus_folder)
    return splits.read_table(rows), about["fingerprint"]


@pytest.fixture
def make(corpus_folder: Path, corpus_of, light_model: BCDClassifier, tmp_path: Path):
    """Write a model folder, as if trained on a split of the miniature corpus."""

    def made(trained_on: str = "grouped", **changes: Any) -> Path:
        kind = trained_on.split(",")[0]
        sha256 = splits.read(
            corpus_folder, corpus.load(corpus_folder)[0], kind, corpus_of[1]
        ).sha256
        provenance: dict[str, Any] = {
            "corpus_fingerprint": corpus_of[1],
            "split": trained_on,
            "split_sha256": sha256,
            "recipe": RECIPE | {"split": kind},
        }
        config = ModelConfig(
            name="bcd-small",
            version="0.0.1",
            backbone="mobilenetv2",
            preprocess=light_model.config.preprocess.model_copy(update={"input_size": 32}),
            decision=DECISION,
            provenance=Provenance.model_validate(provenance | changes),
        )
        BCDClassifier(config, light_model.network).save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return made


def measure(model: Path, corpus_folder: Path, out: Path, *more: str) -> measured.Metrics:
    asked = ["--model", str(model), "--corpus", str(corpus_folder), "--out", str(out), *more]
    with pytest.raises(SystemExit) as end:
        command.run(evaluate.main, asked)
    assert end.value.code == 0
    return measured.read(out)


def test_what_is_written_agrees_with_what_was_said(make, corpus_folder: Path, corpus_of) -> None:
    model = make()
    out = model.parent / "new" / "metrics-test.json"
    found = measure(model, corpus_folder, out)
    table, fingerprint = corpus_of
    split = splits.read(corpus_folder, corpus.load(corpus_folder)[0], "grouped", fingerprint)
    said = predictions.read(out.with_name("predictions-test.parquet"))
    assert set(said["sha256"]) == set(table["sha256"][split.part == "test"])

    # the float16 weights as they come back, image by image through the library
    truth = (said["label"] == "malignant").to_numpy()
    assert said["probability"].to_numpy() == pytest.approx(calibrate(said["margin"], DECISION))
    rows, _ = corpus.load(corpus_folder)
    first = table.index[table["sha256"] == said["sha256"][0]][0]
    again = BCDClassifier.from_pretrained(model).predict(rows[int(first)]["image"])
    # Pillow resizes there, torch here: margins differ by at most 0.013
    assert again.probability == pytest.approx(said["probability"][0], abs=0.13 / 40)

    assert found.within is not None
    assert found.within.source == "idc"
    assert found.within.figures == found.overall  # BreaKHis is only trained on here
    assert found.within.floors == found.floors
    assert found.overall["auroc"].value == roc_auc_score(truth, said["probability"])
    assert found.overall["recall"].value == (said["probability"][truth] >= 0.3).mean()
    referred = said["probability"].between(0.25, 0.35)
    assert found.referral.referred_share == pytest.approx(referred.mean())
    assert found.floors.source_alone.auroc.value == 0.5
    assert found.probabilities is not None
    assert sum(found.probabilities[:6]) == (said["probability"] < 0.3).sum()
    assert sum(found.probabilities) == len(said)
    assert found.data.only_trained_on["breakhis"].cases == 4
    assert found.per_source["idc"].counts.images == len(said)
    for name, width in {"evaluation-test.png": 1000, "risk-by-case-test.png": 900}.items():
        with Image.open(out.with_name(name)) as image:
            assert image.width > width


def test_a_random_part_is_measured_whole_and_within_the_larger_source(
    make, corpus_folder: Path
) -> None:
    model = make("random")
    found = measure(model, corpus_folder, model / "metrics.json", "--part", "validation")
    assert found.data.split == "random"
    assert found.within is not None
    assert found.within.counts == found.per_source["idc"].counts
    assert found.within.counts.images < found.data.counts.images
    assert found.per_source["breakhis"].figures == "not estimable"
    assert {group.figures for group in found.per_magnification.values()} == {"not estimable"}
    images = sum(group.counts.images for group in found.per_magnification.values())
    assert images == found.per_source["breakhis"].counts.images  # IDC has no magnification
    assert found.within.floors.source_alone.auroc.value == 0.5


def test_a_final_model_has_learnt_from_train_and_validation(make, corpus_folder: Path) -> None:
    whole = on_test(make("grouped, train and validation"), corpus_folder).data
    half = RECIPE | {"learnt_share": 0.5}
    part = on_test(make("grouped", recipe=half), corpus_folder).data
    assert whole.split == "grouped"
    assert whole.train_counts.cases > 1.5 * part.train_counts.cases


def on_test(model: Path, corpus_folder: Path) -> measured.Metrics:
    return evaluate.evaluate(BCDClassifier.from_pretrained(model), corpus_folder, "test")[0]


@pytest.mark.parametrize(
    ("split", "changes", "part", "reason"),
    [
        ("grouped", {"corpus_fingerprint": "0123"}, "test", "was trained on corpus 0123"),
        ("grouped", {"corpus_fingerprint": ""}, "test", "was trained on corpus unknown"),
        ("grouped", {"split_sha256": "0123"}, "test", "is not the split the model was trained on"),
        ("grouped", {"split": ""}, "test", "has no split ''"),
        ("grouped, fold 0", {}, "validation", "is measured on test, not 'validation'"),
        ("grouped, train and validation", {}, "train", "is measured on test, not 'train'"),
        ("grouped, without breakhis/1", {}, "validation", "is measured on test"),
        ("grouped", {"recipe": {}}, "test", "recipe can't be read"),
        ("grouped", {}, "tests", "no part 'tests'"),
    ],
)
def test_what_can_not_be_measured_is_refused_in_one_line(
    make, corpus_folder: Path, capsys, split: str, changes: dict, part: str, reason: str
) -> None:
    out = make(split, **changes).parent / "metrics.json"
    asked = ["--model", str(out.parent / "model"), "--corpus", str(corpus_folder)]
    with pytest.raises(SystemExit) as end:
        command.run(evaluate.main, [*asked, "--out", str(out), "--part", part])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert reason in said
    assert "\n" not in said
    assert not out.exists()


def test_one_label_within_the_larger_source_is_refused(
    make, corpus_folder: Path, corpus_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, read = make(), splits.read
    table = corpus_of[0]
    other = table.index[(table["source"] == "breakhis") & (table["label"] == "malignant")]

    def one_label(*asked: Any) -> splits.Split:
        split = read(*asked)
        benign = (table["label"] == "benign") | (split.part != "test")
        part = split.part.where(benign, "train")
        part[other] = "test"  # the other source holds the label that is missing
        return splits.Split(split.kind, split.sha256, part, split.fold)

    monkeypatch.setattr(splits, "read", one_label)
    with pytest.raises(InputError, match="'test' does not hold both labels within idc"):
        evaluate.evaluate(BCDClassifier.from_pretrained(model), corpus_folder, "test")


@pytest.mark.parametrize(
    ("split", "kind", "held"),
    [
        ("grouped", "grouped", HeldOut()),
        ("grouped, fold 4", "grouped", HeldOut(fold=4)),
        ("random, without idc/8863", "random", HeldOut(case="idc/8863")),
        ("grouped, train and validation", "grouped", HeldOut(nothing=True)),
    ],
)
def test_what_a_run_held_out_is_read_back(split: str, kind: str, held: HeldOut) -> None:
    old = Provenance.model_validate({"corpus": "breakhis: 100, idc: 9767", "split": split})
    assert (old.split, old.held_out, old.split_words) == (kind, held, split)
    assert old.images == {"breakhis": 100, "idc": 9767}
    assert Provenance.model_validate_json(old.model_dump_json()) == old


@pytest.mark.parametrize("name", MODELS)
def test_a_config_of_schema_1_is_read_and_written_as_schema_2(name: str) -> None:
    text = (Path(__file__).parent / "schema_1" / f"{name}.json").read_text()
    assert json.loads(text)["bcd"]["schema_version"] == 1
    config = ModelConfig.from_json(text, "config.json")
    assert config.provenance.images == {"breakhis": 100, "idc": 9767}
    assert config.provenance.held_out == HeldOut(nothing=True)
    written = json.loads(write_config(config))["bcd"]
    assert written["schema_version"] == 2
    assert written["provenance"]["split"] == "grouped"
    assert ModelConfig.from_json(write_config(config), "config.json") == config


@pytest.mark.parametrize(
    "wrong",
    [{"split": "grouped, fold two"}, {"split": "grouped, else"}, {"corpus": "idc: many"}],
)
def test_an_older_provenance_is_read_strictly(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Provenance.model_validate(wrong)


def test_corpus_and_manifest_are_opened_once(
    make, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BCDClassifier.from_pretrained(make())
    opened: list[str] = []

    def counted(name: str, do: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *asked: (opened.append(name), do(*asked))[1]

    monkeypatch.setattr(corpus, "load", counted("corpus", corpus.load))
    monkeypatch.setattr(splits, "read", counted("manifest", splits.read))
    evaluate.evaluate(model, corpus_folder, "test")
    assert opened == ["corpus", "manifest"]


def test_everything_referred_leaves_no_accuracy() -> None:
    truth, probability = np.array([True, False]), np.array([0.4, 0.5])
    band = DecisionConfig(refer=(0.3, 0.7))
    referral = evaluate._referral(truth, probability, band)
    assert referral == {"referred_share": 1.0, "accuracy_of_the_rest": None}


def test_a_place_that_cannot_be_written_is_told_in_a_line(
    make, corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    asked = ["--model", str(make()), "--corpus", str(corpus_folder)]
    with pytest.raises(SystemExit) as end:
        command.run(evaluate.main, [*asked, "--out", str(tmp_path / "file" / "metrics.json")])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'file'}: File exists\n"


@pytest.mark.parametrize("cases", [36, 300])
def test_risk_by_case_takes_few_cases_and_many(tmp_path: Path, cases: int) -> None:
    rng = np.random.default_rng(0)
    share = rng.beta(0.6, 1.2, cases)
    frame = pd.DataFrame({"case_id": np.repeat(np.arange(cases), 40).astype(str)})
    frame["label"] = np.where(rng.random(len(frame)) < np.repeat(share, 40), "malignant", "benign")
    drawn = figures.draw_risk_by_case(frame, rng.beta(2, 3, len(frame)))
    with Image.open(BytesIO(drawn)) as image:
        assert image.size == (990, 396)
