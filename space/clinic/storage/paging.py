"""Long lists, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

MAX_ROWS = 25  # rows

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some of many rows."""

    rows: tuple[T, ...]  # these
    total: int  # how many there are in all
    number: int  # of the page, from 1
    pages: int  # how many pages there are, 1 or more


def fetch_page(
    session: Session, rows: Select[*tuple[Any, ...]], number: int, row_type: type[T]
) -> Page[T]:
    """Return page ``number``, from 1, of ``rows`` in their order, or the nearest page there is.

    ``row_type`` is called with each row's columns by name.
    """
    counted = select(func.count()).select_from(rows.order_by(None).subquery())
    total = session.scalar(counted) or 0
    pages = max(1, -(-total // MAX_ROWS))
    number = min(max(1, number), pages)
    some = session.execute(rows.limit(MAX_ROWS).offset((number - 1) * MAX_ROWS))
    return Page(tuple(row_type(**row._mapping) for row in some), total, number, pages)
