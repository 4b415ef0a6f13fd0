"""The model as a user meets it: folders, predictions, probabilities."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.special import logit

from bcd_models import BCDClassifier, ImageError, ImageLimits, ModelFolderError
from bcd_models.config import LABELS, DecisionConfig, ModelConfig, PreprocessConfig
from bcd_models.models.backbones import BACKBONES
from bcd_models.prediction import NOTICE
from tests.conftest import CARDS


@pytest.fixture(params=BACKBONES)
def fresh(request: pytest.FixtureRequest) -> BCDClassifier:
    """A model of each backbone with random weights."""
    torch.manual_seed(1)
    preprocess = PreprocessConfig(mean=(0.5,) * 3, std=(0.5,) * 3)
    config = ModelConfig(name="fresh", version="0", backbone=request.param, preprocess=preprocess)
    return BCDClassifier(config)


def test_comes_back_from_a_folder_and_through_timm(fresh: BCDClassifier, tmp_path: Path) -> None:
    fresh.save_pretrained(tmp_path)
    loaded = BCDClassifier.from_pretrained(tmp_path)
    assert loaded.config == fresh.config.model_copy(update={"graphs": loaded.config.graphs})
    assert loaded.has_export
    assert loaded.weights_sha256 == fresh.weights_sha256
    file = tmp_path / "model.safetensors"
    assert loaded.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert {t.dtype for t in load_file(file).values()} <= {torch.float16, torch.int64}

    through_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(through_timm(pixels), loaded(pixels))
    assert through_timm.pretrained_cfg["label_names"] == list(LABELS)
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == file.read_bytes()


def test_logits_have_two_columns(model: BCDClassifier, patches: list[Image.Image]) -> None:
    with torch.inference_mode():
        logits = copy.deepcopy(model)(model.preprocess(patches[:2]))
    assert logits.shape == (2, 2)


def test_prediction_holds_together(model: BCDClassifier, patch_file: Path) -> None:
    answer = model.predict(patch_file)
    assert answer.name == "patch.png"
    assert answer.label == ("malignant" if answer.probability >= answer.threshold else "benign")
    low, high = answer.refer
    assert (answer.decision == "refer") == (low <= answer.probability <= high)
    assert bool(answer.reasons) == (answer.decision == "refer")
    document = json.loads(answer.to_json())
    assert document["notice"] == NOTICE
    assert document["weights_sha256"] == model.weights_sha256
    assert (document["width"], document["height"]) == (50, 50)


def test_lists_give_lists_and_batching_changes_nothing(
    light_model: BCDClassifier, patches: list[Image.Image]
) -> None:
    many = light_model.predict(patches * 5)  # more than one batch
    alone = light_model.predict_proba(patches)
    assert np.allclose([p.probability for p in many], np.tile(alone, 5), atol=1e-5)
    assert light_model.predict([]) == []


def test_small_and_large_images_go_through_together(
    model: BCDClassifier, patches: list[Image.Image]
) -> None:
    """Each as it would be alone, and as the live network says."""
    mixed = [patches[0], patches[1], patches[2].resize((40, 30)), patches[3].resize((500, 300))]
    ready = [model.prepare(np.array(image)) for image in mixed]
    side = model.config.preprocess.input_size
    assert {one.shape for one in ready} == {(side, side, 3)}
    model = BCDClassifier.from_pretrained(CARDS / model.config.name)  # of nobody who took it
    together = model.compute_margins(ready)
    alone = [model.compute_margins([one]).values[0] for one in ready]
    other = copy.deepcopy(model)
    benign, malignant = other(other.preprocess(mixed)).unbind(1)
    assert together.values == pytest.approx(alone, abs=1e-4)
    assert together.values == pytest.approx((malignant - benign).tolist(), abs=1e-3)
    assert together.runtime == "onnx float32"


def test_one_image_an_iterable_or_an_array_have_probabilities(
    light_model: BCDClassifier, patches: list[Image.Image], patch_file: Path
) -> None:
    expected = [light_model.predict(patch).probability for patch in patches]
    stacked = np.stack([np.array(patch) for patch in patches])
    for images in (patches, iter(patches), tuple(patches), stacked):
        assert light_model.predict_proba(images) == pytest.approx(expected)
    alone = (patches[1], stacked[1], patch_file, str(patch_file), patch_file.read_bytes())
    for image in (*alone, io.BytesIO(patch_file.read_bytes())):
        assert light_model.predict_proba(image) == pytest.approx(expected[1:2])
    assert light_model.predict_proba([]).shape == (0,)


def test_open_files_are_explained_too(light_model: BCDClassifier, patch_file: Path) -> None:
    expected = light_model.explain(patch_file)
    ((_, told),) = light_model.explanations([io.BytesIO(patch_file.read_bytes())])
    assert np.array_equal(told.heatmap, expected.heatmap)


def test_a_bad_image_costs_itself_only(
    light_model: BCDClassifier, patches: list[Image.Image]
) -> None:
    sources = [patches[0], b"nothing", patches[1]]
    kinds = [type(answer).__name__ for _, answer in light_model.stream(sources)]
    assert kinds == ["Prediction", "ImageError", "Prediction"]
    with pytest.raises(ImageError):
        light_model.predict(sources)


def test_referral_and_label_are_separate(
    light_model: BCDClassifier, patches: list[Image.Image]
) -> None:
    image = patches[0]
    always = DecisionConfig(threshold=0.5, refer=(0.0, 1.0))
    model = BCDClassifier(
        light_model.config.model_copy(update={"decision": always}), light_model.network
    )
    answer = model.predict(image)
    assert answer.decision == "refer"
    assert answer.label in LABELS
    assert answer.reasons


def test_eight_views_give_the_mean_over_the_turns_of_an_image(
    light_model: BCDClassifier, patches: list[Image.Image]
) -> None:
    side = light_model.config.preprocess.input_size  # so that nothing is resized after a turn
    image = np.array(patches[1].resize((side, side)))
    turns = [np.rot90(image, k) for k in range(4)]
    turns += [np.ascontiguousarray(turn[:, ::-1]) for turn in turns]
    plain = DecisionConfig()
    trained = light_model.config.preprocess.model_copy(update={"mpp": 200 / side})
    config = light_model.config.model_copy(update={"decision": plain, "preprocess": trained})
    one = BCDClassifier(config)
    one.network = light_model.network
    margins = [logit(p.probability) for p in one.predict([np.ascontiguousarray(t) for t in turns])]
    eight = plain.model_copy(update={"views": 8})
    averaged = BCDClassifier(config.model_copy(update={"decision": eight}))
    averaged.network = light_model.network
    for turn in turns:
        found = averaged.predict(np.ascontiguousarray(turn))
        assert logit(found.probability) == pytest.approx(np.mean(margins), abs=1e-3)
    assert np.ptp(margins) > 0.05


def test_limits_hold_for_predictions_and_explanations(
    light_model: BCDClassifier, patch_file: Path
) -> None:
    for ask in (light_model.predict, light_model.explain):
        with pytest.raises(ImageError, match=r"patch\.png is too large"):
            ask(patch_file, limits=ImageLimits(max_pixels=2000))
        with pytest.raises(ImageError, match=r"4 tiles of 200 micrometres, at most 3 .*region"):
            ask(np.zeros((100, 100, 3), np.uint8), limits=ImageLimits(max_tiles=3), mpp=4)


def test_missing_folder_says_both_were_tried() -> None:
    with pytest.raises(ModelFolderError, match=r"no model folder no/such/place.*no Hub id"):
        BCDClassifier.from_pretrained("no/such/place")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_part_is_named(card: Path, name: str) -> None:
    (card / name).unlink()
    with pytest.raises(ModelFolderError, match=f"has no {name}"):
        BCDClassifier.from_pretrained(card)


@pytest.fixture
def card(tmp_path: Path, light_model: BCDClassifier) -> Path:
    """A model folder to spoil, without a graph, which would tell first that weights are others."""
    light_model.save_pretrained(tmp_path / "card")
    (tmp_path / "card" / "model.onnx").unlink()
    spoil(tmp_path / "card", bcd__graphs={})
    return tmp_path / "card"


def spoil(card: Path, **changes: object) -> None:
    path = card / "config.json"
    document = json.loads(path.read_text())
    for key, value in changes.items():
        place = document
        *parents, last = key.split("__")
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bcd__schema_version": 99}, "schema version 99.*upgrade"),
        ({"bcd__surprise": 1}, "bcd.surprise: Extra inputs"),
        ({"bcd__decision__threshold": 1.5}, "bcd.decision.threshold"),
        ({"bcd__decision__refer": [0.9, 0.95]}, "does not hold threshold"),
        ({"bcd__backbone": "resnet"}, "resnet"),
        ({"bcd": None}, "no 'bcd' object"),
        ({"architecture": "resnet18"}, "'architecture' contradicts"),
        ({"pretrained_cfg": [1]}, r"'pretrained_cfg\.input_size' contradicts"),
        ({"pretrained_cfg__mean": [0, 0, 0]}, r"'pretrained_cfg\.mean' contradicts"),
    ],
)
def test_config_is_read_strictly(card: Path, changes: dict[str, object], reason: str) -> None:
    if changes.get("bcd__decision__refer"):
        spoil(card, bcd__decision__threshold=0.5)
    spoil(card, **changes)
    with pytest.raises(ModelFolderError, match=reason):
        BCDClassifier.from_pretrained(card)


FOUR_BITS = b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'


@pytest.mark.parametrize(
    ("name", "damaged", "reason"),
    [
        ("config.json", lambda _: b"", r"config\.json is not JSON"),
        ("config.json", lambda whole: whole[:40], r"config\.json is not JSON"),
        ("config.json", lambda whole: whole.decode().encode("utf-16"), "not JSON in UTF-8"),
        ("config.json", lambda _: b"[" * 100_000, "not JSON in UTF-8"),
        ("model.safetensors", lambda _: b"", "not a safetensors file"),
        ("model.safetensors", lambda whole: whole[:90], "not a safetensors file"),
        ("model.safetensors", lambda whole: whole[: len(whole) // 2], "not a safetensors file"),
        ("model.safetensors", lambda whole: whole[:-1], "not a safetensors file"),
        (
            "model.safetensors",
            lambda _: len(FOUR_BITS).to_bytes(8, "little") + FOUR_BITS + b"\0",
            "not a safetensors file",
        ),
    ],
)
def test_damaged_parts_are_refused_in_one_line(
    card: Path, name: str, damaged: Callable[[bytes], bytes], reason: str
) -> None:
    path = card / name
    path.write_bytes(damaged(path.read_bytes()))
    with pytest.raises(ModelFolderError, match=reason) as caught:
        BCDClassifier.from_pretrained(card)
    assert "\n" not in str(caught.value)


def test_weights_are_read_strictly(card: Path) -> None:
    path = card / "model.safetensors"
    whole = load_file(path)
    spoilt = {
        "lacks 1 tensors, bn1.bias": {k: v for k, v in whole.items() if k != "bn1.bias"},
        "holds surplus 1 tensors, extra": whole | {"extra": torch.zeros(1)},
        "bn1.bias has shape": whole | {"bn1.bias": torch.zeros(3)},
        "bn1.bias holds NaN": whole | {"bn1.bias": torch.full((32,), torch.nan)},
        "bn1.bias holds NaN or inf": whole | {"bn1.bias": torch.full((32,), torch.inf)},
    }
    for reason, tensors in spoilt.items():
        save_file(tensors, path)
        with pytest.raises(ModelFolderError, match=f"{reason}.*download or save the model again"):
            BCDClassifier.from_pretrained(card)


@dataclass
class Trap:
    """Leaves a trace where it is unpickled."""

    trace: Path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pickle_in_place_of_weights_is_refused(card: Path, tmp_path: Path, name: str) -> None:
    (card / "model.safetensors").unlink()
    torch.save(Trap(tmp_path / "trace"), card / name)
    with pytest.raises(ModelFolderError, match=r"not a safetensors file|has no model\.safetensors"):
        BCDClassifier.from_pretrained(card)
    assert not (tmp_path / "trace").exists()


def test_surplus_files_are_ignored(card: Path, tmp_path: Path, light_model: BCDClassifier) -> None:
    torch.save(Trap(tmp_path / "trace"), card / "pytorch_model.bin")
    (card / "model.safetensors.index.json").write_text('{"weight_map": {"bn1.bias": "other"}}')
    (card / "notes").mkdir()
    assert BCDClassifier.from_pretrained(card).weights_sha256 == light_model.weights_sha256
    assert not (tmp_path / "trace").exists()


def contents(folder: Path) -> dict[str, bytes | None]:
    return {p.name: p.read_bytes() if p.is_file() else None for p in folder.iterdir()}


def test_a_full_disk_leaves_the_old_model(card: Path) -> None:
    before = contents(card)
    code = f"""
import resource
from bcd_models import BCDClassifier
model = BCDClassifier.from_pretrained({str(card)!r})
model.config = model.config.model_copy(update={{"version": "newer"}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
model.save_pretrained({str(card)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    reason = f"ModelFolderError: {card} can't be written: File too large"
    assert done.stderr.splitlines()[-1].endswith(reason)
    assert contents(card) == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_weights_and_config_are_written_together(
    card: Path, light_model: BCDClassifier, name: str
) -> None:
    (card / name).unlink()
    (card / name).mkdir()
    before = contents(card)
    config = light_model.config.model_copy(update={"version": "newer"})
    with pytest.raises(ModelFolderError, match="something other than a file is there"):
        BCDClassifier(config).save_pretrained(card)
    assert contents(card) == before


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path, light_model: BCDClassifier) -> None:
    (tmp_path / "blocked").touch()
    with pytest.raises(ModelFolderError, match="blocked can't be written: File exists"):
        light_model.save_pretrained(tmp_path / "blocked")
