"""Models are offered by name, found faulty at start, and loaded once."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from bcd_models.errors import InputError, ModelFolderError
from bcd_models.runtime.device import choose_device
from clinic.analysis.models import Models
from clinic.settings import Settings, read_published_models
from tests.support.running_app import save_small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models"), "small")


def with_metrics(folder, tmp_path, sha256):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    counts = {"images": 1500, "cases": 34}
    interval = {"value": 0.912, "low": 0.884, "high": 0.939}
    metrics = {
        "model": {"weights_sha256": sha256},
        "data": {"counts": counts, "train_counts": counts, "part": "test", "split": "grouped"},
        "overall": dict.fromkeys(("auroc", "recall", "specificity"), interval),
    }
    (copy / "metrics.json").write_text(json.dumps(metrics))
    return Models([str(copy)]).describe("small")


def test_a_model_loads_once_also_from_threads(folder):
    models = Models([str(folder)])
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(models.load, ["small"] * 8))
    assert len({id(model) for model in loaded}) == 1
    assert loaded[0].weights_sha256 == models.describe("small").weights_sha256


def test_models_compute_on_the_device_that_was_chosen(folder):
    assert Models([str(folder)], "cpu").device == "cpu"
    with pytest.raises(InputError, match="no device 'gpu': choose one of auto, cpu"):
        Models([str(folder)], "gpu")


@pytest.mark.skipif(choose_device() != "cpu", reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_said_at_start(folder, device):
    with pytest.raises(InputError, match=f"no {device} that torch can use"):
        Models([str(folder)], device)


def test_an_unknown_name_lists_those_there_are(folder):
    with pytest.raises(InputError, match="no model 'other': choose one of small"):
        Models([str(folder)]).load("other")


def test_a_missing_folder_is_said_at_start(tmp_path):
    with pytest.raises(ModelFolderError, match=r"no model folder .*gone"):
        Models([str(tmp_path / "gone")])


def test_one_name_twice_is_refused(folder):
    with pytest.raises(ModelFolderError, match="both hold a model named small"):
        Models([str(folder), str(folder)])


def test_test_figures_are_shown_for_the_weights_they_were_measured_with(folder, tmp_path):
    sha256 = Models([str(folder)]).describe("small").weights_sha256
    offered = with_metrics(folder, tmp_path, sha256)
    assert offered.hint == "AUROC 0.91 (0.88 to 0.94) on 34 held-out cases"


def test_test_figures_of_other_weights_are_not_shown(folder, tmp_path):
    assert with_metrics(folder, tmp_path, "0" * 64).hint == ""


def test_models_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("BCD_MODELS", " a/b, /c ,")
    settings = Settings.from_environment()
    assert settings.models == ("a/b", "/c")


def test_where_nothing_is_set_the_spaces_card_names_the_models(tmp_path):
    assert read_published_models() == (
        "bcd-models/bcd-mobilenetv2",
        "bcd-models/bcd-efficientnet-b2",
    )
    card = tmp_path / "README.md"
    card.write_text("---\nmodels: [a/b]\n---\n")
    assert read_published_models(card) == ("a/b",)


@pytest.mark.parametrize("text", ["no front matter", "---\ntitle: x\n---\n"])
def test_a_card_that_names_no_models_says_what_to_set(tmp_path, text):
    card = tmp_path / "README.md"
    card.write_text(text)
    with pytest.raises(InputError, match="set BCD_MODELS"):
        read_published_models(card)


def test_points_are_chosen_by_name_and_the_first_is_each_model_s_own(
    small_models: Models, pointed_models: Models
) -> None:
    assert pointed_models.point_choices == [("balanced", ""), ("all", "all"), ("none", "none")]
    wanted = ("", "balanced", "none")
    assert [pointed_models.check_point(one) for one in wanted] == ["", "", "none"]
    assert len(small_models.point_choices) == 1
    folders = [models.describe(models.names[0]).folder for models in (small_models, pointed_models)]
    both = Models([str(folder) for folder in folders])
    assert [value for _, value in both.point_choices] == ["", "balanced", "all", "none"]
    assert both.check_point("balanced") == "balanced"
    for models, known in ((pointed_models, "balanced, all, none"), (small_models, "none")):
        with pytest.raises(InputError, match=known):
            models.check_point("screening")
