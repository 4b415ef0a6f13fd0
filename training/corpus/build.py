"""Sources -> one checked, de-duplicated `datasets` corpus with a fingerprint and its splits.

python -m training.corpus --idc PATH... --breakhis PATH... --images LIST.csv... --out CORPUS
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import wraps
from inspect import Parameter, Signature, signature
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import typer
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from tqdm import tqdm

from bcd_models.config import LABELS
from bcd_models.errors import InputError
from training.corpus import page as corpus_page
from training.corpus import splits
from training.corpus.chunks import begin_process, read_chunk
from training.corpus.sources import SOURCES, get_source
from training.corpus.sources.files import is_splittable
from training.corpus.sources.images import list_parts, list_sources
from training.corpus.sources.source import FOREIGN, Refused, Source
from training.corpus.tiles import TILE_NAME

SCHEMA_VERSION = 2
ABOUT = "corpus.json"
READY = "ready"
CHUNKS = 32
REPEATED = "same pixels as another image"
CONTRADICTED = "same pixels as an image of the other label (both dropped)"

Paths = Mapping[str, Sequence[Path]]
"""Source name -> its folders and archives, which are read as one; lists where it is handed in."""


def row_features(sources: Iterable[str] = SOURCES) -> datasets.Features:
    """Return the columns of a corpus of these sources, and their types."""
    text = datasets.Value("string")
    return datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(LABELS)),
            "source": datasets.ClassLabel(names=list(sources)),
            **dict.fromkeys(("case_id", "subtype", "magnification"), text),
            "mpp": datasets.Value("float64"),
            **dict.fromkeys(("name", "sha256"), text),
        }
    )


def build(paths: Paths, out: Path, processes: int | None = None) -> dict[str, Any]:
    """Build a corpus from source folders and archives.

    Files are read in parallel, in chunks that are kept beside ``out`` until it is complete: a build
    that was interrupted goes on where it was.

    Args:
        paths: Source name -> its folders and archives, or lists of images.
        out: The corpus folder; must not exist yet, appears only when complete.
        processes: How many read at once; as many as there are cores by default.

    Returns:
        What ``corpus.json`` says.

    Raises:
        InputError: A path, archive or list can't be used, the corpus lacks a class, or ``out``
            exists.
    """
    if out.exists():
        raise InputError(f"{out} exists: choose another folder, a corpus is never overwritten")
    for name, several in paths.items():
        for path in several:
            get_source(name).check(path)
    parts = list_parts(chain.from_iterable(paths[name] for name in _list_handed_in(paths)))
    datasets.disable_progress_bars()  # there is one of our own
    pa.set_memory_pool(pa.system_memory_pool())  # which gives memory back at once
    beside = out.with_name(f".{out.name}.building")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        with FileLock(beside / "lock", timeout=0):
            about = _build(paths, parts, beside, processes or os.cpu_count() or 1)
            (beside / READY).rename(out)
    except Timeout:
        raise InputError(f"{out} is being built by another process: wait for it") from None
    except InputError:
        shutil.rmtree(beside, ignore_errors=True)  # the same input would end here again
        raise
    except OSError as error:
        raise InputError(
            f"{out} can't be written: {error}; what has been read is kept, run the same again"
        ) from None
    shutil.rmtree(beside)
    return about


def load(corpus: Path) -> tuple[datasets.Dataset, dict[str, Any]]:
    """Open a corpus folder: its rows, and what ``corpus.json`` says.

    One of schema 1 states no ``mpp``: its rows are whole images, whose scale is the source's.
    """
    if not (corpus / ABOUT).is_file():
        raise InputError(f"{corpus} is no corpus: build one with python -m training.corpus")
    rows = datasets.load_from_disk(str(corpus))
    if "mpp" not in rows.column_names:
        table = splits.read_table(rows)
        pairs = zip(table["source"], table["magnification"], strict=True)
        rows = rows.add_column("mpp", [SOURCES[name].mpp[zoom] for name, zoom in pairs])
    return rows, json.loads((corpus / ABOUT).read_text())


def compute_fingerprint(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the rows' identity and content, the same whatever their order.

    Args:
        table: As ``splits.read_table`` gives it.
    """
    handed_in = {name: name for name in table["source"].unique()}
    numbered = table.assign(
        source=table["source"].map(handed_in | _number(SOURCES)),
        label=table["label"].map(_number(LABELS)),
    )
    lines = numbered["source"]
    for column in ("name", "label", "case_id", "sha256"):
        lines = lines + "\t" + numbered[column]
    digest = hashlib.sha256()
    for place, line in enumerate(lines.sort_values()):
        digest.update(f"\n{line}".encode() if place else line.encode())
    return digest.hexdigest()


def _number(names: Iterable[str]) -> dict[str, str]:
    return {name: str(number) for number, name in enumerate(names)}


def _list_handed_in(paths: Paths) -> list[str]:
    return sorted(paths.keys() - SOURCES.keys())


def _build(paths: Paths, parts: Mapping[str, str], beside: Path, processes: int) -> dict[str, Any]:
    """Make all of a corpus, in a folder ``ready`` within ``beside``."""
    ready = beside / READY
    shutil.rmtree(ready, ignore_errors=True)
    rows, refused = _merge(read_chunks(paths, beside, processes))
    rows.save_to_disk(ready)
    rows = datasets.load_from_disk(str(ready))  # in its final order, which costs least to read
    table = splits.read_table(rows)
    about = _describe(table, refused)
    (ready / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
    splits.write_all(table, about["fingerprint"], ready, parts)
    corpus_page.write(rows, table, about, ready)
    return about


def read_chunks(paths: Paths, folder: Path, processes: int) -> list[Path]:
    """Read every source in chunks, each by one process; chunks that are there already stay."""
    folder = folder / _name_chunks(paths)
    folder.mkdir(parents=True, exist_ok=True)
    names = [*SOURCES, *_list_handed_in(paths)]
    schema = row_features(names).arrow_schema
    asked = {
        folder / f"{name}-{number}-{chunk}.arrow": (name, names.index(name), path, chunk, chunks)
        for name, several in paths.items()
        for number, path in enumerate(several)
        for chunks in (CHUNKS if is_splittable(path) else 1,)
        for chunk in range(chunks)
    }
    whole_first = sorted(asked.items(), key=lambda one: one[1][-1])
    missing = [(*what, file, schema) for file, what in whole_first if not file.exists()]
    pool = (
        ThreadPoolExecutor(1)
        if processes == 1
        else ProcessPoolExecutor(processes, get_context("spawn"), begin_process)
    )
    with pool:
        reading = [pool.submit(read_chunk, *what) for what in missing]
        try:
            done = as_completed(reading)
            for one in tqdm(done, "reading", len(missing), unit=" chunks", disable=None):
                one.result()
        except BrokenProcessPool:
            raise OSError("a reading process was killed, perhaps for want of memory") from None
        finally:
            pool.shutdown(cancel_futures=True)
    return list(asked)


def _name_chunks(paths: Paths) -> str:
    """Name what the chunks are read from: a build of other files never goes on from them."""
    stamps = [
        (name, str(path.resolve()), get_source(name).stamp(path))
        for name, several in paths.items()
        for path in several
    ]
    return hashlib.sha256(repr((SCHEMA_VERSION, CHUNKS, stamps)).encode()).hexdigest()[:16]


def _merge(chunks: list[Path]) -> tuple[datasets.Dataset, list[Refused]]:
    """Merge chunks in an order of names; duplicates are kept once or not at all."""
    refused = [
        Refused(*r) for chunk in chunks for r in json.loads(chunk.with_suffix(".json").read_text())
    ]
    read = [datasets.Dataset.from_file(str(chunk)) for chunk in chunks]
    filled = [rows for rows in read if len(rows)]
    if not filled:
        first = f", the first, {refused[0].name}: {refused[0].reason}" if refused else ""
        raise InputError(f"no usable image; {len(refused)} files left out{first}")
    everything = datasets.concatenate_datasets(filled)
    table = splits.read_table(everything)
    table = table.iloc[_order_rows(table, ["source", "name", "sha256"])]
    pixels = pd.Series(table["sha256"].factorize()[0], table.index)
    contradicted = table["label"].groupby(pixels).transform("nunique") > 1
    repeated = pixels.duplicated() & ~contradicted
    for which, reason in ((contradicted, CONTRADICTED), (repeated, REPEATED)):
        refused += [Refused(n, reason) for n in (table["source"] + "/" + table["name"])[which]]
    kept = table.index[~(contradicted | repeated)]
    if kept.empty:
        raise InputError(f"no usable image: all {len(table)} have the same pixels as another")
    return everything.select(kept), sorted(refused, key=lambda r: (r.reason, r.name))


def _order_rows(table: pd.DataFrame, columns: list[str]) -> NDArray[np.uint64]:
    """Return the order of rows by columns of text; pandas would make objects of them."""
    keys = [(column, "ascending") for column in columns]
    return np.asarray(pc.sort_indices(pa.Table.from_pandas(table[columns]), sort_keys=keys))


def _describe(table: pd.DataFrame, refused: list[Refused]) -> dict[str, Any]:
    if missing := set(LABELS) - set(table["label"]):
        raise InputError(f"the corpus has no {missing.pop()} image: both classes are needed")
    return {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": compute_fingerprint(table),
        "rows": len(table),
        "sources": {
            name: _describe_source(get_source(name), frame, refused)
            for name, frame in table.groupby("source")
        },
        "skipped": dict(Counter(r.reason for r in refused)),
        "skipped_files": [[r.name, r.reason] for r in refused],
    }


def _describe_source(source: Source, frame: pd.DataFrame, refused: list[Refused]) -> dict[str, Any]:
    images = frame[~splits.name_images(frame).duplicated()]  # of several tiles the first
    left_out = {
        _name_file(r.name)
        for r in refused
        if r.name.startswith(f"{source.name}/") and r.reason != FOREIGN
    }
    also_kept = left_out.intersection(map(_name_file, images["name"]))  # a sound copy was there
    both = frame.groupby("case_id")["label"].nunique()
    if source.one_label_a_case and (both > 1).any():
        raise InputError(f"{source.title}: case {both.idxmax()} is both benign and malignant")
    return {
        "title": source.title,
        "licence": source.licence,
        "citation": source.citation,
        "url": source.url,
        "labels_mean": source.labels_mean,
        "images": len(images),
        "rows": len(frame),
        "labels": _count(images["label"], LABELS),
        "label_rows": _count(frame["label"], LABELS),
        "cases": int(frame["case_id"].nunique()),
        "magnifications": {
            zoom: {"images": len(of_zoom), "rows": int((frame["magnification"] == zoom).sum())}
            for zoom, of_zoom in images.groupby("magnification")
            if zoom
        },
        "full_set": {"labels": source.expected, "cases": source.expected_cases},
        "found": len(images) + len(left_out) - len(also_kept),
    }


def _name_file(row: str) -> str:
    """Name the file, without its folders, that a row or something left out is from."""
    return TILE_NAME.sub("", row).rpartition("/")[2]


def _count(values: pd.Series, names: Sequence[str]) -> dict[str, int]:
    return {name: int((values == name).sum()) for name in names}


def make_command() -> Callable[..., None]:
    """Return the command: ``main`` with an option ``--NAME`` for each source of the registry."""

    @wraps(main)
    def build_corpus(**given: Any) -> None:
        main(**given)

    fixed = signature(main, eval_str=True).parameters.values()
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=_make_option(source))
        for name, source in SOURCES.items()
    ]
    build_corpus.__signature__ = Signature(  # type: ignore[attr-defined]
        [p for p in fixed if p.kind != Parameter.VAR_KEYWORD] + options
    )
    return build_corpus


def _make_option(source: Source) -> Any:
    words = f"{source.short} folder or archive; may be repeated."
    return Annotated[list[Path] | None, typer.Option(f"--{source.name}", help=words)]


def main(
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(help="CSV list of your own labelled images; may be repeated."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many read at once; all cores by default.")
    ] = None,
    **sources: list[Path] | None,
) -> None:
    """Merge the sources into a corpus with its splits."""
    paths = {name: several for name in SOURCES if (several := sources.get(name))}
    paths |= list_sources(images or (), SOURCES)
    if not paths:
        options = ", ".join([*(f"--{name} PATH" for name in SOURCES), "--images CSV"])
        raise InputError(f"name at least one source: {options}")
    about = build(paths, out, processes)
    for name, source in about["sources"].items():
        typer.echo(f"{name}: {corpus_page.describe_extent(source)}; kept {source['labels']}")
    for reason, count in about["skipped"].items():
        typer.echo(f"skipped {count}: {reason}")
    typer.echo(f"{out}: {about['rows']:,} rows, fingerprint {about['fingerprint'][:16]}")
