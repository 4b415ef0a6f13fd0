"""CSV lists of images: a line an image, columns by their names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from bcd_models.errors import InputError

REMEDY = "separate columns by commas, and write decimals with a point"
_SURPLUS = "cells beyond the last column"


def read_list(
    path: Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each line stands, in words, and its cells by column; "" where there is none.

    Args:
        path: A CSV file in UTF-8 whose first line names the columns; capitals don't matter.
        needed: The columns that it must have.
        optional: Those that it may have; others are passed over.

    Raises:
        InputError: The list can't be read, lacks a column, or a line has more cells than columns.
    """
    if not path.is_file():  # to open a pipe would be to wait
        raise InputError(f"list {path} can't be read: there is no file of that name")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey=_SURPLUS, restval="", strict=True)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            if missing := [name for name in needed if name not in reader.fieldnames]:
                raise InputError(
                    f"list {path}, line 1: no column {missing[0]}; a list has {', '.join(needed)} "
                    f"and may have {', '.join(optional)}: {REMEDY}"
                )
            for row in reader:
                where = f"list {path}, line {reader.line_num}"
                if _SURPLUS in row:
                    raise InputError(
                        f"{where}: more cells than columns: {REMEDY}; put text with commas in "
                        "quotes"
                    )
                yield where, {name: row.get(name, "").strip() for name in (*needed, *optional)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"list {path} can't be read: {why}; save it as CSV, in UTF-8") from None
