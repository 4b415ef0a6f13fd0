"""What the dashboard shows: how many, how often positive, how reads and answers agree.

A doctor's own patients, or for an admin everybody's, as numbers alone. All of it is read from the
tallies (``clinic.storage.tallies``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, get_args

import pandas
from sqlalchemy import TextClause, func, select, text
from sqlalchemy.orm import Session

from bcd_models.decision import PROBABILITY_BINS, Decision
from bcd_models.errors import InputError
from clinic.accounts.permissions import require_account
from clinic.dashboard.agreement import Agreement
from clinic.installation import Installation
from clinic.storage.actor import Actor
from clinic.storage.tables import Tally
from clinic.storage.tallies import (
    AFTER,
    AGREEMENT,
    ANY_MODEL,
    BEFORE,
    DECISIONS,
    EVERYBODY,
    EXAMINATIONS,
    IMAGES,
    POSITIVES,
    PROBABILITIES,
    agreement_key,
    bin_key,
    day,
    month,
)

ANSWERS: tuple[str, ...] = get_args(Decision)
MIN_YEAR, MAX_YEAR = 2000, 2099
MAX_DAYS_BY_DAY = 92  # days; longer times are shown by month
MONTHS = "M"  # days sort before it, months after
# As SQL of our own, whose making takes no time beside what the database takes.
_OF = "FROM tally WHERE owner_id = :owner AND span BETWEEN :first AND :last"
_ALL, _MODELS = (
    "', '".join(kinds)
    for kinds in (
        (EXAMINATIONS, IMAGES),
        (EXAMINATIONS, DECISIONS, POSITIVES, PROBABILITIES, AGREEMENT),
    )
)
SUMS = text(
    f"SELECT model, kind, key, SUM(count) {_OF} AND model = '' AND kind IN ('{_ALL}') "
    "GROUP BY model, kind, key UNION ALL "
    f"SELECT model, kind, key, SUM(count) {_OF} AND model = :model AND kind IN ('{_MODELS}') "
    "GROUP BY model, kind, key"
)
VOLUME = text(
    f"SELECT span, key, SUM(count) {_OF} AND model = :model AND kind = '{DECISIONS}' "
    "GROUP BY span, key"
)


@dataclass(frozen=True)
class Period:
    """Days of UTC, first and last included; InputError where none can hold an examination."""

    first: date
    last: date

    def __post_init__(self) -> None:
        """Refuse what is none."""
        if self.last < self.first:
            raise InputError("the last day lies before the first")
        if self.first.year < MIN_YEAR or self.last.year > MAX_YEAR:
            raise InputError(f"days lie in the years {MIN_YEAR} to {MAX_YEAR}")

    @property
    def days(self) -> int:
        """How long it is."""
        return (self.last - self.first).days + 1


@dataclass(frozen=True)
class Overview:
    """What is known of a period."""

    examinations: int  # how many were saved, whatever the models
    images: int  # in them
    answered: int  # examinations that the model answered about
    # images by day, or by month where the period is long, and by decision; no gaps
    volume: dict[str, dict[str, int]]
    decisions: dict[str, int]  # images by decision
    positives: int  # images at or above the threshold, those left to a pathologist included
    probabilities: list[int]  # images in each of ``PROBABILITY_BINS`` bins
    # of examinations read "before" the answers were shown, and of those "after"
    agreement: dict[str, Agreement]


def list_models_used(clinic: Installation, actor: Actor | None) -> list[str]:
    """Return keys of the models that anything was ever answered by (``tallies.model_key``)."""
    wanted = select(Tally.model).where(
        Tally.owner_id == _owner(actor), Tally.kind == EXAMINATIONS, Tally.model > ANY_MODEL
    )
    with clinic.database.snapshot() as session:
        return sorted(session.scalars(wanted.distinct()))


def find_first_day(clinic: Installation, actor: Actor | None) -> date | None:
    """Return the day of the first examination that is counted; None where there is none."""
    wanted = select(func.min(Tally.span)).where(
        Tally.owner_id == _owner(actor),
        Tally.kind == EXAMINATIONS,
        Tally.model == ANY_MODEL,
        Tally.span < MONTHS,
    )
    with clinic.database.snapshot() as session:
        found = session.scalar(wanted)
    return date.fromisoformat(found[1:]) if found else None


def count_period(clinic: Installation, actor: Actor | None, model: str, period: Period) -> Overview:
    """Count a period of a doctor's own patients, or for an admin of everybody's.

    ``model`` is a key that ``list_models_used`` returns. NotSignedIn where nobody is signed in.
    """
    owner, ranges = _owner(actor), _split_period(period)
    spans = [(day(period.first), day(period.last))] if period.days <= MAX_DAYS_BY_DAY else ranges
    with clinic.database.snapshot() as session:
        found = _sum_ranges(session, SUMS, ranges, owner=owner, model=model)
        volume = _sum_ranges(session, VOLUME, spans, owner=owner, model=model)
    return Overview(
        examinations=found.get((ANY_MODEL, EXAMINATIONS, ""), 0),
        images=found.get((ANY_MODEL, IMAGES, ""), 0),
        answered=found.get((model, EXAMINATIONS, ""), 0),
        volume=_volume(volume, period),
        decisions={key: n for (_, kind, key), n in found.items() if kind == DECISIONS},
        positives=found.get((model, POSITIVES, ""), 0),
        probabilities=[
            found.get((model, PROBABILITIES, bin_key(number)), 0)
            for number in range(PROBABILITY_BINS)
        ],
        agreement={shown: _agreement(found, model, shown) for shown in (BEFORE, AFTER)},
    )


def _owner(actor: Actor | None) -> int:
    """Return whose tallies an account may see."""
    known = require_account(actor)
    return known.account_id if known.role == "doctor" else EVERYBODY


def _split_period(period: Period) -> list[tuple[str, str]]:
    """Return first and last span of the whole months, and of the days before and after them."""
    one = timedelta(days=1)
    begin = period.first
    if begin.day > 1:
        begin = (begin.replace(day=28) + 4 * one).replace(day=1)
    end = (period.last + one).replace(day=1)  # no more of a whole month
    if begin >= end:
        return [(day(period.first), day(period.last))]
    ranges = [(month(begin), month(end - one))]
    if period.first < begin:
        ranges.append((day(period.first), day(begin - one)))
    if end <= period.last:
        ranges.append((day(end), day(period.last)))
    return ranges


def _sum_ranges(
    session: Session, sums: TextClause, ranges: Iterable[tuple[str, str]], **of: Any
) -> Counter[tuple[str, ...]]:
    """Sum over each range on its own, or SQLite reads all of an owner's."""
    found: Counter[tuple[str, ...]] = Counter()
    for first, last in ranges:
        for *key, number in session.execute(sums, {**of, "first": first, "last": last}):
            found[tuple(key)] += int(number)
    return found


def _volume(found: Counter[tuple[str, ...]], period: Period) -> dict[str, dict[str, int]]:
    daily = period.days <= MAX_DAYS_BY_DAY
    spans = pandas.period_range(period.first, period.last, freq="D" if daily else "M")
    volume = {str(span): dict.fromkeys(ANSWERS, 0) for span in spans}
    for (span, decision), number in found.items():
        volume[span[1:] if daily else span[1:8]][decision] += number
    return volume


def _agreement(found: Mapping[tuple[str, ...], int], model: str, shown: str) -> Agreement:
    def number(verdict: str, label: str) -> int:
        return found.get((model, AGREEMENT, agreement_key(shown, verdict, label)), 0)

    return Agreement(
        both=number("invasive", "malignant"),
        missed=number("invasive", "benign"),
        raised=number("none", "malignant"),
        neither=number("none", "benign"),
        indeterminate=number("indeterminate", "malignant") + number("indeterminate", "benign"),
    )
