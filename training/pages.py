"""Pages made by Jinja2 from a template and what a document says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from bcd_models.errors import InputError


def render(template: Path, **values: Any) -> str:
    """Return a template filled in; what it names and isn't given is an error.

    Args:
        template: A file; one that ends in ``.html`` escapes what it is given.
        values: By name. The filter ``cell`` writes a text as the cell of a Markdown table.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "/")
    return environment.get_template(template.name).render(values)


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a row's missing cells at its end are empty."""
    width = len(head)
    lines = (head, ["---"] * width, *rows)
    return "\n".join(f"| {' | '.join([*line, *[''] * (width - len(line))])} |" for line in lines)


def put_between(page: str, begin: str, end: str, table: str) -> str:
    """Replace what stands between two markers of a page; InputError without them."""
    before, _, rest = page.partition(begin)
    _, marker, after = rest.partition(end)
    if not marker:
        raise InputError(f"the page lacks the markers {begin!r} and {end!r}")
    return f"{before}{begin}\n{table}\n{end}{after}"
