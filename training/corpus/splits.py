"""Parts and folds, each split a manifest file that is kept and never recomputed silently.

A unit (a case in the grouped split, an image in the random one) is placed by a hash of its own id
alone. So adding a case or a source moves nothing else, and every machine agrees. The seed is the
one of 0 to 1999 that brings the parts and folds of the 226-case sample nearest to their shares of
cases, images and positives (within 0.022): chosen once, by counts, before any training.

A third split, ``leaky``, is the grouped one but for its test cases: half of each one's images are
trained on, in place of as many others, and the other half is the test part. Beside the grouped
split's figures on that same half, it shows what a leak alone is worth.

A fourth, ``neighbours``, has the grouped split's parts but other folds: cases whose ids follow one
another stay together, in case they are one patient's.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import pandas as pd

from bcd_models.errors import InputError

SEED = 764
FOLDS = 5
SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
MIN_CASES = 10
SCHEMA_VERSION = 1

Kind = Literal["grouped", "random"]
UNUSED = "unused"
_UNIT = {
    "grouped": "case_id",
    "neighbours": "case_id",
    "random": "sha256",
    "leaky": "sha256",
}


@dataclass(frozen=True)
class Split:
    """A manifest read back.

    Attributes:
        kind: "grouped", "neighbours", "random" or "leaky".
        sha256: Of the manifest file.
        part: For each row of the corpus: train, validation or test; in "leaky" also unused.
        fold: For each row: 0 to 4, or -1 where it is in test or only ever trained on.
    """

    kind: str
    sha256: str
    part: pd.Series
    fold: pd.Series


def table(rows: datasets.Dataset) -> pd.DataFrame:
    """Return the corpus without its pixels, one line a row, label and source as names."""
    frame = rows.remove_columns("image").to_pandas()
    for column in ("label", "source"):
        names = rows.features[column].names
        frame[column] = frame[column].map(dict(enumerate(names)))
    return frame


def write_all(frame: pd.DataFrame, fingerprint: str, folder: Path) -> None:
    """Write a manifest of each kind: ``KIND.json``."""
    for kind in ("random", "grouped"):
        document = manifest(frame, kind, fingerprint)
        _write(document, folder)
    _write(leaky(frame, document), folder)
    _write(neighbours(frame, document), folder)


def _write(document: dict[str, Any], folder: Path) -> None:
    with (folder / f"{document['kind']}.json").open("w") as file:
        json.dump(document, file, indent=0)
        file.write("\n")


def manifest(frame: pd.DataFrame, kind: Kind, fingerprint: str, seed: int = SEED) -> dict[str, Any]:
    """Place every unit in a part and a fold."""
    only_trained = _small_sources(frame) if kind == "grouped" else set()
    units = frame.drop_duplicates(_UNIT[kind])
    placed = {
        unit: ("train", -1) if source in only_trained else place(unit, seed)
        for unit, source in zip(units[_UNIT[kind]], units["source"], strict=True)
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "seed": seed,
        "fingerprint": fingerprint,
        "only_trained_on": sorted(only_trained),
        "units": dict(sorted(placed.items())),
    }


def leaky(frame: pd.DataFrame, grouped: dict[str, Any]) -> dict[str, Any]:
    """The grouped manifest with half of each test case's images moved to train, image by image.

    They take the place of as many training images of their own source and label.
    """
    drawn = frame.sort_values("sha256")  # as good as a lot, and the same on every machine
    part = drawn["case_id"].map(grouped["units"]).str[0]
    tested = drawn[part == "test"]
    moved = tested[tested.groupby("case_id").cumcount() % 2 == 1]
    for (source, label), images in moved.groupby(["source", "label"]):
        alike = (drawn["source"] == source) & (drawn["label"] == label) & (part == "train")
        part[drawn.index[alike][: len(images)]] = UNUSED
    part[moved.index] = "train"
    placed = {image: (where, -1) for image, where in zip(drawn["sha256"], part, strict=True)}
    return grouped | {"kind": "leaky", "units": placed}


def neighbours(frame: pd.DataFrame, grouped: dict[str, Any]) -> dict[str, Any]:
    """Return the grouped manifest with stretches of neighbouring case ids in one fold each.

    The longest stretches are placed first, each in the fold of fewest images so far.
    """
    folded = {case: part for case, (part, fold) in grouped["units"].items() if fold >= 0}
    images = frame["case_id"].value_counts()
    sizes = [(int(images[stretch].sum()), stretch) for stretch in _stretches(sorted(folded))]
    filled, placed = [0] * FOLDS, dict(grouped["units"])
    for size, stretch in sorted(sizes, key=lambda one: (-one[0], one[1])):
        fold = filled.index(min(filled))
        filled[fold] += size
        placed |= {case: (folded[case], fold) for case in stretch}
    return grouped | {"kind": "neighbours", "units": placed}


def _stretches(cases: list[str]) -> list[list[str]]:
    """Cases whose numbers follow one another, together; a case without a number alone."""
    numbered: dict[tuple[str, int], str] = {}
    stretches = []
    for case in cases:
        source, _, number = case.partition("/")
        if number.isdecimal():
            numbered[source, int(number)] = case
        else:
            stretches.append([case])
    for (source, place), case in sorted(numbered.items()):
        if (source, place - 1) in numbered:
            stretches[-1].append(case)
        else:
            stretches.append([case])
    return stretches


def place(unit: str, seed: int = SEED) -> tuple[str, int]:
    """Part and fold of a unit, by its id alone."""
    digest = hashlib.sha256(f"{seed}/{unit}".encode()).digest()
    where, below = int.from_bytes(digest[:8]) / 2**64, 0.0
    fold = digest[8] * 256 + digest[9]
    for part in ("test", "validation"):
        below += SHARES[part]
        if where < below:
            return part, -1 if part == "test" else fold % FOLDS
    return "train", fold % FOLDS


def read(corpus: Path, rows: datasets.Dataset, kind: str, fingerprint: str) -> Split:
    """Read a corpus' manifest.

    Raises:
        InputError: No such manifest, a damaged one, one of another corpus, one that misses a unit
            or places it twice.
    """
    path = corpus / f"{kind}.json"
    if kind not in _UNIT or not path.is_file():
        raise InputError(f"{corpus} has no split {kind!r}: choose one of {', '.join(_UNIT)}")
    data = path.read_bytes()
    document = _parse_manifest(data, path)
    if document.get("fingerprint") != fingerprint:
        raise InputError(f"{path} belongs to another corpus ({document.get('fingerprint')})")
    units = table(rows)[_UNIT[kind]]
    placed = units.map(document["units"])
    if placed.isna().any():
        raise InputError(f"{path} does not place {units[placed.isna()].iloc[0]}")
    return Split(kind, hashlib.sha256(data).hexdigest(), placed.str[0], placed.str[1].astype(int))


def _parse_manifest(data: bytes, path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if twice:
            raise InputError(f"{path} places {twice[0]} twice")
        return dict(pairs)

    try:
        document: dict[str, Any] = json.loads(data, object_pairs_hook=once)
        wrong = [u for u, (part, fold) in document["units"].items() if not _is_sound(part, fold)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no split manifest ({error}): build the corpus again") from None
    if wrong:
        raise InputError(f"{path} places {wrong[0]} in no known part and fold")
    return document


def _is_sound(part: str, fold: int) -> bool:
    return part in (*SHARES, UNUSED) and fold in range(-1, FOLDS)


def larger_source(frame: pd.DataFrame) -> str:
    """Return the source with most images: what figures are headlined by."""
    return str(frame["source"].value_counts().idxmax())


def _small_sources(frame: pd.DataFrame) -> set[str]:
    """Sources with fewer than ten cases of either class, which are only ever trained on."""
    cases = frame.drop_duplicates(["source", "case_id", "label"]).groupby(["source", "label"])
    counts = cases.size().unstack(fill_value=0)
    small = counts.index[(counts < MIN_CASES).any(axis=1)]
    return {str(source) for source in small if source != larger_source(frame)}
