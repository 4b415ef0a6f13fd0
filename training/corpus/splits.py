"""Parts and folds, each split a manifest file that is kept and never recomputed silently.

A unit (a case in the grouped split, an image with all its tiles in the random one) is placed by a
hash of its own id alone. So adding a case or a source moves nothing else, and every machine agrees.
The seed is the one of 0 to 1999 that brings the parts and folds of the 226-case sample nearest to
their shares of cases, images and positives (within 0.022): chosen once, by counts, before any
training.

A third split, ``neighbours``, has the grouped split's parts but other folds: cases whose ids follow
one another stay together, in case they are one patient's.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import datasets
import pandas as pd

from bcd_models.errors import InputError
from training.corpus.tiles import TILE_NAME
from training.recipes.schema import SplitKind

SEED = 764
FOLDS = 5
SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
MIN_CASES = 10
SCHEMA_VERSION = 1

KINDS = get_args(SplitKind)
NOTHING_STATED: Mapping[str, str] = MappingProxyType({})
_UNIT = {"grouped": "case_id", "neighbours": "case_id", "random": "sha256"}


@dataclass(frozen=True)
class Split:
    """A manifest read back.

    Attributes:
        kind: One of ``KINDS``.
        sha256: Of the manifest file.
        part: For each row of the corpus: train, validation or test.
        fold: For each row: 0 to 4, or -1 where it is in test or only ever trained on.
    """

    kind: str
    sha256: str
    part: pd.Series
    fold: pd.Series


def read_table(rows: datasets.Dataset) -> pd.DataFrame:
    """Return the corpus without its pixels, one line a row, label and source as names."""
    frame = rows.remove_columns("image").to_pandas()
    for column in ("label", "source"):
        names = rows.features[column].names
        frame[column] = frame[column].map(dict(enumerate(names)))
    return frame


def write_all(
    frame: pd.DataFrame, fingerprint: str, folder: Path, stated: Mapping[str, str] = NOTHING_STATED
) -> None:
    """Write a manifest of each kind: ``KIND.json``; ``stated`` as ``make_manifest`` takes it."""
    grouped = make_manifest(frame, "grouped", fingerprint, stated)
    for document in (
        grouped,
        fold_neighbours(frame, grouped),
        make_manifest(frame, "random", fingerprint),
    ):
        with (folder / f"{document['kind']}.json").open("w") as file:
            json.dump(document, file, indent=0)  # never the whole text at once
            file.write("\n")


def make_manifest(
    frame: pd.DataFrame,
    kind: Literal["grouped", "random"],
    fingerprint: str,
    stated: Mapping[str, str] = NOTHING_STATED,
) -> dict[str, Any]:
    """Place every unit in a part and a fold.

    Args:
        frame: The corpus' table.
        kind: By case or by image.
        fingerprint: Of the corpus.
        stated: Part of each unit of which whoever handed it in states one. A source with such units
            is never only trained on, however small.
    """
    only_trained = _find_small_sources(frame) if kind == "grouped" else set()
    only_trained -= set(frame["source"][frame[_UNIT[kind]].isin(stated)])
    own_ids = frame["case_id"] if kind == "grouped" else _identify_images(frame)
    rows = zip(frame[_UNIT[kind]], own_ids, frame["source"], strict=True)
    placed = {
        unit: ("train", -1) if source in only_trained else place(own_id, stated.get(unit))
        for unit, own_id, source in rows
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "seed": SEED,
        "fingerprint": fingerprint,
        "only_trained_on": sorted(only_trained),
        "units": dict(sorted(placed.items())),
    }


def name_images(frame: pd.DataFrame) -> pd.Series:
    """Return the name of the image that each row is, or is a tile of."""
    return frame["name"].str.replace(TILE_NAME.pattern, "", regex=True)


def _identify_images(frame: pd.DataFrame) -> pd.Series:
    """Return what each row's image is placed by: its pixels, but of a tile its image's name."""
    image = name_images(frame)
    return frame["sha256"].where(image == frame["name"], frame["source"] + "/" + image)


def fold_neighbours(frame: pd.DataFrame, grouped: dict[str, Any]) -> dict[str, Any]:
    """Return the grouped manifest with stretches of neighbouring case ids in one fold each.

    The longest stretches are placed first, each in the fold of fewest images so far.
    """
    folded = {case: part for case, (part, fold) in grouped["units"].items() if fold >= 0}
    images = frame["case_id"].value_counts()
    sizes = [(int(images[stretch].sum()), stretch) for stretch in _group_neighbours(sorted(folded))]
    filled, placed = [0] * FOLDS, dict(grouped["units"])
    for size, stretch in sorted(sizes, key=lambda one: (-one[0], one[1])):
        fold = filled.index(min(filled))
        filled[fold] += size
        placed |= {case: (folded[case], fold) for case in stretch}
    return grouped | {"kind": "neighbours", "units": placed}


def _group_neighbours(cases: list[str]) -> list[list[str]]:
    """Return stretches of cases whose numbers follow one another; one without a number is alone."""
    numbered, alone = [], []
    for case in cases:
        source, _, number = case.partition("/")
        if number.isdecimal():
            numbered.append((source, int(number), case))
        else:
            alone.append([case])
    frame = pd.DataFrame(sorted(numbered), columns=["source", "number", "case"])
    begins = (frame["number"].diff() != 1) | (frame["source"] != frame["source"].shift())
    return alone + [list(stretch) for _, stretch in frame["case"].groupby(begins.cumsum())]


def place(unit: str, stated: str | None = None) -> tuple[str, int]:
    """Return part and fold of a unit, by its id alone; the part may be stated instead."""
    digest = hashlib.sha256(f"{SEED}/{unit}".encode()).digest()
    part = stated or _choose_part(int.from_bytes(digest[:8]) / 2**64)
    fold = digest[8] * 256 + digest[9]
    return part, -1 if part == "test" else fold % FOLDS


def _choose_part(where: float) -> str:
    below = 0.0
    for part in ("test", "validation"):
        below += SHARES[part]
        if where < below:
            return part
    return "train"


def read(corpus: Path, rows: datasets.Dataset, kind: str, fingerprint: str) -> Split:
    """Read a corpus' manifest.

    Raises:
        InputError: No such manifest, a damaged one, one of another corpus, one that misses a unit
            or places it twice.
    """
    path = corpus / f"{kind}.json"
    if kind not in KINDS or not path.is_file():
        raise InputError(f"{corpus} has no split {kind!r}: choose one of {', '.join(KINDS)}")
    data = path.read_bytes()
    document = _parse_manifest(data, path)
    if document.get("fingerprint") != fingerprint:
        raise InputError(f"{path} belongs to another corpus ({document.get('fingerprint')})")
    units = read_table(rows)[_UNIT[kind]]
    placed = units.map(document["units"])
    if placed.isna().any():
        raise InputError(f"{path} does not place {units[placed.isna()].iloc[0]}")
    return Split(kind, hashlib.sha256(data).hexdigest(), placed.str[0], placed.str[1].astype(int))


def _parse_manifest(data: bytes, path: Path) -> dict[str, Any]:
    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if twice:
            raise InputError(f"{path} places {twice[0]} twice")
        return dict(pairs)

    try:
        document: dict[str, Any] = json.loads(data, object_pairs_hook=refuse_twice)
        wrong = [
            unit
            for unit, (part, fold) in document["units"].items()
            if part not in SHARES or fold not in range(-1, FOLDS)
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no split manifest ({error}): build the corpus again") from None
    if wrong:
        raise InputError(f"{path} places {wrong[0]} in no known part and fold")
    return document


def find_larger_source(frame: pd.DataFrame) -> str:
    """Return the source with most images: what figures are headlined by."""
    return str(frame["source"].value_counts().idxmax())


def _find_small_sources(frame: pd.DataFrame) -> set[str]:
    """Return the sources with fewer than ten cases of either class, which are only trained on."""
    cases = frame.drop_duplicates(["source", "case_id", "label"]).groupby(["source", "label"])
    counts = cases.size().unstack(fill_value=0)
    small = counts.index[(counts < MIN_CASES).any(axis=1)]
    return {str(source) for source in small if source != find_larger_source(frame)}
