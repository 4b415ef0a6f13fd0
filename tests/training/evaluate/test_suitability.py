"""The gate is fitted, measured on what it has not learnt from, and stored, by one command."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from bcd_models import BCDClassifier
from bcd_models.errors import InputError
from bcd_models.images.suitability import NUMBERS
from tests.conftest import CARDS
from tests.support import synthetic
from training import command
from training.evaluate.suitability import measure, negatives, page
from training.evaluate.suitability.measure import Group, fit
from training.evaluate.suitability.page import Suitability


def groups(rng: np.random.Generator, shift: float) -> list[Group]:
    """Tissue and pictures in five folds; those of fold 2 lie elsewhere by a shift."""
    folds = np.arange(200) % 5
    moved = np.where(folds == 2, shift, 0.0)[:, None]
    made: list[Group] = []
    for kind, learnt in (("tissue", "tissue"), ("stain", "stain"), ("picture", "picture")):
        centre = 3.0 * len(made)
        numbers: NDArray[np.floating] = rng.normal(centre, 1, (200, len(NUMBERS))) + moved
        made.append(Group(kind, "all", numbers, folds, learnt))  # type: ignore[arg-type]
    return made


def test_a_fold_s_gate_has_not_seen_it() -> None:
    near, far = (groups(np.random.default_rng(0), shift) for shift in (0.0, 50.0))
    assert fit(near, "", without=2) == fit(far, "", without=2)
    assert fit(near, "", without=1) != fit(far, "", without=1)


def test_the_command_fits_measures_and_stores(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "CROPS", 40)
    monkeypatch.setattr(negatives, "IMAGES_PER_DRAWN_KIND", 40)
    monkeypatch.setattr(measure, "PASSES", 15)
    monkeypatch.setattr(measure, "LADDER", measure.LADDER[:2])
    folder, out = tmp_path / "model", tmp_path / "suitability.json"
    shutil.copytree(CARDS / "bcd-mobilenetv2", folder)
    before = BCDClassifier.from_pretrained(folder)
    arguments = ["--corpus", str(corpus_folder), "--out", str(out), "--model", str(folder)]
    with pytest.raises(SystemExit) as end:
        command.run(measure.main, arguments)
    assert end.value.code == 0
    document = Suitability.model_validate_json(out.read_bytes())
    after = BCDClassifier.from_pretrained(folder)
    assert after.config.suitability == document.gate
    assert after.config == before.config.model_copy(update={"suitability": document.gate})
    cat = np.asarray(Image.fromarray(data.chelsea()).resize((50, 50)))
    assert after.predict(cat).findings
    assert not after.predict(synthetic.patch("malignant", 5)).findings
    assert document.tissue[0].refused <= 0.1
    pooled = {one.kind: one.refused for one in document.others if one.source == "flat"}
    assert pooled == {"flat": 1}
    table = page.tabulate(document)
    assert "| real patches, all |" in table
    assert all(f"| {one.kind}, {one.source} |" in table for one in document.tissue)
    brief = page.summarise(document)
    for kind in ("pen", "photograph", "inverted", "noise", "brown stain"):
        assert f"| {kind}, " in brief
    assert page.read(out, after.config.suitability) == document
    assert page.read(tmp_path / "none.json", after.config.suitability) is None
    with pytest.raises(InputError, match="measures another gate"):
        page.read(out, before.config.suitability)


@pytest.mark.parametrize("ink", negatives.INKS)
def test_ink_lies_on_tissue_and_takes_its_light(ink: str) -> None:
    patch = synthetic.patch("malignant", 5)
    for seed in range(20):
        marked = negatives.mark_with_pen(patch, np.random.default_rng(seed), negatives.INKS[ink])
        assert (marked <= patch).all()
        covered = (marked < 0.8 * patch).any(2).mean()
        assert covered > 0.05
