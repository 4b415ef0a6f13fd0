"""An ensemble answers as one classifier does, from the mean of its members' log-odds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bcd_models import BCDClassifier, BCDEnsemble, ImageError, InputError, ModelFolderError
from bcd_models.config import DecisionConfig, OperatingPoint
from bcd_models.decision import log_odds, sigmoid
from bcd_models.models.ensemble import EnsembleConfig
from tests.conftest import CARDS, MODELS

NAMES = ("light", "other")


@pytest.fixture(scope="module")
def members() -> list[BCDClassifier]:
    """Two models with different weights and different decision rules."""
    return [BCDClassifier.from_pretrained(CARDS / name) for name in MODELS]


@pytest.fixture(scope="module")
def ensemble(members: list[BCDClassifier]) -> BCDEnsemble:
    decision = DecisionConfig(slope=1.5, intercept=0.25, threshold=0.4, refer=(0.35, 0.5))
    config = EnsembleConfig(name="pair", version="1", members=NAMES, decision=decision)
    return BCDEnsemble(config, members)


def test_the_answer_is_the_mean_of_calibrated_log_odds(
    ensemble: BCDEnsemble, members: list[BCDClassifier], patches: list[Image.Image]
) -> None:
    theirs = np.mean([log_odds(member.predict_proba(patches)) for member in members], axis=0)
    expected = sigmoid(1.5 * theirs + 0.25)
    assert ensemble.predict_proba(patches) == pytest.approx(expected, abs=1e-5)
    with torch.inference_mode():
        logits = ensemble(ensemble.preprocess(patches))
    assert logits.shape == (len(patches), 2)
    assert (logits[:, 1] - logits[:, 0]).numpy() == pytest.approx(theirs, abs=1e-4)


def test_predictions_are_the_ensembles_own(ensemble: BCDEnsemble, patch_file: Path) -> None:
    answer = ensemble.predict(patch_file)
    assert (answer.name, answer.model, answer.model_version) == ("patch.png", "pair", "1")
    assert (answer.threshold, answer.refer) == (0.4, (0.35, 0.5))
    lines = "".join(f"{member.weights_sha256}\n" for member in ensemble.members)
    assert answer.weights_sha256 == hashlib.sha256(lines.encode()).hexdigest()
    kinds = [type(told).__name__ for _, told in ensemble.stream([patch_file, b"no", patch_file])]
    assert kinds == ["Prediction", "ImageError", "Prediction"]
    with pytest.raises(ImageError):
        ensemble.predict([patch_file, b"no"])
    assert ensemble.predict([]) == []


def test_the_heat_map_is_the_mean_of_the_members(
    ensemble: BCDEnsemble, members: list[BCDClassifier], patches: list[Image.Image]
) -> None:
    told = ensemble.explain(patches[1], label="malignant")
    theirs = [member.explain(patches[1], label="malignant").heatmap for member in members]
    assert told.heatmap == pytest.approx(np.mean(theirs, axis=0), abs=1e-6)
    assert told.heatmap.dtype == np.float32
    assert told.prediction == ensemble.predict(patches[1])
    assert told.overlay().size == patches[1].size
    assert ensemble.explain(patches[0]).label == ensemble.predict(patches[0]).label


def test_a_point_of_the_ensembles_own_is_explained(
    ensemble: BCDEnsemble, members: list[BCDClassifier], patches: list[Image.Image]
) -> None:
    points = {name: OperatingPoint(threshold=0.3) for name in ("screening", "its own")}
    rule = ensemble.config.decision.model_copy(update={"points": points})
    pointed = BCDEnsemble(ensemble.config.model_copy(update={"decision": rule}), members)
    for point, of_members in (("screening", "screening"), ("its own", None)):
        told = pointed.explain(patches[1], label="malignant", point=point)
        assert (told.prediction.threshold, told.prediction.point) == (0.3, point)
        theirs = [
            member.explain(patches[1], label="malignant", point=of_members).heatmap
            for member in members
        ]
        assert told.heatmap == pytest.approx(np.mean(theirs, axis=0), abs=1e-6)


@pytest.fixture
def saved(ensemble: BCDEnsemble, tmp_path: Path) -> Path:
    ensemble.save_pretrained(tmp_path / "pair")
    return tmp_path / "pair"


def test_comes_back_from_a_folder_whose_members_are_model_folders(
    ensemble: BCDEnsemble, saved: Path, patches: list[Image.Image]
) -> None:
    loaded = BCDEnsemble.from_pretrained(saved)
    assert loaded.config == ensemble.config
    assert loaded.weights_sha256 == ensemble.weights_sha256
    ours, theirs = (one.predict_proba(patches[:2]) for one in (loaded, ensemble))
    assert np.abs(ours - theirs).max() < 1e-5  # by the export, by torch
    alone = BCDClassifier.from_pretrained(saved / "light")
    assert alone.weights_sha256 == ensemble.members[0].weights_sha256


def test_one_kind_of_folder_is_not_taken_for_the_other(saved: Path) -> None:
    with pytest.raises(ModelFolderError, match="holds an ensemble: load it with BCDEnsemble"):
        BCDClassifier.from_pretrained(saved)
    with pytest.raises(ModelFolderError, match="load a single model with BCDClassifier"):
        BCDEnsemble.from_pretrained(saved / "light")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema_version": 99}, "schema version 99.*upgrade"),
        ({"surprise": 1}, "bcd_ensemble.surprise: Extra inputs"),
        ({"members": ["light"]}, "at least 2 items"),
        ({"members": ["light", "../other"]}, r"members.1: String should match"),
        ({"members": ["light", "Light"]}, "two members have one name"),
        ({"members": ["light", "gone"]}, r"gone has no config\.json"),
        ({"members": None}, "members"),
        ({"decision": {"views": 8}}, "views must be 1"),
        ({"decision": {"threshold": 2}}, "bcd_ensemble.decision.threshold"),
    ],
)
def test_config_is_read_strictly(saved: Path, changes: dict[str, object], reason: str) -> None:
    path = saved / "config.json"
    document = json.loads(path.read_text())
    document["bcd_ensemble"].update(changes)
    path.write_text(json.dumps(document))
    with pytest.raises(ModelFolderError, match=reason):
        BCDEnsemble.from_pretrained(saved)


def test_surplus_keys_and_other_counts_are_refused(saved: Path, ensemble: BCDEnsemble) -> None:
    with pytest.raises(InputError, match="1 members, the config names 2: light, other"):
        BCDEnsemble(ensemble.config, ensemble.members[:1])
    path = saved / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "more": 1}))
    with pytest.raises(ModelFolderError, match="unknown key 'more'"):
        BCDEnsemble.from_pretrained(saved)
