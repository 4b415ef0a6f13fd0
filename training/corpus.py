"""Sources -> one checked, de-duplicated `datasets` corpus with a fingerprint and its splits.

python -m training.corpus --idc PATH --breakhis PATH --out CORPUS
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import datasets
import typer
from tqdm import tqdm

from bcd_models.config import LABELS
from bcd_models.errors import ImageError, InputError
from bcd_models.images import ImageLimits, open_image
from training import command, splits
from training.sources import Image, Refused, Source
from training.sources.breakhis import BREAKHIS
from training.sources.idc import IDC

SOURCES = {source.name: source for source in (IDC, BREAKHIS)}
SCHEMA_VERSION = 1
ABOUT = "corpus.json"
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(LABELS)),
        "source": datasets.ClassLabel(names=list(SOURCES)),
        "case_id": datasets.Value("string"),
        "subtype": datasets.Value("string"),
        "magnification": datasets.Value("string"),
        "name": datasets.Value("string"),
        "sha256": datasets.Value("string"),
    }
)


@dataclass
class _Kept:
    """What is known of the rows written so far, and of the files left out."""

    first_with: dict[str, tuple[int, str]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    refused: list[Refused] = field(default_factory=list)
    rows: int = 0


def build(paths: dict[str, Path], out: Path) -> dict[str, Any]:
    """Build a corpus from source folders or archives.

    Args:
        paths: Source name -> folder or archive.
        out: The corpus folder; must not exist yet, appears only when complete.

    Returns:
        What ``corpus.json`` says.

    Raises:
        InputError: A path or archive can't be used, the corpus lacks a class, or ``out`` exists.
    """
    if out.exists():
        raise InputError(f"{out} exists: choose another folder, a corpus is never overwritten")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        ready = Path(temporary) / "corpus"
        rows, refused = _merge(paths, Path(temporary) / "cache")
        about = _about(rows, refused)
        rows.save_to_disk(ready)
        (ready / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        splits.write_both(rows, about["fingerprint"], ready)
        shutil.rmtree(Path(temporary) / "cache")
        ready.rename(out)
    return about


def load(corpus: Path) -> tuple[datasets.Dataset, dict[str, Any]]:
    """Open a corpus folder: its rows, and what ``corpus.json`` says."""
    if not (corpus / ABOUT).is_file():
        raise InputError(f"{corpus} is no corpus: build one with python -m training.corpus")
    return datasets.load_from_disk(str(corpus)), json.loads((corpus / ABOUT).read_text())


def fingerprint(rows: datasets.Dataset) -> str:
    """SHA-256 of the sorted rows' identity and content; the same on every machine and order."""
    columns = rows.select_columns(["source", "name", "label", "case_id", "sha256"])
    lines = sorted("\t".join(map(str, row.values())) for row in columns)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _merge(paths: dict[str, Path], cache: Path) -> tuple[datasets.Dataset, list[Refused]]:
    kept = _Kept()
    try:
        everything = datasets.Dataset.from_generator(
            _rows, FEATURES, cache_dir=str(cache), gen_kwargs={"paths": paths, "kept": kept}
        )
    except datasets.exceptions.DatasetGenerationError as error:
        raise error.__cause__ or error from None
    names = everything.select_columns(["source", "name"]).to_pandas()
    order = names.drop(index=list(kept.dropped)).sort_values(["source", "name"]).index
    if order.empty:
        raise InputError(f"no usable image in {', '.join(str(path) for path in paths.values())}")
    return everything.select(order), kept.refused


def _rows(paths: dict[str, Path], kept: _Kept) -> Iterator[dict[str, Any]]:
    for name, path in paths.items():
        source = SOURCES[name]
        for found in tqdm(source.read(path), desc=source.title, unit=" files", disable=None):
            row = found if isinstance(found, Refused) else _row(source, found)
            if isinstance(row, dict) and (earlier := kept.first_with.get(row["sha256"])):
                row = _duplicate(earlier, row, kept)
            if isinstance(row, Refused):
                kept.refused.append(Refused(f"{name}/{row.name}", row.reason))
                continue
            kept.first_with[row["sha256"]] = (kept.rows, row["label"])
            kept.rows += 1
            yield row


def _row(source: Source, found: Image) -> dict[str, Any] | Refused:
    try:
        image = open_image(found.data, ImageLimits(min_side=1))
    except ImageError as error:
        return Refused(found.name, f"unreadable: {error}")
    if source.size and image.size != source.size:
        return Refused(found.name, f"not {source.size[0]}x{source.size[1]} pixels")
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    return {
        "image": {"bytes": found.data, "path": None},
        "label": found.label,
        "source": source.name,
        "case_id": found.case_id,
        "subtype": found.subtype,
        "magnification": found.magnification,
        "name": found.name,
        "sha256": pixels,
    }


def _duplicate(earlier: tuple[int, str], row: dict[str, Any], kept: _Kept) -> Refused:
    index, label = earlier
    if label == row["label"]:
        return Refused(row["name"], "same pixels as another image")
    kept.dropped.add(index)
    return Refused(row["name"], "same pixels as another image of the other label (both dropped)")


def _about(rows: datasets.Dataset, refused: list[Refused]) -> dict[str, Any]:
    table = rows.remove_columns("image").to_pandas()
    table["label"] = [LABELS[i] for i in table["label"]]
    table["source"] = [list(SOURCES)[i] for i in table["source"]]
    if missing := set(LABELS) - set(table["label"]):
        raise InputError(f"the corpus has no {missing.pop()} image: both classes are needed")
    return {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint(rows),
        "rows": len(table),
        "sources": {
            name: _about_source(SOURCES[name], part) for name, part in table.groupby("source")
        },
        "skipped": dict(Counter(r.reason for r in refused)),
        "skipped_files": [[r.name, r.reason] for r in refused],
    }


def _about_source(source: Source, part: Any) -> dict[str, Any]:
    expected = sum(source.expected.values())
    labels = {label: int((part["label"] == label).sum()) for label in LABELS}
    both = part.groupby("case_id")["label"].nunique()
    if source.one_label_a_case and (both > 1).any():
        raise InputError(f"{source.title}: case {both.idxmax()} is both benign and malignant")
    return {
        "title": source.title,
        "licence": source.licence,
        "citation": source.citation,
        "url": source.url,
        "labels_mean": source.labels_mean,
        "images": len(part),
        "labels": labels,
        "cases": int(part["case_id"].nunique()),
        "magnifications": {k: int(v) for k, v in part["magnification"].value_counts().items() if k},
        "full_set": {"labels": source.expected, "cases": source.expected_cases},
        "share_of_full_set": round(len(part) / expected, 4),
    }


def main(
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    idc: Annotated[Path | None, typer.Option(help="IDC folder or archive.")] = None,
    breakhis: Annotated[Path | None, typer.Option(help="BreaKHis folder or archive.")] = None,
) -> None:
    """Merge the sources into a corpus with both splits."""
    paths = {name: path for name, path in (("idc", idc), ("breakhis", breakhis)) if path}
    if not paths:
        raise InputError("name at least one source: --idc PATH, --breakhis PATH")
    about = build(paths, out)
    for name, source in about["sources"].items():
        full = sum(source["full_set"]["labels"].values())
        typer.echo(
            f"{name}: {source['images']:,} of the full set's {full:,} images, {source['cases']} of "
            f"{source['full_set']['cases']} cases; {source['labels']}"
        )
    for reason, count in about["skipped"].items():
        typer.echo(f"skipped {count}: {reason}")
    typer.echo(f"{out}: {about['rows']:,} rows, fingerprint {about['fingerprint'][:16]}")


if __name__ == "__main__":
    command.run(main)
