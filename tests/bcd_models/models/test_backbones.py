"""Every backbone of the registry, and two more that are nowhere else, from training to the Hub.

A new one is a line here, to see whether it works, and then a line of the registry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.config import LABELS, ModelConfig, PreprocessConfig
from bcd_models.models import backbones
from bcd_models.models.backbones import BACKBONES, Backbone
from tests.support import small_runs
from training import command
from training.card import write as card
from training.evaluate import measure
from training.publish import model as publish
from training.train import run as train

MORE: tuple[Backbone, ...] = (
    # A line each: name, timm's name, title, and a cell's side where it isn't 32 pixels.
    Backbone("resnet18", "resnet18", "ResNet-18"),
    Backbone("vit_tiny", "vit_tiny_patch16_224", "ViT-Tiny", cell_pixels=16),
)


def run_command(main: Callable[..., Any], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.run(main, arguments)
    assert end.value.code == 0


class BackboneTests:
    """What a backbone has to do; a subclass names it."""

    backbone: Backbone
    size: int

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def registered(cls) -> Iterator[None]:
        """The backbone is in the registry while its tests run."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(backbones.BACKBONES, cls.backbone.name, cls.backbone)
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> BCDClassifier:
        torch.manual_seed(1)
        half = (0.5, 0.5, 0.5)
        preprocess = PreprocessConfig(input_size=cls.size, mean=half, std=half)
        name = cls.backbone.name
        return BCDClassifier(
            ModelConfig(name="fresh", version="0", backbone=name, preprocess=preprocess)
        )

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, model: BCDClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
        saved = tmp_path_factory.mktemp("saved") / "model"
        model.save_pretrained(saved)
        return saved

    def test_its_cells_are_as_large_as_timm_says(self) -> None:
        """The app, which has no timm, reads their size from the entry."""
        last = timm.create_model(self.backbone.timm_name).feature_info[-1]
        assert last["reduction"] == self.backbone.cell_pixels

    def test_it_comes_back_and_answers_by_its_export(
        self, model: BCDClassifier, folder: Path, patches: list[Image.Image]
    ) -> None:
        loaded = BCDClassifier.from_pretrained(folder)
        assert loaded.predict(patches[0]).runtime == "onnx float32"
        by_export = loaded.predict_proba(patches)
        loaded.runtime = "torch"
        assert np.abs(by_export - loaded.predict_proba(patches)).max() < 1e-4
        assert loaded.predict(patches[0]).runtime == "torch float32"
        assert loaded.weights_sha256 == model.weights_sha256

    def test_its_gradient_map_is_autograd_s_by_its_export(self, folder: Path) -> None:
        loaded = BCDClassifier.from_pretrained(folder)
        assert loaded.has_gradient_export
        pixels = np.random.default_rng(0).normal(size=(3, 3, self.size, self.size))
        inputs = pixels.astype(np.float32)
        by_export = loaded._get_forward().contributions(inputs)
        by_autograd = loaded._torch_forward().contributions(inputs)
        assert by_export.shape == by_autograd.shape
        largest = np.abs(by_autograd).max()  # of fresh networks it may be tiny
        assert largest > 0
        assert np.abs(by_export - by_autograd).max() < min(1e-5 * max(1, largest), 1e-3 * largest)

    def test_both_labels_are_explained(self, folder: Path, patches: list[Image.Image]) -> None:
        loaded = BCDClassifier.from_pretrained(folder)
        maps = [loaded.explain(patches[1], label=label).heatmap for label in LABELS]
        assert all(one.shape == (50, 50) for one in maps)
        assert all(0 <= one.min() <= one.max() <= 1 for one in maps)
        assert max(one.max() for one in maps) > 0

    def test_plain_timm_loads_it_with_other_heads_and_channels(self, folder: Path) -> None:
        plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        loaded = BCDClassifier.from_pretrained(folder)
        pixels = torch.randn(2, 3, self.size, self.size)
        with torch.inference_mode():
            assert torch.equal(plain(pixels), loaded(pixels))
        other = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5, in_chans=1)
        assert other(torch.randn(2, 1, self.size, self.size)).shape == (2, 5)

    @pytest.fixture(scope="class")
    @classmethod
    def trained(
        cls, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> tuple[Path, Path]:
        """A run of one short epoch, and the figures of its model."""
        root = tmp_path_factory.mktemp("trained")
        phase = {"size": cls.size, "epochs": 1, "learning_rate": 0.001}
        recipe = small_runs.write(
            root / "recipe.yaml", backbone=cls.backbone.name, phases=[phase], ema=0
        )
        run = root / "run"
        run_command(train.main, small_runs.arguments(recipe, corpus_folder, run))
        figures = run / "model" / "metrics.json"
        measured = ["--model", str(run / "model"), "--corpus", str(corpus_folder)]
        run_command(measure.main, [*measured, "--out", str(figures)])
        return run / "model", figures

    def test_it_is_trained_measured_and_published_with_a_true_card(
        self, trained: tuple[Path, Path], tmp_path: Path
    ) -> None:
        folder, figures = trained
        assert json.loads(figures.read_text())["overall"]["auroc"]
        run_command(card.main, ["--model", str(folder)])
        text = (folder / "README.md").read_text()
        assert self.backbone.title in text
        cells = self.size // self.backbone.cell_pixels
        assert f"{cells} x {cells} cells" in text
        is_transformer = "vit" in self.backbone.name
        assert ("`blocks.11.norm1`" if is_transformer else "the last feature map") in text
        content = publish.stage(folder, tmp_path)
        assert (content.folder / "model.onnx").is_file()


def _named_tests(backbone: Backbone) -> type[BackboneTests]:
    size = 64 - 64 % backbone.cell_pixels
    names = {"backbone": backbone, "size": size}
    return type(f"Test_{backbone.name}", (BackboneTests,), names)


for each in (*BACKBONES.values(), *MORE):
    globals()[f"Test_{each.name}"] = _named_tests(each)
