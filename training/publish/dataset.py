"""A corpus as the Hub shall hold it: Parquet files, split manifests and a data set card."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow.compute as pc
from huggingface_hub import DatasetCard, DatasetCardData

from bcd_models.config import LABELS
from bcd_models.errors import InputError
from training.corpus import build as corpus
from training.corpus import page as corpus_page
from training.corpus import splits
from training.corpus.sources import get_source
from training.publish.hub import Content

TEMPLATE = Path(__file__).with_name("dataset_card.md")
SHARD_BYTES = 400_000_000  # bytes of images in a file
SIZE_CATEGORIES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (10**6, "100K<n<1M"),
)
COLUMNS = {
    "image": "the file's own bytes, or a tile's as PNG; decoded on access",
    "label": "benign or malignant; what that means differs by source, see above",
    "source": "the data set it is of: one of the headings above",
    "case_id": "what images are grouped by: source/case",
    "subtype": "the source's finer label, or empty where it has none",
    "magnification": "the source's magnification, or empty where it states none",
    "mpp": "micrometres a pixel of the image",
    "name": "the file's path inside its source; `#r0c1` after it: the tile in row 0, column 1",
    "sha256": "SHA-256 of the decoded pixels and their size: equal for equal images",
    "grouped_part": "train, validation or test, by case; also the name of the split",
    "grouped_fold": "fold 0 to 4 for cross-validation, by case; -1 in test or only ever trained on",
    "neighbours_part": "as grouped_part",
    "neighbours_fold": "fold 0 to 4 with neighbouring case ids in one; -1 where grouped_fold is",
    "random_part": "train, validation or test, by image",
    "random_fold": "fold 0 to 4, by image; -1 in test",
}


def stage(corpus_folder: Path, folder: Path, repo_id: str, *, pixels: bool = True) -> Content:
    """Write what is published of a corpus into an empty folder.

    Args:
        corpus_folder: As written by training.corpus.
        folder: Where to.
        repo_id: What the card calls the data set.
        pixels: Whether images go along; without them the tables still hold a row for each.

    Raises:
        InputError: Not a corpus, one whose split manifests can't be used, or no space to write.
    """
    try:
        rows, about = corpus.load(corpus_folder)
        images = pc.struct_field(rows.data.column("image"), "bytes")
        sizes = np.asarray(pc.binary_length(images))  # from the table's offsets alone
        rows = _add_splits(rows, corpus_folder, about["fingerprint"])
        frame = splits.read_table(rows)
        _write_rows(rows if pixels else rows.remove_columns("image"), frame, sizes, folder / "data")
        (folder / "splits").mkdir()
        for kind in splits.KINDS:
            shutil.copyfile(corpus_folder / f"{kind}.json", folder / "splits" / f"{kind}.json")
        shutil.copyfile(corpus_folder / corpus.ABOUT, folder / corpus.ABOUT)
        sheets = sorted(corpus_folder.glob("*.png")) if pixels else []
        for sheet in sheets:
            shutil.copyfile(sheet, folder / sheet.name)
        text = _render_card(frame, about, repo_id, [sheet.name for sheet in sheets], pixels)
        (folder / "README.md").write_text(text, "utf-8")
        what = "images" if pixels else "names and labels, no pixels"
        mark = about["fingerprint"][:16]
        return Content("dataset", folder, f"Corpus {mark}: {about['rows']:,} rows ({what})")
    except OSError as error:
        raise InputError(
            f"{folder} can't be written ({error}): set TMPDIR to a disk with room"
        ) from None


def _add_splits(rows: datasets.Dataset, corpus_folder: Path, fingerprint: str) -> datasets.Dataset:
    """Add part and fold of each row in each split, as columns."""
    for kind in splits.KINDS:
        split = splits.read(corpus_folder, rows, kind, fingerprint)
        rows = rows.add_column(f"{kind}_part", split.part.tolist())
        rows = rows.add_column(f"{kind}_fold", split.fold.tolist())
    return rows


def _write_rows(
    rows: datasets.Dataset, frame: pd.DataFrame, sizes: np.ndarray, folder: Path
) -> None:
    """Write the rows of each part of the grouped split, in files of about equal size."""
    folder.mkdir()
    datasets.disable_progress_bars()
    for part in splits.SHARES:
        here = np.flatnonzero(frame["grouped_part"] == part)
        if not len(here):
            continue
        count = max(1, round(sizes[here].sum() / SHARD_BYTES))
        for number, chosen in enumerate(np.array_split(here, count)):
            name = f"{part}-{number:05}-of-{count:05}.parquet"
            rows.select(chosen).to_parquet(folder / name)


def _render_card(
    frame: pd.DataFrame, about: dict[str, Any], repo_id: str, sheets: list[str], pixels: bool
) -> str:
    sources = about["sources"]
    title = f"Breast histopathology: {' and '.join(get_source(name).short for name in sources)}"
    parts = [part for part in splits.SHARES if (frame["grouped_part"] == part).any()]
    data_files = [{"split": part, "path": f"data/{part}-*.parquet"} for part in parts]
    metadata = DatasetCardData(
        pretty_name=title,
        license=sorted(
            {one["licence"].lower() if one["url"] else "other" for one in sources.values()}
        ),
        task_categories=["image-classification"],
        size_categories=next(
            (word for top, word in SIZE_CATEGORIES if len(frame) < top), "1M<n<10M"
        ),
        tags=["histopathology", "breast-cancer", "medical", "bcd-models"],
        configs=[{"config_name": "default", "data_files": data_files}],
    )
    card = DatasetCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        title=title,
        repo_id=repo_id,
        about=about,
        pixels=pixels,
        sheets=sheets,
        columns={k: v for k, v in COLUMNS.items() if pixels or k != "image"},
        extents={name: corpus_page.describe_extent(source) for name, source in sources.items()},
        parts=_list_parts(frame),
        magnifications=_list_magnifications(frame),
        problems=_list_problems(frame, sources),
    )
    return str(card)


def _list_parts(frame: pd.DataFrame) -> list[str]:
    """Return images, cases and share of malignant of each part, by split and source."""
    lines = []
    for kind in splits.KINDS:
        for part in splits.SHARES:
            for source, rows in frame[frame[f"{kind}_part"] == part].groupby("source"):
                malignant = (rows["label"] == LABELS[1]).mean()
                lines.append(
                    f"| {kind} | {part} | {source} | {len(rows):,} | "
                    f"{rows['case_id'].nunique():,} | {malignant:.1%} |"
                )
    return lines


def _list_magnifications(frame: pd.DataFrame) -> list[str]:
    known = frame[frame["magnification"] != ""].groupby(["source", "magnification", "label"]).size()
    return [f"| {' | '.join(key)} | {count:,} |" for key, count in known.items()]


def _list_problems(frame: pd.DataFrame, sources: dict[str, Any]) -> list[str]:
    """Return what a user of these rows has to know; counts come from the rows."""
    sizes = frame.groupby(["source", "case_id"]).size()
    lines = [
        "Sources label different things under the same two words (see above), at different "
        "scales: a network can tell them apart by look alone. Compare within a source.",
        "Colour alone separates the labels well. Report a colour-statistics baseline beside a "
        "network.",
        "Nothing links cases of one source to those of another.",
    ]
    for name in sources:
        if case_is := get_source(name).case_is:
            lines.append(f"{name}: a case is {case_is}.")
        largest = sizes[name].max() / sizes[name].sum()
        lines.append(f"{name}: the largest of {len(sizes[name]):,} cases holds {largest:.0%}.")
    labels = frame.groupby(["source", "case_id"])["label"].nunique()
    for name in sources:
        both = int((labels[name] > 1).sum())
        if both:
            lines.append(
                f"{name}: {both:,} of {len(labels[name]):,} cases hold both labels, as is normal "
                "where a label is of a patch: metrics over images are not metrics over patients."
            )
    return lines
