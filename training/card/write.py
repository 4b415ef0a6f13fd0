"""``metrics.json`` + ``config.json`` -> a model card; nothing in it is typed by hand.

python -m training.card --model FOLDER [--model FOLDER --readme README.md] [--dataset OWNER/NAME]

A folder of an ensemble gets a card of its members.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from huggingface_hub import ModelCard

from bcd_models.config import MIN_CAMERA_AUROC
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.hub.atomic import write_files
from bcd_models.local.metrics import HEADLINE, METRICS
from bcd_models.models.backbones import count_cells, create_network, get_backbone
from bcd_models.prediction import NOTICE
from bcd_models.runtime.torch_forward import find_cam_layer
from training.card import ensemble as ensemble_card
from training.card import provenance as card_provenance
from training.card.metadata import make_metadata, render_eval_results
from training.evaluate import robustness
from training.evaluate import schema as measured
from training.evaluate.decide import decisions as recorded
from training.evaluate.decide import page as points
from training.evaluate.suitability import page as suitability
from training.pages import put_between, write_table
from training.run_folder import short_commit

METRICS_FILE = "metrics.json"
CURVES = "learning-curves.png"
EVAL_RESULTS = Path(".eval_results", "bcd-models.yaml")
TEMPLATE = Path(__file__).with_name("card.md")
FLOOR_WORDS = {
    "source_alone": "the source alone",
    "colour_statistics": "colour statistics (moments in RGB and HED, gradient boosting)",
}
PLOTS = {
    "evaluation": "The whole part: ROC, precision and recall, reliability, counts",
    "risk-by-case": "Mean probability of each case beside its malignant share",
}
RESULTS_BEGIN = "<!-- results: written by python -m training.card -->"
RESULTS_END = "<!-- end of results -->"


def render(folder: Path, dataset: str = "") -> str:
    """Return the text of a model folder's card.

    Args:
        folder: Model folder with ``metrics.json``; a figure beside it is shown where it is there.
        dataset: Hub id of the published corpus, or "".

    Raises:
        InputError: ``metrics.json`` is missing, can't be read or measures other weights.
    """
    if model_folder.read_member_names(folder):
        return ensemble_card.render(folder)
    config, metrics = model_folder.read_config(folder), _read_metrics(folder)
    within, backbone = pick_headline(metrics), get_backbone(config.backbone)
    layer = find_cam_layer(create_network(config.backbone, config.preprocess.input_size))
    decisions, tiles = (
        recorded.read(folder, metrics.model.weights_sha256, name)
        for name in (recorded.DECISIONS, recorded.TILE_DECISIONS)
    )
    ladder = None
    if (folder / robustness.FILE).is_file():
        ladder = robustness.read(folder / robustness.FILE, metrics.model.weights_sha256)
    gate = suitability.read(folder.parent / suitability.FILE, config.suitability)
    plots = {f"{name}-{metrics.data.part}.png": words for name, words in PLOTS.items()}
    card = ModelCard.from_template(
        make_metadata(config, metrics, within, dataset),
        template_path=str(TEMPLATE),
        config=config,
        measured=metrics.model_dump(),
        within=within.model_dump(),
        near=metrics.neighbours,
        source=card_provenance.name_source(within.source),
        title=backbone.title,
        layer=f"`{layer}`" if layer else "the last feature map",
        cells=count_cells(config),
        where=f"cards/{config.name}",
        megabytes=(folder / model_folder.WEIGHTS).stat().st_size / 1e6,
        origin=card_provenance,
        short_commit=short_commit,
        metrics=METRICS,
        floor_words=FLOOR_WORDS,
        counts=describe_counts,
        cell=_format_figure,
        ends=_format_ends,
        spread=describe_estimate,
        verdict=state_verdict(within),
        plots={file: words for file, words in plots.items() if (folder / file).is_file()},
        curves=CURVES if (folder / CURVES).is_file() else "",
        decisions=decisions,
        promise=decisions.find_promise(config.decision.refer) if decisions else None,
        points=points.tabulate(decisions).strip() if decisions else "",
        tile_points=points.tabulate(tiles).strip() if tiles else "",
        curve=recorded.CURVE if (folder / recorded.CURVE).is_file() else "",
        ladder=robustness.tabulate(ladder).strip() if ladder else "",
        min_camera_auroc=MIN_CAMERA_AUROC,
        gate=suitability.summarise(gate) if gate else "",
        missed=list(suitability.find_missed(gate)) if gate else [],
        notice=NOTICE,
    )
    return str(card)


def write(folder: Path, dataset: str = "") -> list[Path]:
    """Write a folder's card, and the Hub's own form of its figures where a corpus is published.

    Args:
        folder: Of a model with ``metrics.json``, or of an ensemble.
        dataset: Hub id of the published corpus, or "".

    Returns:
        The files written.
    """
    contents = {folder / "README.md": render(folder, dataset).encode()}
    if dataset and not model_folder.read_member_names(folder):
        metrics, path = _read_metrics(folder), folder / EVAL_RESULTS
        contents[path] = render_eval_results(metrics, pick_headline(metrics), dataset).encode()
    write_files(contents)
    return list(contents)


def pick_headline(metrics: measured.Metrics) -> measured.Within:
    """Return what is measured within the larger source; in older files, of the whole part."""
    return metrics.within or measured.Within(
        source=" and ".join(metrics.per_source),
        counts=metrics.data.counts,
        figures=metrics.overall,
        calibration=metrics.calibration,
        referral=metrics.referral,
        macro_over_cases=metrics.macro_over_cases,
        floors=metrics.floors,
    )


def describe_counts(group: dict[str, int]) -> str:
    """Say how many images, cases and labels there are."""
    return (
        f"{group['images']:,} images of {group['cases']:,} cases "
        f"({group['benign']:,} benign, {group['malignant']:,} malignant)"
    )


def describe_estimate(entry: dict[str, float]) -> str:
    """Return a figure with its interval."""
    return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"


def state_verdict(within: measured.Within) -> str:
    """Return whether the model stands above the colour floor, in one sentence."""
    gap = within.floors.colour_statistics.model_minus_floor
    if gap.low > 0:
        return "The model is above the colour floor: the whole interval of the difference is."
    if gap.value > 0:
        return (
            "The model is above the colour floor, but not clearly: the interval of the difference "
            "reaches down to zero or below."
        )
    return "**The model is not above the colour floor.**"


def _read_metrics(folder: Path) -> measured.Metrics:
    path = folder / METRICS_FILE
    if not path.is_file():
        raise InputError(f"{folder} has no {METRICS_FILE}: run python -m training.evaluate first")
    metrics = measured.read(path)
    _, sha256 = model_folder.read_weights(folder)
    if metrics.model.weights_sha256 != sha256:
        raise InputError(f"{path} measures other weights: run python -m training.evaluate again")
    return metrics


def tabulate_results(folders: list[Path]) -> str:
    """Return models, their figures, the colour floor, and what is referred, as Markdown tables.

    Raises:
        InputError: The models were not measured on the same images.
    """
    documents = {folder: _read_metrics(folder) for folder in folders}
    first = documents[folders[0]]
    if {_identify_images(one) for one in documents.values()} != {_identify_images(first)}:
        raise InputError("the models were measured on different images: no table can hold them")
    rows = []
    floors: dict[str, None] = {}  # each once, in order
    for folder, metrics in documents.items():
        shown = pick_headline(metrics).model_dump()
        title = get_backbone(model_folder.read_config(folder).backbone).title
        rows.append((title, *(_format_figure(name, shown["figures"][name]) for name in HEADLINE)))
        floors[_format_figure("auroc", shown["floors"]["colour_statistics"]["auroc"])] = None
    rows += [("colour statistics alone", floor) for floor in floors]
    table = write_table(["", *(METRICS[name].words for name in HEADLINE)], rows)
    within = pick_headline(first)
    source = card_provenance.name_source(within.source)
    part = f"{first.data.part} part of the {first.data.split} split, within {source}"
    said = f"On the {part}: {describe_counts(within.counts.model_dump())}."
    return "\n\n".join([table, said, *_tabulate_referral(folders)])


def _tabulate_referral(folders: list[Path]) -> list[str]:
    """Return what models' bands promise, and what their gate refuses, where these are measured."""
    configs = {folder: model_folder.read_config(folder) for folder in folders}
    decisions = {
        get_backbone(config.backbone).title: decided
        for folder, config in configs.items()
        if (decided := recorded.read(folder, model_folder.read_weights(folder)[1]))
    }
    gates = (
        suitability.read(folder.parent / suitability.FILE, config.suitability)
        for folder, config in configs.items()
    )
    gate = next((gate for gate in gates if gate), None)
    promises = [points.tabulate_promises(decisions), points.CAUTION] if decisions else []
    return promises + ([suitability.summarise(gate)] if gate else [])


def put_results(readme: str, table: str) -> str:
    """Return the README's text with the results between its two markers replaced."""
    return put_between(readme, RESULTS_BEGIN, RESULTS_END, table)


def _identify_images(metrics: measured.Metrics) -> tuple[Any, ...]:
    data = metrics.data
    return data.corpus_fingerprint, data.split_sha256, data.part


def _format_ends(name: str, entry: dict[str, float]) -> str:
    """Return the ends of a figure's interval."""
    metric = METRICS[name]
    return f"{metric.text(entry['low'])} to {metric.text(entry['high'])}"


def _format_figure(name: str, entry: dict[str, float]) -> str:
    """Return a figure and its interval, as a table's cell."""
    return f"{METRICS[name].text(entry['value'])} ({_format_ends(name, entry)})"


def main(
    model: Annotated[list[Path], typer.Option(help="Model folder with metrics.json.")],
    readme: Annotated[Path | None, typer.Option(help="Also put the results in here.")] = None,
    dataset: Annotated[
        str, typer.Option(help="Hub id of the published corpus: also write .eval_results/.")
    ] = "",
) -> None:
    """Write the README.md of model folders, and the results of them all into the project's."""
    for folder in model:
        for path in write(folder, dataset):
            typer.echo(f"card: {path}")
    if readme:
        text = put_results(readme.read_text("utf-8"), tabulate_results(model))
        write_files({readme: text.encode()})
        typer.echo(f"results: {readme}")
