"""What the gate costs beside an answer of the lightest network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.images.suitability import find_unsuitable
from tests.benchmarks.bare_session import leave_out_gate
from tests.benchmarks.record import record
from tests.benchmarks.timing import in_turn, ratio
from tests.conftest import CARDS
from tests.support.running_app import EXAMPLES

NAME = "bcd-mobilenetv2"
RUNS, SETTLED = 30, 20


@pytest.mark.bench
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("source", ["from a file", "in memory"])
def test_the_gate(source: str, tmp_path: Path) -> None:
    model = BCDClassifier.from_pretrained(CARDS / NAME)
    gate = model.suitability
    assert gate is not None
    leave_out_gate(model)
    path = tmp_path / "patch.png"
    image = Image.open(EXAMPLES / "synthetic-malignant-1.png").convert("RGB").resize((50, 50))
    image.save(path)
    asked = path if source == "from a file" else np.asarray(image)
    tiles = np.asarray(image)[None]
    judged, answered = in_turn(
        lambda: find_unsuitable(tiles, gate),
        lambda: model.predict(asked),
        runs=RUNS,
        settled=SETTLED,
    )
    record(
        f"the gate, one patch {source}",
        f"an answer of {NAME} without the gate",
        ratio(judged, answered),
        at_most=0.3,
    )
