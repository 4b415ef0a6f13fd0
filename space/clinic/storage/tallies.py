"""Tallies: how many there are of everything the dashboard shows, kept up with each act.

Counting 100,000 examinations again takes SQLite longer than a page may. So each act that changes
what there is to count changes the counts too, in its own transaction: by what its examinations
come to after it, less what they came to before. ``python -m clinic verify`` counts again and
compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date
from itertools import product
from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, selectinload

from bcd_models.decision import PROBABILITY_BINS
from bcd_models.errors import InputError
from clinic.storage.database import build_insert
from clinic.storage.tables import Examination, ExaminedImage, Patient, Tally

MAX_LOADED = 500  # examinations in memory at once
EXAMINATIONS, IMAGES, DECISIONS = "examinations", "images", "decision"
POSITIVES = "positive"  # at or above the threshold, whatever the decision
PROBABILITIES, AGREEMENT = "probability", "agreement"
EVERYBODY = 0  # in place of an owner: of all doctors together
ANY_MODEL = ""  # in place of a model: counted whatever the models
BEFORE, AFTER = "before", "after"  # the answers were shown, somebody read
SEPARATOR = "\t"  # stands between the parts of a model's key


class Cell(NamedTuple):
    """What is counted together."""

    owner_id: int  # whose patients', or ``EVERYBODY``
    span: str  # a day or a month of UTC, as ``day`` and ``month`` write it
    model: str  # as ``model_key`` writes it, or ``ANY_MODEL``
    kind: str  # what is counted
    # which of its kind: a decision, or as ``bin_key`` and ``agreement_key`` write it; "" where
    # there is one only
    key: str


Counts = Counter[Cell]


def day(when: date) -> str:
    """Return a day, as spans are written; they sort by time within their kind."""
    return f"D{when:%Y-%m-%d}"


def month(when: date) -> str:
    """Return a month, as spans are written."""
    return f"M{when:%Y-%m}"


def model_key(name: str, version: str, weights_sha256: str) -> str:
    """Return one very model."""
    return SEPARATOR.join((name, version, weights_sha256))


def parse_model_key(key: str) -> tuple[str, str, str]:
    """Return name, version and weights' SHA-256 of a key; InputError where it is no model's."""
    parts = key.split(SEPARATOR)
    if len(parts) != 3:
        raise InputError(f"no model {key!r}")
    return parts[0], parts[1], parts[2]


def find_bin(probability: float) -> int:
    """Return the number of a probability's bin, from 0; the last one holds 1 too."""
    return min(int(probability * PROBABILITY_BINS), PROBABILITY_BINS - 1)


def bin_key(number: int) -> str:
    """Return a bin of probability."""
    return f"{number:02}"


def agreement_key(shown: str, verdict: str, label: str) -> str:
    """Return the key of a read: ``BEFORE`` or ``AFTER``, the verdict, the model's label."""
    return f"{shown}/{verdict}/{label}"


def count_examinations(owner_id: int, examinations: Iterable[Examination]) -> Counts:
    """Return what some examinations of one doctor's patients come to."""
    found: Counts = Counter()
    for examination in examinations:
        spans = day(examination.created_at), month(examination.created_at)
        for (model, kind, key), number in _count_examination(examination).items():
            for owner, span in product((owner_id, EVERYBODY), spans):
                found[Cell(owner, span, model, kind, key)] += number
    return found


def change(session: Session, before: Counts, after: Counts) -> None:
    """Bring the tallies from what some examinations came to before an act to what they do now."""
    changed = [(cell, after[cell] - before[cell]) for cell in {*before, *after}]
    rows = [{**cell._asdict(), "count": number} for cell, number in changed if number]
    insert = build_insert(session, Tally)
    add = {"count": Tally.count + insert.excluded.count}
    if rows:
        session.execute(
            insert.on_conflict_do_update(index_elements=list(Cell._fields), set_=add), rows
        )


def hand_over(session: Session, giver: int, taker: int) -> None:
    """Let all that one doctor's patients come to count as another's."""
    theirs = _read_tallies(session, giver)
    given = Counter({cell._replace(owner_id=taker): number for cell, number in theirs.items()})
    change(session, theirs, given)


def fill(session: Session) -> None:
    """Count what there was before there were these tallies."""
    if session.scalar(select(Tally.owner_id).limit(1)) is None:
        change(session, Counter(), count_all(session))


def rebuild(session: Session) -> None:
    """Count everything again."""
    session.execute(delete(Tally))
    change(session, Counter(), count_all(session))


def are_sound(session: Session) -> bool:
    """Return whether the tallies are what a new count finds."""
    return +_read_tallies(session) == count_all(session)


def count_all(session: Session) -> Counts:
    """Return what all examinations come to."""
    loaded = (
        selectinload(Examination.images).selectinload(ExaminedImage.results),
        selectinload(Examination.reads),
    )
    rows = select(Patient.owner_id, Examination).join(Examination.patient).options(*loaded)
    counts: Counts = Counter()
    for owner_id, examination in session.execute(rows.execution_options(yield_per=MAX_LOADED)):
        counts.update(count_examinations(owner_id, [examination]))
        session.expunge(examination)
    return counts


def _count_examination(examination: Examination) -> Counter[tuple[str, str, str]]:
    """Return what one examination comes to, by model, kind and key."""
    found: Counter[tuple[str, str, str]] = Counter()
    found[ANY_MODEL, EXAMINATIONS, ""] = 1
    found[ANY_MODEL, IMAGES, ""] = len(examination.images)
    labels: dict[str, set[str]] = {}
    for image in examination.images:
        for result in image.results:
            model = model_key(result.model, result.model_version, result.weights_sha256)
            found[model, DECISIONS, result.decision] += 1
            if result.label == "malignant":
                found[model, POSITIVES, ""] += 1
            found[model, PROBABILITIES, bin_key(find_bin(result.probability))] += 1
            labels.setdefault(model, set()).add(result.label)
    read = examination.reads[-1] if examination.reads else None
    for model, said in labels.items():
        found[model, EXAMINATIONS, ""] += 1
        if read:
            shown = AFTER if read.result_shown else BEFORE
            label = "malignant" if "malignant" in said else "benign"
            found[model, AGREEMENT, agreement_key(shown, read.verdict, label)] += 1
    return found


def _read_tallies(session: Session, owner: int | None = None) -> Counts:
    rows = select(*(getattr(Tally, name) for name in Cell._fields), Tally.count)
    if owner is not None:
        rows = rows.where(Tally.owner_id == owner)
    return Counter({Cell(*cell): number for *cell, number in session.execute(rows)})
