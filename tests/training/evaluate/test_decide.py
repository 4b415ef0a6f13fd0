"""Operating points of the published models: fitted again, they are those in the cards."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bcd_models import BCDClassifier
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from tests.conftest import ROOT
from training import command
from training.evaluate import decide, metrics

CARDS = ROOT / "cards"
MARGINS = CARDS / "study" / "0.2.0" / "predictions.parquet"
ARMS = {
    "bcd-mobilenetv2": "mobilenetv2/tuned",
    "bcd-efficientnet-b2": "efficientnet_b2/tuned",
}


@pytest.mark.parametrize("name", ARMS)
def test_the_cards_hold_what_the_records_give(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(CARDS / name, folder)
    asked = ["--model", str(folder), "--margins", str(MARGINS), "--arm", ARMS[name]]
    with pytest.raises(SystemExit) as end:
        command.run(decide.main, asked)
    assert end.value.code == 0
    for file in (decide.DECISIONS, "config.json"):
        assert (folder / file).read_bytes() == (CARDS / name / file).read_bytes()


def test_figures_are_those_of_the_margins() -> None:
    frame = decide.read_margins(MARGINS, "mobilenetv2/tuned")
    within = frame[frame["source"] == "idc"].reset_index(drop=True)
    rule = BCDClassifier.from_pretrained(CARDS / "bcd-mobilenetv2").config.decision
    truth = metrics.is_malignant(within)
    probability = calibrate(within["margin"].to_numpy(), rule)
    for name, figures in decide.fit_points(within, rule).items():
        point = figures.point
        called = probability >= point.threshold
        assert point.sensitivity is not None
        assert point.specificity is not None
        assert point.negative_predictive_value is not None
        assert point.sensitivity.value == pytest.approx(called[truth].mean())
        assert point.specificity.value == pytest.approx((~called[~truth]).mean())
        assert point.negative_predictive_value.value == pytest.approx((~truth[~called]).mean())
        assert [one.alpha for one in figures.promises] == [0.02, 0.05, 0.1]
        assert all(one.loss <= one.alpha for one in figures.promises)
        shares = [one.referred for one in figures.promises]
        assert shares == sorted(shares, reverse=True)
        if name == "screening":
            assert np.round(point.sensitivity.value, 3) >= 0.95
        if name == "confirm":
            assert point.specificity.value >= 0.95


def test_an_unknown_arm_is_refused() -> None:
    with pytest.raises(InputError, match="holds no fold of resnet/plain"):
        decide.read_margins(MARGINS, "resnet/plain")
