"""Lists as HTML tables, a page at a time. What is handed over as text is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

from clinic.analysis.wording import printable
from clinic.storage.paging import Page


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """Return a table of cells that are HTML; on a phone each row is a block with its heads."""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    body = "".join(f"<tr>{_cells(heads, row)}</tr>" for row in rows)
    return f"""
<table class="bcd-table" aria-label="{escape(label)}">
  <thead><tr>{head}</tr></thead><tbody>{body}</tbody>
</table>
"""


def empty(lead: str, words: str) -> str:
    """Return what stands in place of a list that holds nothing; ``words`` are HTML."""
    return f"""
<section class="bcd-card bcd-empty"><p class="bcd-lead">{escape(lead)}</p><p>{words}</p></section>
"""


def link(path: str, words: str, /, **query: str) -> str:
    """Return a link to a page of ours."""
    address = f"{path}?{urlencode(query, quote_via=quote)}" if query else path
    return f'<a href="{escape(address)}">{cell(words)}</a>'


def cell(text: str) -> str:
    """Return a user's text within a cell; an em dash where there is none."""
    return escape(printable(text)) if text else "—"


def lines(text: str) -> str:
    """Return a user's text of several lines within a cell; an em dash where there is none."""
    parts = (escape(printable(line.expandtabs())) for line in text.split("\n"))
    return "<br>".join(parts) or "—"


def facts(known: Mapping[str, str]) -> str:
    """Return what a ``dl`` holds: names, and values that are HTML already."""
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{one}</dd></div>" for name, one in known.items()
    )


def moment(when: datetime) -> str:
    """Return a time within a cell."""
    return f'<time datetime="{when.isoformat()}">{when:%Y-%m-%d %H:%M} UTC</time>'


def pager(page: Page[Any], path: str, /, **query: str) -> str:
    """Return the way to the pages before and after; nothing where there is one page only."""
    if page.pages == 1:
        return ""
    before, after = page.number - 1, page.number + 1
    parts = [
        link(path, "Earlier page", **query, sheet=str(before)) if before else "",
        f"<span>Page {page.number} of {page.pages}, {page.total} in all</span>",
        link(path, "Next page", **query, sheet=str(after)) if after <= page.pages else "",
    ]
    return f'<nav class="bcd-pager" aria-label="Pages of the list">{"".join(parts)}</nav>'


def page_number(text: str) -> int:
    """Return the number of a page as an address names it; 1 where it names none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def _cells(heads: Sequence[str], row: Sequence[str]) -> str:
    pairs = zip(heads, row, strict=True)
    return "".join(f'<td data-label="{escape(head)}"><div>{one}</div></td>' for head, one in pairs)
