"""What an answer costs: one patch, and folders of them, beside what a user would write instead."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from bcd_models import BCDClassifier, local
from bcd_models.config import LABELS
from bcd_models.explain import occlusion, shap
from bcd_models.explain.methods import METHODS
from bcd_models.images.image_list import SOURCE, LabelledImage
from bcd_models.images.scale import give_scale
from bcd_models.models.predictor import BATCH
from tests.benchmarks.bare_session import bare, leave_out_gate
from tests.benchmarks.record import record
from tests.benchmarks.timing import in_turn, ratio
from tests.conftest import CARDS, MODELS
from tests.support.running_app import EXAMPLES

FOLDER, LOOP = 2000, 100  # images of the folder; those that the loop takes, which is slow
RUNS, SETTLED = 30, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG patches of 50 x 50 pixels."""
    made = tmp_path_factory.mktemp("patches")
    chance = np.random.default_rng(0)
    for number in range(FOLDER):
        pixels = chance.integers(0, 256, (50, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made / f"{number:05}.png")
    return made


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(name: str) -> BCDClassifier:
    loaded = BCDClassifier.from_pretrained(CARDS / name)
    loaded.predict(np.zeros((50, 50, 3), np.uint8))
    return loaded


@pytest.fixture
def eager(name: str) -> Callable[[Image.Image], float]:
    """What a user would write: timm's model and its own transform."""
    network = timm.create_model(f"local-dir:{CARDS / name}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))

    def predicted(image: Image.Image) -> float:
        with torch.inference_mode():
            return float(network(transform(image)[None]).softmax(1)[0, 1])

    return predicted


def one_patch() -> Image.Image:
    return Image.open(EXAMPLES / "synthetic-malignant-1.png").convert("RGB").resize((50, 50))


@pytest.mark.bench
@pytest.mark.usefixtures("two_threads")
def test_one_patch(name: str, model: BCDClassifier, eager: Callable[..., float]) -> None:
    image = one_patch()
    pixels = np.asarray(image)
    ours, theirs = in_turn(
        lambda: model.predict(pixels), lambda: eager(image), runs=RUNS, settled=SETTLED
    )
    record(
        f"predict, one patch in memory, {name}: times faster",
        "eager timm model, its own transform, inference mode",
        ratio(theirs, ours),
        at_least=2.5,
    )


@pytest.mark.bench
@pytest.mark.usefixtures("two_threads")
def test_own_cost(name: str, model: BCDClassifier) -> None:
    pixels = np.asarray(one_patch())
    leave_out_gate(model)
    ours, forward = in_turn(
        lambda: model.predict(pixels), bare(model, 1), runs=RUNS, settled=SETTLED
    )
    record(
        f"own cost around the forward, one patch without the gate, {name}",
        "a bare ONNX Runtime session on a ready tensor",
        ratio(ours, forward),
        at_most=1.5,
    )


def streamed(model: BCDClassifier, paths: list[Path]) -> Callable[[], object]:
    """All answers about a folder, the library's way."""

    def act() -> None:
        assert sum(1 for _ in model.stream(paths)) == FOLDER

    return act


@pytest.mark.bench
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("two_threads")
def test_a_folder(name: str, model: BCDClassifier, folder: Path) -> None:
    session, batches = bare(model, BATCH), FOLDER // BATCH

    def ready() -> None:
        for _ in range(batches):
            session()

    gated, paths = copy.deepcopy(model), sorted(folder.iterdir())
    leave_out_gate(model)
    whole, ours, forward = in_turn(streamed(gated, paths), streamed(model, paths), ready, runs=3)
    for what, took, bound in (  # the looser bound first: a missed one ends the test
        (f"folder of {FOLDER:,} patches, images/s, {name}", whole, 0.65),  # the gate may cost 0.3
        (f"the same without the gate, {name}", ours, 0.85),
    ):
        record(
            what,
            "a bare ONNX Runtime session on ready tensors, same batch",
            ratio(forward, took) * FOLDER / (batches * BATCH),
            at_least=bound,
        )


@pytest.mark.bench
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("two_threads")
def test_the_same_folder_in_a_loop(
    name: str, model: BCDClassifier, eager: Callable[..., float], folder: Path
) -> None:
    paths = sorted(folder.iterdir())

    def looped() -> None:
        for path in paths[:LOOP]:
            eager(Image.open(path).convert("RGB"))

    ours, loop = in_turn(streamed(model, paths), looped, runs=3)
    record(
        f"the same folder: times faster, {name}",
        "a for loop: Pillow, timm's transform, eager torch, one by one",
        ratio(loop, ours) * FOLDER / LOOP,
        at_least=3,
    )


@pytest.mark.bench
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("two_threads")
def test_validation_of_the_same_folder(name: str, model: BCDClassifier, folder: Path) -> None:
    paths = sorted(folder.iterdir())
    images = [
        LabelledImage(
            path.name, path.name, path, LABELS[i % 2], f"case {i // 40}", SOURCE, give_scale(4), ""
        )
        for i, path in enumerate(paths)
    ]

    def validated() -> None:
        assert local.validate(model, images, ladder_images=0).figures.counts.images == FOLDER

    ours, streaming = in_turn(validated, streamed(model, paths), runs=3)
    record(
        f"bcd validate without the ladder, folder of {FOLDER:,} patches, {name}",
        "bcd predict of the same folder",
        ratio(ours, streaming),
        at_most=1.5,
    )


@pytest.mark.bench
@pytest.mark.usefixtures("two_threads")
def test_grad_cam(name: str, model: BCDClassifier) -> None:
    pixels = np.asarray(one_patch())
    inputs = model.preprocess(pixels).requires_grad_()
    network = copy.deepcopy(model).network

    def forward_and_backward() -> None:
        margin = network(inputs)[0]
        (margin[1] - margin[0]).backward()

    ours, theirs = in_turn(
        lambda: model.explain(pixels), forward_and_backward, runs=RUNS, settled=SETTLED
    )
    record(
        f"Grad-CAM, one patch, {name}",
        "one forward and backward of the bare model",
        ratio(ours, theirs),
        at_most=1.5,
    )


@pytest.mark.bench
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("method", "at_most", "runs"),
    [("hirescam", 2, RUNS), ("occlusion", occlusion.FORWARDS, 5), ("shap", shap.FORWARDS, 3)],
)
def test_maps_without_torch(
    name: str, model: BCDClassifier, method: str, at_most: float, runs: int
) -> None:
    inputs, how = model.preprocess(one_patch()).numpy(), METHODS[method]
    forward, used = model.prepare_method(method)
    assert used == method
    assert model._network is None

    def compute() -> None:
        how.compute(forward, inputs, model.config.decision, "malignant")

    ours, bare_forward = in_turn(compute, bare(model, 1), runs=runs, settled=runs // 2)
    record(
        f"cells of {how.title}, one view ({how.cost}), {name}",
        "one forward of a bare ONNX Runtime session",
        ratio(ours, bare_forward),
        at_most=at_most,
    )
