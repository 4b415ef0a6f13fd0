"""What machines read of a model card: front matter, and the Hub's own eval results."""

from __future__ import annotations

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from bcd_models.config import ModelConfig
from bcd_models.local.metrics import METRICS
from training.card.provenance import find_start_on_hub, list_sources, name_source
from training.evaluate.schema import Metrics, Within

TASK = "image-classification"
TAGS = ["bcd-models", "histopathology", "breast-cancer", "medical", "research-use-only"]
DIGITS = 4


def make_metadata(
    config: ModelConfig, metrics: Metrics, within: Within, dataset: str
) -> ModelCardData:
    """Return the front matter.

    Args:
        config: What travels with the weights.
        metrics: What was measured.
        within: The headline of it.
        dataset: Hub id of the published corpus, or "".
    """
    base = find_start_on_hub(config)
    sources = [source.name for source, _ in list_sources(config.provenance) if source.url]
    return ModelCardData(
        license="apache-2.0",
        library_name="timm",
        pipeline_tag=TASK,
        tags=TAGS,
        datasets=[dataset] if dataset else sources or None,
        metrics=[METRICS[name].hub for name in _list_names_on_hub(within)],
        base_model=base,
        model_name=config.name,
        eval_results=_make_model_index(metrics, within, dataset),
        base_model_relation="finetune" if base else None,
    )


def render_eval_results(metrics: Metrics, within: Within, dataset: str) -> str:
    """Return the text of a ``.eval_results`` file, the Hub's newer form, for a published corpus.

    Args:
        metrics: What was measured.
        within: The headline of it.
        dataset: Hub id of the published corpus.
    """
    where = _describe_data(metrics, within)
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=f"{metrics.data.split}-{metrics.data.part}-{METRICS[name].hub}",
            value=round(figure.value, DIGITS),
            notes=f"{where}; 95% interval {figure.low:.{DIGITS}f} to {figure.high:.{DIGITS}f}",
        )
        for name in _list_names_on_hub(within)
        for figure in (within.figures[name],)
    ]
    return str(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False))


def _list_names_on_hub(within: Within) -> list[str]:
    """Return the names of the figures measured that the Hub has a name for too."""
    return [name for name, metric in METRICS.items() if metric.hub and name in within.figures]


def _make_model_index(metrics: Metrics, within: Within, dataset: str) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset or within.source,
            dataset_name=_describe_data(metrics, within),
            dataset_config=metrics.data.split,
            dataset_split=metrics.data.part,
            metric_type=METRICS[name].hub,
            metric_name=METRICS[name].words,
            metric_value=round(within.figures[name].value, DIGITS),
        )
        for name in _list_names_on_hub(within)
    ]


def _describe_data(metrics: Metrics, within: Within) -> str:
    source = name_source(within.source)
    return f"{source}, {metrics.data.part} part of the {metrics.data.split} split"
