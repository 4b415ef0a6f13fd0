"""Drawn images of twenty cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.labelled import Row, draw_cases, write_list


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """The folder of sixty patches, three a case, and the rows of their list, which is in it."""
    folder = tmp_path_factory.mktemp("drawn")
    rows = draw_cases(folder)
    write_list(folder, rows)
    return folder, rows
