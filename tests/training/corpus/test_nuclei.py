"""Nuclei drawn of a known size are measured at that size, at whatever scale they are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import synthetic
from training import command
from training.corpus import nuclei

DRAWN_UM = 7.5  # of the tumour's nuclei: ellipses with semi-axes of 4.4 and 3.2 micrometres


@pytest.mark.parametrize("zoom", [200, 100])
def test_sizes_follow_the_scale(zoom: int) -> None:
    """Two scales, of which the measure knows neither: it is told the magnification alone."""
    found = []
    for at_400x in (0.17, 0.25):
        mpp = at_400x * 400 / zoom
        tissue = synthetic.tissue(4, size=(560, 368), mpp=mpp, malignant=True)
        across = nuclei.measure_nuclei(tissue, zoom / 400)
        assert len(across) > 50
        found.append(float(np.median(across)))
        assert found[-1] * mpp == pytest.approx(DRAWN_UM, rel=0.15)
    assert found[0] / found[1] == pytest.approx(0.25 / 0.17, rel=0.15)


def test_the_command_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.breakhis_tree(
        tmp_path / "in", patients_per_class=1, images_per_patient=2, size=(420, 276)
    )
    with pytest.raises(SystemExit) as end:
        command.run(nuclei.main, ["--breakhis", str(tmp_path / "in")])
    assert not end.value.code
    printed = capsys.readouterr().out
    assert "| 100X malignant | 1 | 1 | " in printed
    assert "40X " not in printed, "too coarse to measure"
    scale = float(printed.partition("all as at 400X, malignant")[2].split("|")[6].split()[0])
    assert scale == pytest.approx(synthetic.FIELD_UM / 400, rel=0.2)


def test_nothing_to_measure_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.breakhis_tree(tmp_path / "in", patients_per_class=1, images_per_patient=1)
    with pytest.raises(SystemExit) as end:
        command.run(nuclei.main, ["--breakhis", str(tmp_path / "in")])
    assert end.value.code == 2
    assert "no nucleus found: name images of 100X, 200X, 400X" in capsys.readouterr().err
