"""The same answers by ONNX Runtime and by torch, and what happens where one of them can't."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from bcd_models import BCDClassifier, BCDEnsemble, InputError, ModelFolderError
from bcd_models.config import DecisionConfig
from bcd_models.hub.folder import GRAPHS
from bcd_models.images.open import open_image
from bcd_models.models import classifier
from bcd_models.models.ensemble import EnsembleConfig
from bcd_models.runtime import choice
from bcd_models.runtime.graph import export_self_contained
from tests.conftest import CARDS, MODELS, ROOT
from tests.support.running_app import EXAMPLES, save_small_model
from tests.support.slides import small_slides
from training.corpus.sources import idc, source

IMAGES = sorted(EXAMPLES.glob("*.png"))
REAL = 1000
BLOCKED = "import sys\nfor name in ('torch', 'timm', 'onnx'): sys.modules[name] = None\n"


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(choice.VARIABLE, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models"), "small")


@pytest.fixture
def loaded(folder: Path) -> BCDClassifier:
    return BCDClassifier.from_pretrained(folder)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The folder, to be spoilt."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def runtime_of(model: BCDClassifier) -> str:
    """What answers."""
    return model.predict(IMAGES[0]).runtime


def probabilities(model: BCDClassifier) -> np.ndarray:
    return model.predict_proba(IMAGES)


def with_views(model: BCDClassifier) -> BCDClassifier:
    decision = DecisionConfig(**model.config.decision.model_dump() | {"views": 8})
    model.config = model.config.model_copy(update={"decision": decision})
    return model


@pytest.mark.parametrize("name", MODELS)
def test_both_give_the_same_answers_and_maps(name: str) -> None:
    model = BCDClassifier.from_pretrained(CARDS / name)
    by_onnx, maps = probabilities(model), [model.explain(one).heatmap for one in IMAGES]
    assert runtime_of(model) == "onnx float32"
    model.runtime = "torch"
    assert np.abs(by_onnx - probabilities(model)).max() < 1e-5
    assert runtime_of(model) == "torch float32"
    for image, heatmap in zip(IMAGES, maps, strict=True):
        assert np.abs(model.explain(image).heatmap - heatmap).max() < 1e-4
    assert not model._is_taken


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", MODELS)
def test_both_agree_on_a_thousand_real_patches(name: str, real_sample: Path) -> None:
    found = idc.read(real_sample / "idc-sample.zip")
    images = (one.data for one in found if isinstance(one, source.Image))
    patches = list(islice((one for one in images if open_image(one).size == (50, 50)), REAL))
    model = BCDClassifier.from_pretrained(CARDS / name)
    by_onnx = model.predict_proba(patches)
    model.runtime = "torch"
    assert len(by_onnx) == REAL
    assert np.abs(by_onnx - model.predict_proba(patches)).max() < 1e-3


def test_eight_views_go_through_onnx_too(loaded: BCDClassifier) -> None:
    by_onnx = probabilities(with_views(loaded))
    assert runtime_of(loaded) == "onnx float32"
    loaded.runtime = "torch"
    assert np.abs(by_onnx - probabilities(loaded)).max() < 1e-5


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_eight_views_of_one_image_or_of_several_say_the_same(
    loaded: BCDClassifier, runtime: str
) -> None:
    with_views(loaded).runtime = runtime
    together = probabilities(loaded)
    alone = np.array([loaded.predict(image).probability for image in IMAGES])
    assert np.abs(together - alone).max() < (1e-12 if runtime == "onnx" else 1e-5)


def run_blocked(code: str, *arguments: str | Path) -> Any:
    """Run code in a process that can't import torch, timm or onnx; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'space'}"}
    command = [sys.executable, "-c", BLOCKED + code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_torch_a_patch_a_folder_and_a_slide_are_answered(
    folder: Path, loaded: BCDClassifier, tmp_path: Path
) -> None:
    slide = small_slides(tmp_path)["sized"]
    code = """
import json
from pathlib import Path
from bcd_models import BCDClassifier
model = BCDClassifier.from_pretrained(sys.argv[1])
images = sorted(Path(sys.argv[2]).glob("*.png"))
one = model.predict(images[0])
heatmap = model.explain(images[0], label="malignant").heatmap
gradients = model.explain(images[0], label="malignant", method="hirescam")
mapped = model.predict_slide(sys.argv[3])
print(json.dumps([one.probability, model.predict_proba(images).tolist(), float(heatmap.sum()),
                  mapped.predicted, one.runtime, model.parameter_count,
                  float(gradients.heatmap.sum()), gradients.method]))
"""
    said = run_blocked(code, folder, EXAMPLES, slide)
    one, several, heat, tiles, runtime, parameters, gradients, method = said
    assert runtime == "onnx float32"
    assert several == pytest.approx(probabilities(loaded), abs=1e-6)
    assert one == pytest.approx(several[0], abs=1e-6)
    expected = loaded.explain(IMAGES[0], label="malignant").heatmap.sum()
    assert heat == pytest.approx(expected, rel=1e-4)
    expected = loaded.explain(IMAGES[0], label="malignant", method="hirescam").heatmap.sum()
    assert gradients == pytest.approx(expected, rel=1e-4)
    assert method == "hirescam"
    assert tiles == loaded.predict_slide(slide).predicted
    assert parameters == sum(one.numel() for one in loaded.parameters())


def test_without_torch_it_is_said_what_needs_it(folder: Path, copied: Path) -> None:
    (copied / "model.onnx").unlink()
    code = """
import json
from bcd_models import BCDClassifier, BCDError
def said(act):
    try: act()
    except BCDError as error: return str(error)
model = BCDClassifier.from_pretrained(sys.argv[1])
print(json.dumps([said(lambda: model.network),
                  said(lambda: BCDClassifier.from_pretrained(sys.argv[2]))]))
"""
    for sentence in run_blocked(code, folder, copied):
        assert "pip install 'bcd-models[torch]'" in sentence


@pytest.mark.parametrize("which", GRAPHS)
def test_a_graph_holds_no_weights_and_names_those_of_the_file(which: str) -> None:
    folder = CARDS / "bcd-mobilenetv2"  # of a fresh network, equal tensors would be one
    graph = onnx.load(folder / which, load_external_data=False)
    stored = load_file(folder / "model.safetensors")
    outside = [one for one in graph.graph.initializer if one.external_data]
    names = {one.name.removeprefix("network.").removesuffix(".stored") for one in outside}
    assert names == {name for name in stored if not name.endswith("num_batches_tracked")}
    inside = [one for one in graph.graph.initializer if not one.external_data]
    assert sum(one.ByteSize() for one in inside) < 4096
    assert (folder / which).stat().st_size < 250_000
    config = json.loads((folder / "config.json").read_text())
    digests = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (which, "model.safetensors")
    }
    assert config["bcd"]["graphs"].keys() == set(GRAPHS)
    assert config["bcd"]["graphs"][which] == {
        "sha256": digests[which],
        "weights_sha256": digests["model.safetensors"],
    }


def test_any_onnx_runtime_opens_it_where_it_lies(loaded: BCDClassifier, folder: Path) -> None:
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    inputs = loaded.preprocess(IMAGES).numpy()
    logits, pooled, cells = session.run(["logits", "pooled", "cells"], {"pixels": inputs})
    with torch.inference_mode():
        live = copy.deepcopy(loaded)
        assert np.abs(logits - live(inputs).numpy()).max() < 1e-4
    assert pooled.shape == (len(IMAGES), 1280)
    margins = logits[:, 1] - logits[:, 0]
    assert cells.mean((1, 2)) == pytest.approx(margins, abs=1e-4)


def spoil_graph(folder: Path, name: str = "model.onnx") -> None:
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:500] + b"x" + whole[501:])


def change_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({n: t + 1 if "bias" in n else t for n, t in load_file(path).items()}, path)


def spoil_gradient_graph(folder: Path) -> None:
    spoil_graph(folder, "explain.onnx")


@pytest.mark.parametrize("spoil", [spoil_graph, spoil_gradient_graph, change_weights])
def test_a_graph_answers_only_for_the_weights_it_names(
    copied: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(copied)
    with pytest.raises(ModelFolderError, match=r"\.onnx is (not the graph|of other weights)"):
        BCDClassifier.from_pretrained(copied)


def test_no_number_is_no_answer(copied: Path, loaded: BCDClassifier) -> None:
    path, config = copied / "model.safetensors", copied / "config.json"
    tensors = load_file(path)
    tensors["classifier.bias"][0] = torch.nan
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    save_file(tensors, path)
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    config.write_text(config.read_text().replace(before, after))
    with pytest.raises(ModelFolderError, match=r"classifier\.bias holds NaN"):
        BCDClassifier.from_pretrained(copied)
    loaded.network.classifier.bias.data[1] = torch.nan
    with pytest.raises(InputError, match="gives no number"):
        loaded.predict(IMAGES[0])


def test_a_graph_that_no_config_names_is_not_used(copied: Path, loaded: BCDClassifier) -> None:
    path = copied / "config.json"
    document = json.loads(path.read_text())
    document["bcd"]["graphs"] = {}
    path.write_text(json.dumps(document))
    plain = BCDClassifier.from_pretrained(copied)
    assert not plain.has_export
    assert runtime_of(plain) == "torch float32"
    assert np.abs(probabilities(plain) - probabilities(loaded)).max() < 1e-5
    plain.runtime = "onnx"
    with pytest.raises(InputError, match=r"carries no model\.onnx: bcd export writes it"):
        probabilities(plain)


def test_a_session_that_fails_is_told_and_torch_answers(
    loaded: BCDClassifier, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: bytes) -> None:
        raise RuntimeError("no session")

    monkeypatch.setattr(classifier, "OnnxForward", fail)
    assert runtime_of(loaded) == "torch float32"
    assert "torch answers in its place" in caplog.text
    loaded.runtime = "onnx"
    with pytest.raises(InputError, match="ONNX Runtime can't be used"):
        probabilities(loaded)


def test_without_onnx_runtime_torch_answers(
    loaded: BCDClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "is_onnxruntime_installed", lambda: False)
    assert runtime_of(loaded) == "torch float32"
    loaded.runtime = "onnx"
    with pytest.raises(InputError, match="pip install"):
        probabilities(loaded)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a weight": lambda n: n.classifier.bias.data.add_(torch.tensor([0.0, 1.0])),
    "a layer": lambda n: setattr(n, "classifier", torch.nn.Linear(1280, 2)),
    "a forward hook": lambda n: n.bn2.register_forward_hook(
        lambda _module, _inputs, output: output * 0.5
    ),
    "a forward pre-hook": lambda n: n.register_forward_pre_hook(
        lambda _module, inputs: (inputs[0] * 0,)
    ),
    "an attribute": lambda n: setattr(n.bn2, "eps", 10.0),
    "a forward of one's own": lambda n: setattr(
        n.classifier, "forward", lambda x: torch.zeros(len(x), 2)
    ),
}


@pytest.mark.parametrize("how", CHANGES)
def test_whatever_becomes_of_the_network_is_answered_for(loaded: BCDClassifier, how: str) -> None:
    before = probabilities(loaded)
    CHANGES[how](loaded.network)
    after = probabilities(loaded)
    assert runtime_of(loaded) == "torch float32"
    margins = loaded(loaded.preprocess(IMAGES)).detach().numpy()
    decision = loaded.config.decision
    log_odds = decision.slope * (margins[:, 1] - margins[:, 0]) + decision.intercept
    assert after == pytest.approx(1 / (1 + np.exp(-log_odds.astype(float))), abs=1e-5)
    assert np.abs(after - before).max() > 1e-3


def test_changed_weights_have_a_hash_of_their_own(loaded: BCDClassifier) -> None:
    sha256 = loaded.weights_sha256
    assert loaded.network is loaded.network
    assert loaded.weights_sha256 == sha256  # by value
    loaded.network.classifier.bias.data += 1
    assert loaded.predict(IMAGES[0]).weights_sha256 != sha256
    loaded.runtime = "onnx"
    with pytest.raises(InputError, match="the network was taken"):
        probabilities(loaded)


def test_a_replaced_network_is_answered_for(loaded: BCDClassifier) -> None:
    before, other = probabilities(loaded), BCDClassifier(loaded.config)
    loaded.network = other.network
    assert np.array_equal(probabilities(loaded), probabilities(other))
    assert (probabilities(loaded) != before).all()


@pytest.mark.parametrize("whole", [True, False])
def test_a_network_in_training_mode_is_answered_for_in_evaluation(
    loaded: BCDClassifier, whole: bool
) -> None:
    right = probabilities(loaded)
    if whole:
        loaded.train()
    else:
        loaded.network.bn2.train()
    before = {name: one.clone() for name, one in loaded.state_dict().items()}
    assert np.abs(probabilities(loaded) - right).max() < 1e-5
    assert loaded.explain(IMAGES[0]).prediction.probability == pytest.approx(right[0], abs=1e-5)
    assert all(torch.equal(one, before[name]) for name, one in loaded.state_dict().items())
    assert loaded.network.bn2.training
    assert loaded.network.training == whole


def test_threads_do_not_put_each_other_into_training_mode(loaded: BCDClassifier) -> None:
    """The second begins while the first is within the network, and ends after it."""
    right = probabilities(loaded)
    within, go_on = threading.Event(), threading.Event()

    def wait_once(*_: Any) -> None:
        if not within.is_set():
            within.set()
            assert go_on.wait(60)

    loaded.train()
    loaded.network.conv_stem.register_forward_hook(wait_once)
    before = {name: one.clone() for name, one in loaded.state_dict().items()}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(probabilities, loaded)
        assert within.wait(60)
        second = pool.submit(probabilities, loaded)
        go_on.set()
        for answers in (first.result(), second.result()):
            assert np.abs(answers - right).max() < 1e-5
    assert all(torch.equal(one, before[name]) for name, one in loaded.state_dict().items())


def test_other_numbers_than_float32(loaded: BCDClassifier, folder: Path) -> None:
    right = loaded.predict(IMAGES[1])
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        model = BCDClassifier.from_pretrained(folder)
        assert (model.half() if dtype is torch.float16 else model.to(dtype)) is model
        assert model.predict(IMAGES[1]).label == right.label
        assert model.explain(IMAGES[1]).label == right.label
    torch.set_default_dtype(torch.float64)
    try:
        for runtime in ("auto", "torch"):
            model = BCDClassifier.from_pretrained(folder)
            model.runtime = runtime
            assert model.explain(IMAGES[1]).prediction.label == right.label
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert loaded.explain(IMAGES[1]).prediction.label == right.label


DOORS: dict[str, Callable[[BCDClassifier], Any]] = {
    "network": lambda model: model.network,
    "pixels": lambda model: model(model.preprocess(IMAGES[0])),
    "parameters": lambda model: next(model.parameters()),
    "state_dict": lambda model: model.state_dict(),
    "to": lambda model: model.to("cpu"),
    "train": lambda model: model.train().eval(),
}


@pytest.mark.parametrize("door", DOORS)
def test_whoever_took_the_network_has_torch_s_answers(loaded: BCDClassifier, door: str) -> None:
    before = probabilities(loaded)
    assert runtime_of(loaded) == "onnx float32"
    DOORS[door](loaded)
    assert runtime_of(loaded) == "torch float32"
    assert np.abs(probabilities(loaded) - before).max() < 1e-5


def test_an_export_answers_before_the_network_is_made(
    folder: Path, loaded: BCDClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_export = probabilities(loaded)
    made = []
    create = classifier.create_network
    monkeypatch.setattr(
        classifier, "create_network", lambda *asked: made.append(asked) or create(*asked)
    )
    again = BCDClassifier.from_pretrained(folder)
    assert np.array_equal(probabilities(again), by_export)
    with torch.inference_mode():
        again.explain(IMAGES[0])
    assert not made
    other = pickle.loads(pickle.dumps(again))
    with torch.inference_mode():
        again.runtime = "torch"
        assert np.abs(probabilities(again) - by_export).max() < 1e-5
    assert len(made) == 1
    again.network.classifier(torch.zeros(1, 1280)).sum().backward()  # no tensors of inference mode
    assert np.array_equal(probabilities(other), by_export)


def test_threads_that_ask_first_make_one_network(folder: Path) -> None:
    model = BCDClassifier.from_pretrained(folder)
    with ThreadPoolExecutor(4) as pool:
        networks = list(pool.map(lambda _: model.network, range(8)))
    assert len(set(map(id, networks))) == 1


def test_an_image_s_company_changes_no_digit(loaded: BCDClassifier) -> None:
    """However many go through the network at a time."""
    side = loaded.config.preprocess.input_size
    pixels = np.random.default_rng(0).normal(size=(37, 3, side, side)).astype(np.float32)
    forward = loaded._get_forward()
    alone = np.concatenate([forward.logits(pixels[i : i + 1]) for i in range(len(pixels))])
    for number in (2, 3, 17, 37):
        assert np.array_equal(forward.logits(pixels[:number]), alone[:number])


def test_a_copy_answers_for_itself(loaded: BCDClassifier) -> None:
    before = probabilities(loaded)
    other = copy.deepcopy(loaded)
    assert np.array_equal(probabilities(other), before)
    with torch.no_grad():
        other.network.classifier.bias[1] += 1
    assert (probabilities(other) > before).all()
    assert np.array_equal(probabilities(loaded), before)
    assert other.weights_sha256 != loaded.weights_sha256


def test_an_ensemble_sets_all_its_members(folder: Path) -> None:
    members = [BCDClassifier.from_pretrained(folder) for _ in range(2)]
    config = EnsembleConfig(name="pair", version="1", members=("member-1", "member-2"))
    pair = BCDEnsemble(config, members)
    by_onnx = pair.predict_proba(IMAGES)
    assert pair.predict(IMAGES[0]).runtime == "onnx float32"
    pair.runtime = "torch"
    assert pair.runtime == "torch"
    assert np.abs(pair.predict_proba(IMAGES) - by_onnx).max() < 1e-5
    assert pair.predict(IMAGES[0]).runtime == "torch float32"
    members[0].runtime = "onnx"
    assert pair.predict(IMAGES[0]).runtime == "onnx float32, torch float32"


@pytest.mark.parametrize("wanted", ["gpu", "ONNX"])
def test_an_unknown_runtime_is_told(
    folder: Path, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="choose one of auto, onnx, torch"):
        BCDClassifier.from_pretrained(folder).runtime = wanted
    monkeypatch.setenv(choice.VARIABLE, wanted)
    with pytest.raises(InputError, match="choose one of auto, onnx, torch"):
        BCDClassifier.from_pretrained(folder)


def test_the_environment_chooses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, "torch")
    assert runtime_of(BCDClassifier.from_pretrained(folder)) == "torch float32"


def test_threads_share_a_model(loaded: BCDClassifier) -> None:
    one_by_one = [loaded.predict(path).probability for path in IMAGES]
    with ThreadPoolExecutor(4) as pool:
        together = [one.probability for one in pool.map(loaded.predict, IMAGES * 5)]
    assert np.abs(np.array(together) - np.array(one_by_one * 5)).max() < 1e-6


def test_exported_for_other_hosts(loaded: BCDClassifier, tmp_path: Path) -> None:
    """What any ONNX Runtime makes of it, the batch being free."""
    file, size = tmp_path / "alone.onnx", loaded.config.preprocess.input_size
    file.write_bytes(export_self_contained(loaded.network, size))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    pixels = loaded.preprocess(IMAGES)
    (logits,) = session.run(["logits"], {"pixels": pixels.numpy()})
    with torch.inference_mode():
        assert np.abs(logits - loaded(pixels).numpy()).max() < 1e-3


@pytest.mark.parametrize(
    "wrap", [torch.nn.DataParallel, lambda network: torch.compile(network, backend="eager")]
)
def test_what_wraps_a_network_takes_the_live_one(folder: Path, wrap: Any) -> None:
    model = BCDClassifier.from_pretrained(folder)
    pixels = model.preprocess(IMAGES[0])
    wrapped = wrap(model.network.eval())
    with torch.inference_mode():
        before = wrapped(pixels)
        assert torch.allclose(before, model(pixels), atol=1e-5)
        model.network.get_classifier().bias += 1
        assert torch.allclose(wrapped(pixels), before + 1, atol=1e-5)
