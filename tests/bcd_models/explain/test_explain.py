"""Heat maps: what they add up to, their scale, and that they leave nothing behind."""

from __future__ import annotations

import gc
import resource
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bcd_models import BCDClassifier, ImageError, InputError
from bcd_models.config import DecisionConfig
from bcd_models.explain.gradcam import _margin_of_cells
from bcd_models.images.open import ImageLimits
from tests.support import synthetic


def hooks(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules())


def test_cells_add_up_to_the_margin(model: BCDClassifier, patches: list[Image.Image]) -> None:
    for patch in patches[:3]:
        pixels = model.preprocess(patch)
        with torch.inference_mode():
            logits = model(pixels)[0]
        cells, bias = _margin_of_cells(model.network, pixels)
        assert cells.shape == (pixels.shape[2] // 32, pixels.shape[3] // 32)
        margin = float(logits[1] - logits[0])
        assert float(cells.mean()) + bias == pytest.approx(margin, abs=1e-3)


def test_the_map_is_of_the_layer_that_cards_name(
    model: BCDClassifier, patches: list[Image.Image]
) -> None:
    kept = []
    layer = model.network.get_submodule(model.backbone.cam_layer)
    handle = layer.register_forward_hook(lambda _, __, output: kept.append(output))
    with torch.inference_mode():
        features = model.network.forward_features(model.preprocess(patches[0]))
    handle.remove()
    assert torch.equal(kept[0], features)


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
    assert hooks(light_model) == 0


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
    assert hooks(model) == 0
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
        light_model.explain(patches[1], ImageLimits(), "gradcam", "malignant")  # type: ignore[misc]


@pytest.mark.parametrize("opacity", [-0.1, 1.1, 2, float("nan")])
def test_an_opacity_beyond_its_range_is_refused(
    light_model: BCDClassifier, patches: list[Image.Image], opacity: float
) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        light_model.explain(patches[1]).overlay(opacity)
