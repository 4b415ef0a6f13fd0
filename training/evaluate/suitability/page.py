"""``suitability.json``: what the gate refuses, read, checked and tabulated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from bcd_models.config import Strict, SuitabilityConfig, first_error
from bcd_models.errors import InputError
from training.pages import write_table

FILE = "suitability.json"  # beside the model folders whose gate it measures
# Of unseen real patches, by the network alone: what the threshold is chosen for.
REFUSED_SHARE = 0.005
MIN_CASE_PATCHES = 20
MAX_REFUSED, MAX_REFUSED_OF_CASE = 0.03, 0.10  # of real patches; of a case's, and of a rung's
# Least share refused, of what should be.
MIN_REFUSED = {"photograph": 0.97, "document": 0.97, "flat": 1, "noise": 1, "inverted": 1}
MIN_REFUSED |= {"brown stain": 0.9, "pen": 0.9}


class Refused(Strict):
    """How much is refused of some images.

    Attributes:
        kind: What they are.
        source: Which of that kind.
        images: How many.
        refused: Share of them, 0 to 1.
        by_finding: The same by what was found.
    """

    kind: str
    source: str
    images: int
    refused: float
    by_finding: dict[str, float]


class Suitability(Strict):
    """A ``suitability.json``.

    Attributes:
        gate: What is stored with models.
        corpus_fingerprint: Of the corpus.
        split_sha256: Of its grouped split.
        tissue: Unseen real patches: all, by source, degraded, on each rung of the ladder.
        cases: Unseen real patches by case, of those with enough of them.
        others: What should be refused, by kind and source, on unseen sources.
    """

    schema_version: Literal[1]
    gate: SuitabilityConfig
    corpus_fingerprint: str
    split_sha256: str
    tissue: tuple[Refused, ...]
    cases: tuple[Refused, ...]
    others: tuple[Refused, ...]
    notice: str


def load(path: Path) -> Suitability:
    """Read a ``suitability.json``; InputError names the key and what is wrong with it."""
    try:
        return Suitability.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = first_error(error) if isinstance(error, ValidationError) else error
        raise InputError(f"{path} is none of training.evaluate.suitability: {why}") from None


def read(path: Path, gate: SuitabilityConfig | None) -> Suitability | None:
    """Read what was measured of a gate; None where there is no gate, or no such file.

    Raises:
        InputError: It can't be read, or measures another gate.
    """
    if gate is None or not path.is_file():
        return None
    document = load(path)
    if document.gate != gate:
        raise InputError(
            f"{path} measures another gate: run python -m training.evaluate.suitability"
        )
    return document


def tabulate(document: Suitability) -> str:
    """Return what is refused as a Markdown table, with what was aimed at and missed below it."""
    shown = list(document.tissue)
    for some in _group_by_kind(document.others):
        shown.append(_pool(some))
        if len(some) > 1:
            shown += [one for one in some if one.refused < some[0].refused or one.refused < 1]
    table = write_table(("images", "number", "refused", "of them as"), map(_write, shown))
    refused = sorted((one.refused for one in document.cases), reverse=True)
    above = sum(share > MAX_REFUSED_OF_CASE for share in refused)
    below = (
        "Each is judged by a gate that has not learnt from its case, nor, of photographs and "
        "documents, from its source. Recoloured and inverted patches, greys and pens are of unseen "
        "cases, but the gate learnt from the same changes to other cases; the plain rules' limits "
        "are one for all. One number, the threshold, is chosen on the same real patches, to refuse "
        f"{REFUSED_SHARE:.1%} of them."
    )
    if refused:
        below += (
            f" More than {MAX_REFUSED_OF_CASE:.0%} of their patches are refused in {above} of "
            f"{len(refused)} cases with {MIN_CASE_PATCHES} patches or more, at most "
            f"{refused[0]:.1%}."
        )
    missed = list(find_missed(document))
    aims = f"Aimed at and missed: {'; '.join(missed)}." if missed else "All aims are met."
    return "\n\n".join([table, below, aims]) + "\n"


def summarise(document: Suitability) -> str:
    """Return what is refused by kind, of real patches also at its worst, as a Markdown table."""
    whole = document.tissue[0]
    rungs = [one for one in document.tissue if one.images < whole.images and one.kind != whole.kind]
    worst = {
        f"of {len(some)} {words}, the worst: ": max(some, key=lambda one: one.refused)
        for some, words in (
            (document.cases, f"cases of {MIN_CASE_PATCHES} real patches or more"),
            (rungs, "degradations of them"),
        )
        if some
    }
    rows = {f"real patches of unseen cases, {whole.images:,}": whole.refused}
    rows |= {f"{words}{_name(one)}": one.refused for words, one in worst.items()}
    rows |= {
        f"{one.kind}, {one.images:,} unseen": one.refused
        for one in map(_pool, _group_by_kind(document.others))
    }
    return write_table(
        ("what", "refused"), ((words, f"{share:.2%}") for words, share in rows.items())
    )


def find_missed(document: Suitability) -> Iterable[str]:
    """Yield what was aimed at and isn't reached, in words."""
    whole, *rest = document.tissue
    if whole.refused > MAX_REFUSED:
        yield f"real patches {whole.refused:.1%}, at most {MAX_REFUSED:.0%}"
    for one in (*rest, *document.cases):
        if one.refused > MAX_REFUSED_OF_CASE:
            yield f"{one.kind}, {one.source} {one.refused:.1%}, at most {MAX_REFUSED_OF_CASE:.0%}"
    for kind, least in MIN_REFUSED.items():
        share = _pool([one for one in document.others if one.kind == kind]).refused
        if share < least:
            yield f"{kind} {share:.2%}, at least {least:.0%}"


def _pool(some: Sequence[Refused]) -> Refused:
    images = sum(one.images for one in some)
    names = dict.fromkeys(name for one in some for name in one.by_finding)
    return Refused(
        kind=some[0].kind,
        source="all" if len(some) > 1 else some[0].source,
        images=images,
        refused=sum(one.refused * one.images for one in some) / images,
        by_finding={
            name: sum(one.by_finding.get(name, 0) * one.images for one in some) / images
            for name in names
        },
    )


def _write(one: Refused) -> Sequence[str]:
    found = sorted(one.by_finding.items(), key=lambda item: -item[1])
    words = ", ".join(f"{name} {share:.1%}" for name, share in found)
    return f"{one.kind}, {one.source}", f"{one.images:,}", f"{one.refused:.1%}", words


def _group_by_kind(some: Iterable[Refused]) -> list[list[Refused]]:
    of_kind = sorted(some, key=lambda one: one.kind)
    return [list(group) for _, group in groupby(of_kind, lambda one: one.kind)]


def _name(one: Refused) -> str:
    return one.source if one.kind == "case" else f"{one.kind}, {one.source}"
