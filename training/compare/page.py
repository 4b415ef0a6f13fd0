"""``report.json`` -> ``report.md``: every number of the page is one of the report.

python -m training.compare.page REPORT
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from bcd_models.config import first_error
from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.local.metrics import METRICS
from bcd_models.local.robustness import MAX_RECALL_LOSS, MAX_SPECIFICITY_LOSS
from training import command, pages
from training.card.write import FLOOR_WORDS
from training.compare import schema
from training.run_folder import short_commit

REPORT, PAGE = "report.json", "report.md"
TEMPLATE = Path(__file__).with_name(PAGE)
PICTURES = {
    "tested": "test-auroc.png",
    "out_of_fold": "out-of-fold-differences.png",
}
TITLES = {
    "on_same_terms": "The original's table, and ours on the same definitions",
    "tested": "Test figures",
    "pairs": "EfficientNet-B2 minus MobileNetV2",
    "out_of_fold": "Out-of-fold figures by arm",
    "asked": "The same weights, asked in other ways",
    "random_split": "What a random split flatters",
}


def read(folder: Path) -> schema.Report:
    """Read a report's folder; InputError where it holds none."""
    path = folder / REPORT
    try:
        return schema.Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = first_error(error) if isinstance(error, ValidationError) else error
        raise InputError(f"{path} is no report of training.compare: {why}") from None


def render(report: schema.Report) -> str:
    """Return the report in Markdown."""
    plain = {
        (one.backbone, one.seed): one.folds for one in report.out_of_fold if one.arm == "plain"
    }
    return pages.render(
        TEMPLATE,
        report=report,
        titles=TITLES,
        pictures=PICTURES,
        metrics=METRICS,
        floor_words=FLOOR_WORDS,
        arm=name_arm,
        title=name_run,
        short_commit=short_commit,
        max_recall_loss=MAX_RECALL_LOSS,
        max_specificity_loss=MAX_SPECIFICITY_LOSS,
        unlike_plain=any(
            one.minus_plain and one.folds != plain[one.backbone, one.seed]
            for one in report.out_of_fold
        ),
    )


def name_arm(one: schema.OutOfFold | schema.OnSameTerms | schema.Tested) -> str:
    """Return an arm in words, with its seed but for the first."""
    return f"{one.arm}, seed {one.seed}" if one.seed else one.arm


def name_run(one: schema.Tested) -> str:
    """Return a tested run in words; runs of one arm may have learnt from different data."""
    return f"{one.backbone}, {name_arm(one)}, learnt from {one.learnt}"


def main(report: Annotated[Path, typer.Argument(help="Folder with report.json.")]) -> None:
    """Write report.md anew from report.json."""
    write_files({report / PAGE: render(read(report)).encode()})


if __name__ == "__main__":
    command.run(main)
