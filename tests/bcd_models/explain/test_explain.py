"""Heat maps: what they add up to, their scale, and that they leave nothing behind."""

from __future__ import annotations

import copy
import gc
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bcd_models import BCDClassifier, ImageError, InputError
from bcd_models.config import DecisionConfig
from bcd_models.explain.methods import METHODS, Method
from bcd_models.images.open import ImageLimits
from tests.conftest import CARDS
from tests.support import synthetic
from tests.support.command_line import bcd


def hooks(network: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._backward_hooks) for m in network.modules())


def cells_of(model: BCDClassifier, image: Image.Image) -> np.ndarray:
    ready = [model.prepare(np.array(image))]
    return model._get_forward().cells(model._inputs(ready))[0]


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_cells_add_up_to_the_margin(
    model: BCDClassifier, patches: list[Image.Image], runtime: str
) -> None:
    model = copy.deepcopy(model)
    model.runtime = runtime
    side = model.config.preprocess.input_size // 32
    for patch in patches[:3]:
        cells = cells_of(model, patch)
        assert cells.shape == (side, side)
        (margin,) = model.compute_margins([model.prepare(np.array(patch))]).values
        assert float(cells.mean()) == pytest.approx(margin, abs=1e-3)


def test_the_cells_are_grad_cam_s(model: BCDClassifier, patches: list[Image.Image]) -> None:
    """By another implementation, but for the offset and the scaling to its own maximum."""
    from pytorch_grad_cam import GradCAM

    other = copy.deepcopy(model)
    network = other.network
    cells = cells_of(model, patches[1])
    bias = network.get_classifier().bias.detach()
    raw = np.maximum(cells - float(bias[1] - bias[0]), 0)

    def margin(logits: torch.Tensor) -> torch.Tensor:
        return logits[1] - logits[0]

    with GradCAM(network, [network.bn2]) as cam:
        theirs = cam(other.preprocess(patches[1]), [margin])[0]
    size = theirs.shape[::-1]
    ours = np.asarray(Image.fromarray(raw / max(raw.max(), 1e-7)).resize(size, 2))
    assert np.abs(ours - theirs).max() < 0.1
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99


def test_heatmap_has_the_images_size_and_range(model: BCDClassifier) -> None:
    image = Image.fromarray(synthetic.patch("malignant", 2, pixels=(180, 120), width_um=300))
    explanation = model.explain(image)
    assert explanation.heatmap.shape == (120, 180)
    assert explanation.heatmap.dtype == np.float32
    assert explanation.heatmap.min() >= 0
    assert explanation.heatmap.max() <= 1
    assert explanation.overlay().size == (180, 120)
    assert explanation.prediction.probability == pytest.approx(model.predict(image).probability)
    assert np.array_equal(np.asarray(explanation.overlay(0)), np.asarray(image))


def test_the_two_labels_never_share_a_pixel(
    model: BCDClassifier, patches: list[Image.Image]
) -> None:
    """What speaks for one label, beyond the threshold, can't speak for the other."""
    for patch in patches[:2]:
        benign = model.explain(patch, label="benign").heatmap
        malignant = model.explain(patch, label="malignant").heatmap
        assert not np.any((benign > 0) & (malignant > 0))


def test_default_label_is_the_predicted_one(
    light_model: BCDClassifier, patches: list[Image.Image]
) -> None:
    explanation = light_model.explain(patches[1])
    assert explanation.label == explanation.prediction.label


def test_an_image_without_evidence_stays_cold(
    light_model: BCDClassifier, patches: list[Image.Image]
) -> None:
    """The scale is fixed: a map is not stretched to its own maximum."""
    out_of_reach = DecisionConfig(slope=1e-3, threshold=0.999)
    model = BCDClassifier(
        light_model.config.model_copy(update={"decision": out_of_reach}), light_model.network
    )
    assert model.explain(patches[1], label="malignant").heatmap.max() == 0


def test_threads_get_what_one_thread_gets(
    light_model: BCDClassifier, patches: list[Image.Image]
) -> None:
    alone = [light_model.explain(patch, label="malignant").heatmap for patch in patches]
    probabilities = light_model.predict_proba(patches)
    with ThreadPoolExecutor(8) as pool:
        explained = pool.map(lambda p: light_model.explain(p, label="malignant"), patches * 2)
        predicted = pool.map(light_model.predict, patches * 2)
        for i, explanation in enumerate(explained):
            assert np.allclose(explanation.heatmap, alone[i % 8], atol=1e-5)
        for i, answer in enumerate(predicted):
            assert answer.probability == pytest.approx(probabilities[i % 8], abs=1e-5)
    assert hooks(light_model._own_network()) == 0


def test_gradients_stay_off_the_model(
    light_model: BCDClassifier, patches: list[Image.Image]
) -> None:
    light_model.explain(patches[0])
    assert all(p.grad is None for p in light_model.parameters())
    assert all(p.requires_grad for p in light_model.parameters())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_runs_leave_no_hook_and_no_growing_memory(
    model: BCDClassifier, patches: list[Image.Image], two_threads: None
) -> None:
    def run(times: int) -> None:
        for i in range(times):
            model.explain(patches[i % 8])
        gc.collect()

    run(30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(200)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert hooks(copy.deepcopy(model).network) == 0
    assert after < before * 1.03, f"peak memory rose from {before} to {after} KiB"


def test_other_limits_hold_for_the_map_too(light_model: BCDClassifier) -> None:
    sliver = np.zeros((8, 40, 3), np.uint8)
    explained = light_model.explain(sliver, limits=ImageLimits(min_side=8))
    assert explained.heatmap.shape == (8, 40)
    with pytest.raises(ImageError, match="too small"):
        light_model.explain(sliver)


@pytest.mark.parametrize("label", ["Malignant", "MALIGNANT", "cancer", "", 1, 0, True])
def test_an_unknown_label_is_refused(
    light_model: BCDClassifier, patches: list[Image.Image], label: Any
) -> None:
    with pytest.raises(InputError, match="choose one of benign, malignant"):
        light_model.explain(patches[1], label=label)


def test_label_and_method_are_named(light_model: BCDClassifier, patches: list[Image.Image]) -> None:
    with pytest.raises(InputError, match="no method 'nocam'"):
        light_model.explain(patches[1], method="nocam")
    with pytest.raises(TypeError, match="positional"):
        light_model.explain(patches[1], "malignant")  # type: ignore[misc]


@pytest.mark.parametrize("opacity", [-0.1, 1.1, 2, float("nan"), None, "0.5", [0.5]])
def test_an_opacity_beyond_its_range_is_refused(
    light_model: BCDClassifier, patches: list[Image.Image], opacity: Any
) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        light_model.explain(patches[1]).overlay(opacity)


def test_one_more_explainer_takes_one_entry(
    light_model: BCDClassifier, patch_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found where a user would: in Python, and by the command."""

    def half(_forward: Any, inputs: np.ndarray, *_rest: Any) -> np.ndarray:
        return np.full((len(inputs), 2, 2), 0.5, np.float32)

    entry = Method(half, "Half", "nothing", "logits", is_stretched=True)
    monkeypatch.setitem(METHODS, "half", entry)
    assert (light_model.explain(patch_file, method="half").heatmap == 0.5).all()
    out = tmp_path / "map.png"
    model = CARDS / light_model.config.name
    done = bcd("explain", patch_file, "--model", model, "--out", out, "--method", "half")
    assert done.returncode == 0, done.stderr
    expected = light_model.explain(patch_file, method="half").overlay()
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(expected))
