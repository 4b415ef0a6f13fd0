"""What maps are put to: each trial against maps whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray

from bcd_models.config import DecisionConfig, Estimate, PreprocessConfig
from bcd_models.errors import InputError
from bcd_models.explain.cells import GRID
from training.evaluate.faithfulness import maps, page, trials
from training.evaluate.faithfulness.maps import Way
from training.evaluate.faithfulness.measure import measure
from training.evaluate.faithfulness.page import Faithfulness, Measured
from training.evaluate.schema import Counts, Model

SIDE = 96
LEFT = np.zeros((GRID, GRID), np.float32)
LEFT[:, : GRID // 2] = 1


def margins_of(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of a network that looks at the left half alone."""
    margins: NDArray[np.float32] = inputs[..., : SIDE // 2].mean((1, 2, 3))
    return margins


@pytest.fixture
def one() -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(1, 2, (3, SIDE, SIDE)).astype(np.float32)


def box(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map that follows the image: the mean of each cell."""
    side = inputs.shape[-1] // GRID
    cells: NDArray[np.float32] = inputs[0].mean(0).reshape(GRID, side, GRID, side).mean((1, 3))
    return cells


def test_a_true_map_s_gaps_are_large_and_its_opposite_s_are_their_negative(
    one: NDArray[np.float32],
) -> None:
    nothing = np.zeros_like(one)
    true = np.array(trials.remove(margins_of, one, nothing, LEFT))
    assert (true > 0.9).all()
    assert trials.impute(margins_of, one, LEFT) == pytest.approx(
        -trials.impute(margins_of, one, -LEFT), abs=0.05
    )
    assert np.allclose(trials.remove(margins_of, one, nothing, -LEFT), -true, atol=0.35)
    by_chance = maps.by_chance(0)
    gaps = [trials.remove(margins_of, one, nothing, by_chance(one[None])) for _ in range(50)]
    assert np.abs(np.mean(gaps, 0)).max() < 0.15


def test_a_map_without_differences_gains_nothing_by_the_order_of_its_cells(
    one: NDArray[np.float32],
) -> None:
    flat = np.zeros((GRID, GRID), np.float32)
    gaps = trials.remove(margins_of, one, np.zeros_like(one), flat)
    assert np.abs(gaps).max() < 0.4


def test_composites_are_told_by_the_cells_of_their_malignant_half() -> None:
    assert trials.separate(LEFT, LEFT > 0) == (1.0, 1.0)
    assert trials.separate(-LEFT, LEFT > 0) == (0.0, 0.0)


def test_a_map_that_follows_the_image_turns_and_shifts_with_it(one: NDArray[np.float32]) -> None:
    slope = np.linspace(0, 4, SIDE, dtype=np.float32)
    inputs = one[None] + slope[:, None] + slope**2
    assert trials.turn_along(box, inputs) == pytest.approx(1)
    assert trials.shift_along(box, inputs) > 0.95
    fixed = np.arange(GRID * GRID, dtype=np.float32).reshape(GRID, GRID)
    assert trials.turn_along(lambda _: fixed, inputs) < 0  # the average map of any image
    assert trials.correlate(np.zeros((2, 2)), np.arange(4.0)) == 0


def test_views_make_a_map_turn_with_the_image(one: NDArray[np.float32]) -> None:
    """And a mean that isn't turned back, or a map that leans to one side, doesn't."""
    lean = np.linspace(0, 9, GRID, dtype=np.float32)

    class Leaning:
        gives = frozenset(("contributions",))

        def contributions(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.stack([box(one[None]) + lean for one in inputs])

    for views, low, high in ((1, -1, 0.8), (4, 0.999, 1)):
        of = maps.by_method(Way("hirescam", views), Leaning(), DecisionConfig())
        assert low <= trials.turn_along(of, one[None]) <= high + 1e-9


def test_haematoxylin_is_where_the_image_is_blue() -> None:
    rgb = np.full((1, 3, SIDE, SIDE), 0.9, np.float32)
    rgb[..., : SIDE // 2] = np.array([0.35, 0.25, 0.6], np.float32)[:, None, None]
    config = PreprocessConfig(input_size=SIDE, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (config.mean, config.std))
    cells = maps.by_haematoxylin(config)((rgb - mean) / std)
    assert cells.shape == (GRID, GRID)
    assert cells[:, : GRID // 2].min() > cells[:, GRID // 2 :].max()


def test_parts_of_a_network_are_randomised_from_its_end() -> None:
    network = timm.create_model("mobilenetv2_100", num_classes=2).eval()
    before = dict(network.named_parameters())
    first, last = "conv_stem.weight", "classifier.weight"
    for parts, is_first_kept in ((1, True), (trials.CASCADE, False)):
        changed = dict(trials.randomise(network, 0, parts).named_parameters())
        assert not torch.equal(changed[last], before[last])
        assert torch.equal(changed[first], before[first]) == is_first_kept
    again = dict(trials.randomise(network, 0).named_parameters())
    other = dict(trials.randomise(network, 1).named_parameters())
    assert torch.equal(again[last], changed[last])
    assert not torch.equal(other[last], changed[last])


def figure(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.05, high=value + 0.05)


def measured(name: str, **changes: Any) -> Measured:
    figures = {
        "deletion": 1.0,
        "composites": 0.9,
        "turns": 0.9,
        "shifts": 0.9,
        "randomised": 0.0,
        **changes,
    }
    glass = figures.pop("glass", 0.0)
    return Measured(
        name=name,
        patches=9,
        figures={trial: figure(value) for trial, value in figures.items()},
        glass=glass,
        cascade=(0.9, 0.1),
        milliseconds=1,
        forwards=1,
    )


def document(*ways: Measured) -> Faithfulness:
    return Faithfulness(
        models=(Model(name="m", version="1", weights_sha256="0" * 64, threshold=0.5),),
        corpus_fingerprint="f",
        counts=Counts(images=9, cases=9, benign=0, malignant=9),
        intervals="none",
        ways=(*ways, measured("haematoxylin", deletion=0.3, composites=0.55)),
    )


@pytest.mark.parametrize(
    ("changes", "lacks"),
    [
        ({}, ""),
        ({"deletion": 0.6}, "deletion gap of"),
        ({"deletion": 0.3}, "above the stain"),
        ({"composites": 0.7}, "on composites"),
        ({"composites": 0.58}, "composites above the stain"),
        ({"turns": 0.7}, "quarter turns"),
        ({"shifts": 0.7}, "shifts"),
        ({"glass": 0.2}, "glass"),
        ({"randomised": 0.5}, "random weights"),
    ],
)
def test_the_default_is_the_cheapest_map_that_lacks_nothing(
    changes: dict[str, float], lacks: str
) -> None:
    made = document(measured("hirescam", **changes), measured("occlusion", deletion=2.0))
    faults = page.find_faults(made, Way("hirescam"))
    assert bool(faults) == bool(lacks)
    assert lacks in "; ".join(faults)
    chosen = page.choose(made)
    assert chosen
    assert chosen.method == ("occlusion" if lacks else "hirescam")
    assert f"The default is {chosen.name}." in page.tabulate(made)


def test_no_map_is_the_default_where_none_passes() -> None:
    made = document(measured("hirescam", turns=0), measured("occlusion", glass=0.5))
    assert page.choose(made) is None
    assert "None passes" in page.tabulate(made)


@pytest.mark.timeout(600)
def test_the_maps_of_fold_models_are_measured_on_what_they_held_out(
    make_fold_model: Any, corpus_folder: Path, tmp_path: Path
) -> None:
    models = [make_fold_model(fold=fold) for fold in (0, 1)]
    ways = (Way("gradcam"), Way("occlusion", patches=4))
    found = measure(models, corpus_folder, ways, patches=8)
    assert [one.name for one in found.ways] == ["gradcam", "occlusion", "haematoxylin", "random"]
    assert found["gradcam"].patches == found.counts.images == found.counts.malignant == 8
    for one in found.ways:
        assert {"deletion", "composites", "turns", "shifts", "road"} <= one.figures.keys()
        assert ("randomised" in one.figures) == (one.name in ("gradcam", "occlusion"))
    assert len(found["gradcam"].cascade) == trials.CASCADE
    file = tmp_path / page.FILE
    file.write_text(found.model_dump_json(), "utf-8")
    assert page.read(file, models[0].weights_sha256) == found
    with pytest.raises(InputError, match="of other weights"):
        page.read(file, "0" * 64)
