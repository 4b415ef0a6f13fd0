"""Sources -> one checked, de-duplicated `datasets` corpus with a fingerprint and its splits.

python -m training.corpus --idc PATH --breakhis PATH --out CORPUS
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import datasets
import typer
from datasets.arrow_writer import ArrowWriter
from tqdm import tqdm

from bcd_models.config import LABELS
from bcd_models.errors import ImageError, InputError
from bcd_models.images import ImageLimits, open_image
from training import command, corpus_page, splits
from training.sources import Image, Refused, Source
from training.sources.breakhis import BREAKHIS
from training.sources.files import check, splittable
from training.sources.idc import IDC

SOURCES = {source.name: source for source in (IDC, BREAKHIS)}
SCHEMA_VERSION = 1
ABOUT = "corpus.json"
PARTS = 32
WRITE_BATCH = 256
REPEATED = "same pixels as another image"
CONTRADICTED = "same pixels as an image of the other label (both dropped)"
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


def build(paths: dict[str, Path], out: Path, processes: int | None = None) -> dict[str, Any]:
    """Build a corpus from source folders or archives.

    Files are read in parallel, in parts that are kept beside ``out`` until it is complete: a build
    that was interrupted goes on where it was.

    Args:
        paths: Source name -> folder or archive.
        out: The corpus folder; must not exist yet, appears only when complete.
        processes: How many read at once; as many as there are cores by default.

    Returns:
        What ``corpus.json`` says.

    Raises:
        InputError: A path or archive can't be used, the corpus lacks a class, or ``out`` exists.
    """
    if out.exists():
        raise InputError(f"{out} exists: choose another folder, a corpus is never overwritten")
    for path in paths.values():
        check(path)
    datasets.disable_progress_bars()  # there is one of our own
    beside = out.with_name(f".{out.name}.building")
    try:
        parts = _read_parts(paths, beside, processes or os.cpu_count() or 1)
        rows, refused = _merge(parts)
        about = _about(rows, refused)
        ready = beside / "ready"
        shutil.rmtree(ready, ignore_errors=True)
        rows.save_to_disk(ready)
        (ready / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        splits.write_both(rows, about["fingerprint"], ready)
        corpus_page.write(rows, about, ready)
        ready.rename(out)
    except InputError:
        shutil.rmtree(beside, ignore_errors=True)  # the same input would end here again
        raise
    except OSError as error:
        raise InputError(f"{out} can't be written: {error}") from None
    shutil.rmtree(beside)
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


def _read_parts(paths: dict[str, Path], folder: Path, processes: int) -> list[Path]:
    """Read every source in parts, each by one process; parts that are there already stay."""
    folder = folder / _key(paths)
    folder.mkdir(parents=True, exist_ok=True)
    asked = [
        (name, path, part, parts)
        for name, path in paths.items()
        for parts in (PARTS if splittable(path) else 1,)
        for part in range(parts)
    ]
    files = [folder / f"{name}-{part}.arrow" for name, _, part, _ in asked]
    missing = [(*what, file) for what, file in zip(asked, files, strict=True) if not file.exists()]
    if processes == 1:
        for what in missing:
            _read_part(*what)
        return files
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        reading = [pool.submit(_read_part, *what) for what in missing]
        for done in tqdm(
            as_completed(reading), "reading", len(reading), unit=" parts", disable=None
        ):
            try:
                done.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return files


def _key(paths: dict[str, Path]) -> str:
    """Names what the parts were read from: other files never go on from these parts."""
    stamps = [
        (name, str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns)
        for name, p in paths.items()
    ]
    return hashlib.sha256(repr((PARTS, stamps)).encode()).hexdigest()[:16]


def _read_part(name: str, path: Path, part: int, parts: int, file: Path) -> None:
    source, refused = SOURCES[name], []
    beside = file.with_suffix(".new")
    with ArrowWriter(path=str(beside), features=FEATURES, writer_batch_size=WRITE_BATCH) as writer:
        for found in source.read(path, part, parts):
            row = found if isinstance(found, Refused) else _row(source, found)
            if isinstance(row, Refused):
                refused.append([f"{name}/{row.name}", row.reason])
            else:
                writer.write(FEATURES.encode_example(row))
        writer.finalize()
    file.with_suffix(".json").write_text(json.dumps(refused))
    beside.rename(file)


def _merge(parts: list[Path]) -> tuple[datasets.Dataset, list[Refused]]:
    """All parts in one order, whatever the order of files; duplicates kept once or not at all."""
    refused = [
        Refused(*r) for part in parts for r in json.loads(part.with_suffix(".json").read_text())
    ]
    filled = [part for part in map(_rows_of, parts) if len(part)]
    if not filled:
        raise InputError(f"no usable image; {len(refused)} files left out, {refused[:1]}")
    everything = datasets.concatenate_datasets(filled)
    table = splits.table(everything).sort_values(["source", "name"], kind="stable")
    alike = table.groupby("sha256")
    contradicted = alike["label"].transform("nunique") > 1
    repeated = table.duplicated("sha256") & ~contradicted
    for which, reason in ((contradicted, CONTRADICTED), (repeated, REPEATED)):
        refused += [Refused(n, reason) for n in (table["source"] + "/" + table["name"])[which]]
    kept = table.index[~(contradicted | repeated)]
    if kept.empty:
        raise InputError(f"no usable image: all {len(table)} have the same pixels as another")
    return everything.select(kept), sorted(refused, key=lambda r: (r.reason, r.name))


def _rows_of(part: Path) -> datasets.Dataset:
    return datasets.Dataset.from_file(str(part)).cast(FEATURES)


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
