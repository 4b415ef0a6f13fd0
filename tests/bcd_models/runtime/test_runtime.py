"""The same answers by ONNX Runtime and by torch, and what happens where one of them can't."""

from __future__ import annotations

import copy
import logging
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from bcd_models import BCDClassifier, BCDEnsemble, InputError, ModelFolderError
from bcd_models.config import DecisionConfig
from bcd_models.images.open import open_image
from bcd_models.models import classifier
from bcd_models.models.backbones import create
from bcd_models.models.ensemble import EnsembleConfig
from bcd_models.runtime import forward as runtime
from bcd_models.runtime.ahead import ahead
from tests.conftest import CARDS, MODELS
from tests.support.processes import running
from tests.support.running_app import EXAMPLES, save_small_model
from training.corpus import sources
from training.corpus.sources import idc

IMAGES = sorted(EXAMPLES.glob("*.png"))
REAL = 1000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv(runtime.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(runtime.VARIABLE, raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models"), "small")


@pytest.fixture
def loaded(folder: Path) -> BCDClassifier:
    return BCDClassifier.from_pretrained(folder)


def used(model: BCDClassifier) -> str:
    """What computed the last answer."""
    return model._forward_of(model._weights_now()).name


def probabilities(model: BCDClassifier) -> np.ndarray:
    return model.predict_proba(IMAGES)


@pytest.mark.parametrize("name", MODELS)
def test_both_give_the_same_probabilities(name: str) -> None:
    model = BCDClassifier.from_pretrained(CARDS / name)
    by_onnx = probabilities(model)
    assert used(model) == "onnx"
    model.runtime = "torch"
    by_torch = probabilities(model)
    assert used(model) == "torch"
    assert np.abs(by_onnx - by_torch).max() < 1e-5


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", MODELS)
def test_both_agree_on_a_thousand_real_patches(name: str, real_sample: Path) -> None:
    found = idc.read(real_sample / "idc-sample.zip")
    images = (one.data for one in found if isinstance(one, sources.Image))
    patches = list(islice((one for one in images if open_image(one).size == (50, 50)), REAL))
    model = BCDClassifier.from_pretrained(CARDS / name)
    by_onnx = model.predict_proba(patches)
    model.runtime = "torch"
    assert len(by_onnx) == REAL
    assert np.abs(by_onnx - model.predict_proba(patches)).max() < 1e-3


def test_eight_views_go_through_onnx_too(loaded: BCDClassifier) -> None:
    decision = DecisionConfig(**loaded.config.decision.model_dump() | {"views": 8})
    loaded.config = loaded.config.model_copy(update={"decision": decision})
    by_onnx = probabilities(loaded)
    assert used(loaded) == "onnx"
    loaded.runtime = "torch"
    assert np.abs(by_onnx - probabilities(loaded)).max() < 1e-5


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_eight_views_of_one_image_or_of_several_say_the_same(
    loaded: BCDClassifier, runtime: str
) -> None:
    decision = DecisionConfig(**loaded.config.decision.model_dump() | {"views": 8})
    loaded.config = loaded.config.model_copy(update={"decision": decision})
    loaded.runtime = runtime
    together = probabilities(loaded)
    alone = np.array([loaded.predict(image).probability for image in IMAGES])
    assert np.abs(together - alone).max() < (1e-12 if runtime == "onnx" else 1e-5)


def test_one_export_serves_all_who_load_the_weights(folder: Path, cache: Path) -> None:
    first = BCDClassifier.from_pretrained(folder)
    probabilities(first)
    (kept,) = cache.iterdir()
    assert kept.name.startswith(first.weights_sha256)
    written = kept.stat().st_mtime_ns
    probabilities(BCDClassifier.from_pretrained(folder))
    assert [path.stat().st_mtime_ns for path in cache.iterdir()] == [written]


def test_a_damaged_export_is_made_anew(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right = probabilities(BCDClassifier.from_pretrained(folder))
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:5000] + bytes(64) + whole[5064:])
    again = BCDClassifier.from_pretrained(folder)
    assert np.array_equal(probabilities(again), right)
    assert used(again) == "onnx"
    assert "damaged" in caplog.text
    (kept,) = cache.iterdir()
    assert kept.read_bytes() == whole


def test_another_version_s_export_is_not_used(folder: Path, cache: Path, monkeypatch) -> None:
    probabilities(BCDClassifier.from_pretrained(folder))
    monkeypatch.setattr(runtime, "EXPORT", runtime.EXPORT + 1)
    probabilities(BCDClassifier.from_pretrained(folder))
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_can_not_be_written_costs_an_export_each_time(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file where the folder should be")
    model = BCDClassifier.from_pretrained(folder)
    probabilities(model)
    assert used(model) == "onnx"
    assert "can't be kept" in caplog.text


def test_a_session_that_fails_is_told_and_torch_answers(
    loaded: BCDClassifier, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "onnx_bytes", lambda *_: b"no model")
    probabilities(loaded)
    assert used(loaded) == "torch"
    assert "torch answers in its place" in caplog.text
    loaded.runtime = "onnx"
    with pytest.raises(InputError, match="ONNX Runtime can't be used"):
        probabilities(loaded)


def test_without_onnx_runtime_torch_answers(loaded: BCDClassifier, monkeypatch) -> None:
    monkeypatch.setattr(runtime, "NEEDED", ("onnx", "no_such_package"))
    probabilities(loaded)
    assert used(loaded) == "torch"
    loaded.runtime = "onnx"
    with pytest.raises(InputError, match="pip install"):
        probabilities(loaded)


def test_changed_weights_are_never_answered_for_by_an_old_export(loaded: BCDClassifier) -> None:
    before, sha256 = probabilities(loaded), loaded.weights_sha256
    with torch.no_grad():
        loaded.network.classifier.bias[1] += 1
    after = probabilities(loaded)
    assert used(loaded) == "torch"  # weights of no file are not exported by themselves
    assert (after > before).all()
    assert loaded.weights_sha256 != sha256
    loaded.runtime = "onnx"
    assert np.abs(probabilities(loaded) - after).max() < 1e-5
    assert used(loaded) == "onnx"
    loaded.network.load_state_dict(loaded.network.state_dict())
    probabilities(loaded)


def test_a_replaced_layer_is_answered_for(loaded: BCDClassifier) -> None:
    before, sha256 = probabilities(loaded), loaded.weights_sha256
    head = loaded.network.classifier
    loaded.network.classifier = torch.nn.Linear(head.in_features, 2)
    assert (probabilities(loaded) != before).all()
    assert loaded.weights_sha256 != sha256
    loaded.network.classifier = head
    assert np.abs(probabilities(loaded) - before).max() < 1e-5


def test_a_replaced_network_is_answered_for(loaded: BCDClassifier) -> None:
    before, other = probabilities(loaded), BCDClassifier(loaded.config)
    loaded.network = other.network
    assert np.array_equal(probabilities(loaded), probabilities(other))
    assert (probabilities(loaded) != before).all()


def test_weights_changed_unseen_before_the_first_answer_are_never_kept_as_the_file_s(
    folder: Path, loaded: BCDClassifier, cache: Path
) -> None:
    """Past torch's count of changes: but an export that others find later must be the file's."""
    loaded.network.classifier.bias.data.add_(torch.tensor([0.0, 1.0]))
    changed = probabilities(loaded)
    assert used(loaded) == "torch"
    assert not cache.exists()
    assert (probabilities(BCDClassifier.from_pretrained(folder)) < changed).all()


def test_a_network_that_was_looked_at_is_exported_all_the_same(
    loaded: BCDClassifier, cache: Path
) -> None:
    loaded.eval()
    probabilities(loaded)
    assert used(loaded) == "onnx"
    assert list(cache.glob("*.onnx"))


TAKING_HOLD = {
    "network": lambda model: model.network,
    "parameters": lambda model: next(model.parameters()),
    "modules": lambda model: list(model.modules()),
    "state_dict": lambda model: model.state_dict(),
    "load_state_dict": lambda model: model.load_state_dict(copy.deepcopy(model).state_dict()),
    "get_submodule": lambda model: model.get_submodule("network.classifier"),
    "to": lambda model: model.to("cpu"),
    "apply": lambda model: model.apply(repr),
    "train": lambda model: model.train().eval(),
    "of a module that holds it": lambda model: list(torch.nn.Sequential(model).parameters()),
}


@pytest.mark.parametrize("how", TAKING_HOLD)
def test_whoever_takes_hold_of_the_network_is_noticed(loaded: BCDClassifier, how: str) -> None:
    loaded.predict(IMAGES[0])
    loaded.explain(IMAGES[0])
    assert not loaded._lent  # so that an answer need not look at each weight
    TAKING_HOLD[how](loaded)
    assert loaded._lent


def test_a_kept_export_answers_before_the_network_is_made(
    folder: Path, loaded: BCDClassifier, monkeypatch
) -> None:
    by_export = probabilities(loaded)
    made = []
    monkeypatch.setattr(classifier, "create", lambda name: made.append(name) or create(name))
    again = BCDClassifier.from_pretrained(folder)
    assert np.array_equal(probabilities(again), by_export)
    assert again.weights_sha256 == loaded.weights_sha256
    assert not made
    other = pickle.loads(pickle.dumps(again))
    with torch.inference_mode():
        again.explain(IMAGES[0])
    assert len(made) == 1
    again.runtime = "torch"
    assert np.abs(probabilities(again) - by_export).max() < 1e-5
    assert len(made) == 1
    again.network.classifier(torch.zeros(1, 1280)).sum().backward()  # no tensors of inference mode
    assert np.abs(probabilities(other) - by_export).max() < 1e-5


def test_a_kept_export_vouches_for_no_other_backbone(
    folder: Path, loaded: BCDClassifier, tmp_path: Path
) -> None:
    probabilities(loaded)
    other = shutil.copytree(folder, tmp_path / "other")
    config = (other / "config.json").read_text()
    assert '"mobilenetv2"' in config
    config = config.replace('"mobilenetv2"', '"efficientnet_b2"')
    (other / "config.json").write_text(config.replace('"mobilenetv2_100"', '"efficientnet_b2"'))
    with pytest.raises(ModelFolderError, match=r"lacks|has shape|holds surplus"):
        BCDClassifier.from_pretrained(other)


def test_threads_that_ask_first_make_one_network(loaded: BCDClassifier, folder: Path) -> None:
    probabilities(loaded)
    again = BCDClassifier.from_pretrained(folder)
    with ThreadPoolExecutor(4) as pool:
        networks = list(pool.map(lambda _: again.network, range(8)))
    assert len(set(map(id, networks))) == 1


def test_an_image_s_company_changes_no_digit(loaded: BCDClassifier) -> None:
    """However many go through the network at a time."""
    side = loaded.config.preprocess.input_size
    pixels = torch.randn(37, 3, side, side, generator=torch.Generator().manual_seed(0))
    forward = loaded._forward_of(loaded._weights_now())
    alone = np.concatenate([forward(pixels[i : i + 1]) for i in range(len(pixels))])
    for number in (2, 3, 17, 37):
        assert np.array_equal(forward(pixels[:number]), alone[:number])


def test_weights_that_moved_are_exported_again(loaded: BCDClassifier) -> None:
    before = probabilities(loaded)
    loaded.double().float()
    assert np.abs(probabilities(loaded) - before).max() < 1e-5
    assert used(loaded) == "torch"


def test_a_copy_answers_for_itself(loaded: BCDClassifier) -> None:
    before = probabilities(loaded)
    other = copy.deepcopy(loaded)
    with torch.no_grad():
        other.network.classifier.bias[1] += 1
    assert (probabilities(other) > before).all()
    assert np.array_equal(probabilities(loaded), before)
    assert other.weights_sha256 != loaded.weights_sha256


def test_a_fresh_model_is_not_exported_unasked(loaded: BCDClassifier, cache: Path) -> None:
    probabilities(BCDClassifier(loaded.config))
    assert not cache.exists()


def test_an_ensemble_sets_all_its_members(folder: Path) -> None:
    members = [BCDClassifier.from_pretrained(folder) for _ in range(2)]
    config = EnsembleConfig(name="pair", version="1", members=("member-1", "member-2"))
    pair = BCDEnsemble(config, members)
    by_onnx = pair.predict_proba(IMAGES)
    assert {used(member) for member in members} == {"onnx"}
    pair.runtime = "torch"
    assert pair.runtime == "torch"
    assert np.abs(pair.predict_proba(IMAGES) - by_onnx).max() < 1e-5
    assert {used(member) for member in members} == {"torch"}


@pytest.mark.parametrize("wanted", ["gpu", "ONNX"])
def test_an_unknown_runtime_is_told(folder: Path, wanted: str, monkeypatch) -> None:
    with pytest.raises(InputError, match="choose one of auto, onnx, torch"):
        BCDClassifier.from_pretrained(folder).runtime = wanted
    monkeypatch.setenv(runtime.VARIABLE, wanted)
    with pytest.raises(InputError, match="choose one of auto, onnx, torch"):
        BCDClassifier.from_pretrained(folder)


def test_the_environment_chooses(folder: Path, monkeypatch) -> None:
    monkeypatch.setenv(runtime.VARIABLE, "torch")
    model = BCDClassifier.from_pretrained(folder)
    probabilities(model)
    assert used(model) == "torch"


@pytest.mark.slow
def test_two_processes_at_once_share_a_cache(folder: Path, cache: Path) -> None:
    code = (
        "import sys; from bcd_models import BCDClassifier\n"
        "print(BCDClassifier.from_pretrained(sys.argv[1]).predict(sys.argv[2]).probability)"
    )
    command = [sys.executable, "-c", code, str(folder), str(IMAGES[0])]
    with (
        running(command, stdout=subprocess.PIPE, text=True) as one,
        running(command, stdout=subprocess.PIPE, text=True) as other,
    ):
        both = one, other
        first, second = (process.communicate()[0] for process in both)
    assert first == second != ""
    assert all(process.returncode == 0 for process in both)
    assert not list(cache.glob(".*"))
    for kept in cache.iterdir():
        onnxruntime.InferenceSession(kept, providers=["CPUExecutionProvider"])


def test_threads_share_a_model(loaded: BCDClassifier) -> None:
    one_by_one = [loaded.predict(path).probability for path in IMAGES]
    with ThreadPoolExecutor(4) as pool:
        together = [one.probability for one in pool.map(loaded.predict, IMAGES * 5)]
    assert np.abs(np.array(together) - np.array(one_by_one * 5)).max() < 1e-6


def test_threads_that_ask_first_all_get_the_same(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No export is kept yet, and torch's exporter can't do two at once."""
    models = [BCDClassifier.from_pretrained(folder) for _ in range(2)]
    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(lambda n: models[n % 2].predict(IMAGES[0]).probability, range(6))
        assert len(set(answers)) == 1
    assert [used(model) for model in models] == ["onnx", "onnx"]
    assert len(list(cache.iterdir())) == 1
    assert caplog.records == []


def test_exported_for_others(loaded: BCDClassifier, tmp_path: Path) -> None:
    """What any ONNX Runtime makes of it, the batch being free."""
    file = tmp_path / "model.onnx"
    file.write_bytes(runtime.onnx_bytes(loaded.network, loaded.config.preprocess.input_size))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    pixels = loaded.preprocess(IMAGES)
    (logits,) = session.run(["logits"], {"pixels": pixels.numpy()})
    with torch.inference_mode():
        assert np.abs(logits - loaded(pixels).numpy()).max() < 1e-3


# Things done ahead


def test_results_come_in_order_and_not_far_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = ahead(lambda number: number * number, items(), depth=10)
    for number in range(100):
        assert next(results) == number * number
        assert len(taken) <= number + 12
    assert list(results) == []


def test_what_goes_wrong_comes_out_in_its_turn() -> None:
    results = ahead(lambda number: 1 / (5 - number), range(10), depth=4)
    assert [next(results) for _ in range(5)] == [1 / 5, 1 / 4, 1 / 3, 1 / 2, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_things(count: int) -> None:
    assert list(ahead(str, range(count), depth=4)) == [str(number) for number in range(count)]


def test_leaving_early_ends_the_threads(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    results = ahead(str, iter(range(10**9)), depth=8)
    assert next(results) == "0"
    results.close()
    assert list(results) == []
