"""The model as a user meets it: folders, predictions, probabilities."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from bcd_models import BCDClassifier, ImageError, ModelFolderError
from bcd_models.backbones import BACKBONES
from bcd_models.config import LABELS, DecisionConfig, ModelConfig, PreprocessConfig
from bcd_models.prediction import NOTICE


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
    assert loaded.config == fresh.config
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
        logits = model(model.preprocess(patches[:2]))
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
    """A model folder to spoil."""
    light_model.save_pretrained(tmp_path / "card")
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
        ({"pretrained_cfg__mean": [0, 0, 0]}, "'pretrained_cfg' contradicts"),
    ],
)
def test_config_is_read_strictly(card: Path, changes: dict[str, object], reason: str) -> None:
    if changes.get("bcd__decision__refer"):
        spoil(card, bcd__decision__threshold=0.5)
    spoil(card, **changes)
    with pytest.raises(Exception, match=reason) as caught:
        BCDClassifier.from_pretrained(card)
    assert caught.type.__name__ in ("ModelFolderError", "InputError")


def test_config_that_is_no_json(card: Path) -> None:
    (card / "config.json").write_text("{")
    with pytest.raises(ModelFolderError, match="not JSON"):
        BCDClassifier.from_pretrained(card)


def test_weights_are_read_strictly(card: Path) -> None:
    path = card / "model.safetensors"
    whole = load_file(path)
    spoilt = {
        "lacks 1 tensors, bn1.bias": {k: v for k, v in whole.items() if k != "bn1.bias"},
        "holds surplus 1 tensors, extra": whole | {"extra": torch.zeros(1)},
        "bn1.bias has shape": whole | {"bn1.bias": torch.zeros(3)},
    }
    for reason, tensors in spoilt.items():
        save_file(tensors, path)
        with pytest.raises(ModelFolderError, match=reason):
            BCDClassifier.from_pretrained(card)


def test_a_pickle_in_place_of_weights_is_refused(card: Path) -> None:
    torch.save({"classifier.bias": torch.zeros(2)}, card / "model.safetensors")
    with pytest.raises(ModelFolderError, match="not a safetensors file"):
        BCDClassifier.from_pretrained(card)


def test_writing_leaves_nothing_half_done(card: Path, light_model: BCDClassifier) -> None:
    before = (card / "model.safetensors").read_bytes()
    blocked = card / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(ModelFolderError, match="can't be written"):
        light_model.save_pretrained(blocked)
    light_model.save_pretrained(card)
    assert (card / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in card.iterdir()) == ["blocked", "config.json", "model.safetensors"]
