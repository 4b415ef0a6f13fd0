"""Every method: what its maps are made of, that they turn with the image, and leave nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bcd_models import BCDClassifier, BCDEnsemble, InputError
from bcd_models.explain import methods, occlusion, shap
from bcd_models.explain.cells import GRID, compute_margins, find_fill, hide
from bcd_models.explain.draw import draw_map
from bcd_models.explain.methods import METHODS
from bcd_models.images.preprocess import turn, turn_back
from bcd_models.models import classifier
from bcd_models.models.ensemble import EnsembleConfig
from bcd_models.runtime import choice
from tests.conftest import CARDS, MODELS, absent
from tests.support import synthetic

BY_PACKAGE = {"shap": "shap", "integrated_gradients": "captum"}
BATCHED = [name for name in METHODS if name != "scorecam"]  # which costs seconds a view


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return with_its_package(request.param)


@pytest.fixture(params=BATCHED)
def quick(request: pytest.FixtureRequest) -> str:
    return with_its_package(request.param)


def with_its_package(name: str) -> str:
    package = BY_PACKAGE.get(name)
    if package and find_spec(package) is None:
        absent(f"{package} is not installed")
    return name


@pytest.fixture
def light() -> BCDClassifier:
    """The lighter model, whose network nobody has taken."""
    return BCDClassifier.from_pretrained(CARDS / "bcd-mobilenetv2")


@pytest.fixture(scope="module")
def patch() -> Image.Image:
    return Image.fromarray(synthetic.patch("malignant", 3))


def hooks(network: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._backward_hooks) for m in network.modules())


def heat(model: Any, image: Image.Image, method: str, **more: Any) -> np.ndarray:
    explained = model.explain(image, method=method, label="malignant", suitability="ignore", **more)
    assert explained.method == method
    heatmap: np.ndarray = explained.heatmap
    return heatmap


def test_a_map_has_the_image_s_size_and_range(
    light: BCDClassifier, patch: Image.Image, method: str
) -> None:
    heatmap = heat(light, patch, method)
    assert heatmap.shape == (50, 50)
    assert heatmap.dtype == np.float32
    assert 0 <= heatmap.min() <= heatmap.max() <= 1
    assert heatmap.std() > 0


def test_a_map_of_several_views_turns_with_the_image(
    light: BCDClassifier, patch: Image.Image, quick: str
) -> None:
    how, inputs = METHODS[quick], light.preprocess(patch).numpy()
    views = 4 if how.asks in ("logits", "network") else 8  # of those that cost more, the turns
    forward, _ = light.prepare_method(quick)

    def draw(pixels: np.ndarray, views: int) -> np.ndarray:
        rule = light.config.decision
        return draw_map(how, forward, pixels, rule, "malignant", (48, 48), views)

    upright, turned = (draw(pixels, views) for pixels in (inputs, turn(inputs, views - 1)))
    assert np.abs(turn(upright, views - 1) - turned).max() < 1e-4
    assert np.abs(upright - turned).max() > 1e-3
    assert np.abs(upright - draw(inputs, 1)).max() > 1e-3


def test_views_are_turned_back() -> None:
    square = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    for which in range(8):
        assert np.array_equal(turn_back(turn(square, which), which), square)


@pytest.mark.parametrize("views", [0, 2, 16, "8", None])
def test_other_numbers_of_views_are_refused(
    light: BCDClassifier, patch: Image.Image, views: Any
) -> None:
    with pytest.raises(InputError, match="1, 4 or 8 views"):
        light.explain(patch, views=views)


def test_nothing_is_left_on_a_network(light: BCDClassifier, patch: Image.Image, quick: str) -> None:
    network = light.network.train()
    before = {name: one.clone() for name, one in network.state_dict().items()}
    heat(light, patch, quick)
    assert hooks(network) == 0
    assert all(module.training for module in network.modules())
    assert all(one.requires_grad and one.grad is None for one in network.parameters())
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


def test_inference_mode_and_threads_change_nothing(
    light: BCDClassifier, patch: Image.Image, quick: str
) -> None:
    alone = heat(light, patch, quick)
    with torch.inference_mode():
        assert np.array_equal(heat(light, patch, quick), alone)
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: heat(light, patch, quick), range(4)):
            assert np.abs(together - alone).max() < 1e-5
    assert hooks(light._own_network()) == 0


@pytest.mark.parametrize("name", MODELS)
def test_hirescam_is_one_map_by_export_by_torch_and_by_the_package(
    name: str, patch: Image.Image
) -> None:
    from pytorch_grad_cam import HiResCAM

    model = BCDClassifier.from_pretrained(CARDS / name)
    by_export, inputs = heat(model, patch, "hirescam"), model.preprocess(patch)
    assert not model._is_taken
    assert model._network is None
    cells = model._get_forward().contributions(inputs.numpy())[0]
    assert cells.shape == (6, 6)
    model.runtime = "torch"
    assert np.abs(heat(model, patch, "hirescam") - by_export).max() < 1e-5
    network = model.network
    layer = network.get_submodule("blocks.4")

    def margin(logits: torch.Tensor) -> torch.Tensor:
        return logits[1] - logits[0]

    with HiResCAM(network, [layer]) as cam:
        theirs = cam(inputs, [margin])[0]
    ours = np.maximum(cells, 0)
    enlarged = Image.fromarray(ours / ours.max()).resize(theirs.shape, Image.Resampling.BILINEAR)
    assert np.corrcoef(np.asarray(enlarged).ravel(), theirs.ravel())[0, 1] > 0.99


def test_occlusion_finds_what_the_margin_hangs_on(light: BCDClassifier) -> None:
    """Of a forward that sums the brightness of one cell, that cell alone."""

    class OneCell:
        gives = frozenset({"logits"})

        def logits(self, inputs: np.ndarray) -> np.ndarray:
            sums = inputs[:, 0, 16:32, 32:48].sum((1, 2))
            return np.stack([0 * sums, sums], 1).astype(np.float32)

    image = np.random.default_rng(0).random((1, 3, 96, 96)).astype(np.float32)
    image[:, :, 16:32, 32:48] += 1
    cells = occlusion.compute_occlusion(OneCell(), image, light.config.decision, "malignant")[0]
    assert np.unravel_index(cells.argmax(), cells.shape) == (1, 2)
    benign = occlusion.compute_occlusion(OneCell(), image, light.config.decision, "benign")[0]
    assert np.allclose(benign, -cells)


@pytest.mark.parametrize("name", ["shap", "integrated_gradients"])
def test_contributions_add_up(light: BCDClassifier, patch: Image.Image, name: str) -> None:
    """To what the margin is beyond that of an image of the mean colour."""
    with_its_package(name)
    light.runtime = "torch"
    inputs, forward = light.preprocess(patch).numpy(), light._get_forward()
    decision = light.config.decision
    cells = METHODS[name].compute(forward, inputs, decision, "malignant")[0]
    assert cells.shape == (GRID, GRID)
    fill = np.broadcast_to(find_fill(inputs), inputs.shape).astype(np.float32)
    margin, of_fill = compute_margins(forward, np.concatenate([inputs, fill]))
    expected = decision.slope * float(margin - of_fill)
    assert float(cells.mean()) == pytest.approx(expected, rel=0.05, abs=0.05)


def test_shap_draws_at_least_256_masks_and_leaves_the_generator_alone(
    light: BCDClassifier, patch: Image.Image
) -> None:
    with_its_package("shap")
    assert shap.FORWARDS >= 256
    before = np.random.get_state()[1].tolist()
    heat(light, patch, "shap")
    assert np.random.get_state()[1].tolist() == before


def test_what_is_hidden_has_the_mean_colour() -> None:
    one = np.random.default_rng(0).random((3, 98, 98)).astype(np.float32)
    kept = np.ones((2, GRID, GRID), bool)
    kept[1] = False
    shown, hidden = hide(one, kept)
    assert np.array_equal(shown, one)
    assert np.allclose(hidden, one.mean((1, 2))[:, None, None])


@pytest.mark.parametrize("name", ["shap", "layercam", "integrated_gradients"])
def test_a_missing_package_is_named(
    light: BCDClassifier, patch: Image.Image, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'bcd-models\[(explain|torch)\]'"):
        light.explain(patch, method=name)


def test_without_a_graph_and_torch_occlusion_stands_in(
    light: BCDClassifier, patch: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says that it is."""
    light._forward = None
    del light._stored.graphs["explain.onnx"]
    expected = heat(light, patch, "occlusion")
    monkeypatch.setattr(classifier, "is_torch_installed", lambda: False)
    explained = light.explain(patch, method="hirescam", label="malignant", suitability="ignore")
    assert explained.method == methods.FALLBACK == "occlusion"
    assert np.array_equal(explained.heatmap, expected)


def test_an_ensemble_s_map_is_its_members_mean(patch: Image.Image, quick: str) -> None:
    members = [BCDClassifier.from_pretrained(CARDS / name) for name in MODELS]
    config = EnsembleConfig(name="pair", version="1", members=("one", "two"))
    expected = np.mean([heat(member, patch, quick) for member in members], 0)
    assert np.abs(heat(BCDEnsemble(config, members), patch, quick) - expected).max() < 1e-5
