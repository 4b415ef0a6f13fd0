"""Training and bulk answers on a GPU, beside a bare timm loop on tensors that lie there already.

Runs where a GPU is found, and says so where none is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from bcd_models import BCDClassifier
from bcd_models.models.backbones import get_backbone
from tests.benchmarks.epochs import epoch_of, packed, pixels_of
from tests.benchmarks.record import record
from tests.benchmarks.timing import in_turn, ratio
from tests.conftest import CARDS, MODELS

SIZE, BATCH, STEPS, RUNS = 224, 128, 30, 5
IMAGES = 4096

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use here"),
]


def bare_epoch(backbone: str, device: torch.device) -> Callable[[], object]:
    """As many steps of timm's network on one resident batch, in bfloat16 and channels_last."""
    network = timm.create_model(get_backbone(backbone).timm_name, num_classes=2)
    network = network.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5)
    inputs, labels = resident(device), torch.arange(BATCH, device=device) % 2

    def epoch() -> None:
        for _ in range(STEPS):
            with torch.autocast(device.type, torch.bfloat16):
                loss = nn.functional.cross_entropy(network(inputs), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        loss.item()  # which waits for the device

    return epoch


def resident(device: torch.device) -> Tensor:
    """A batch of normalised inputs."""
    drawn = torch.randn(BATCH, 3, SIZE, SIZE, device=device)
    return drawn.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("backbone", ["mobilenetv2", "efficientnet_b2"])
def test_a_training_step(backbone: str, tmp_path: Path) -> None:
    count = BATCH * STEPS
    pixels = pixels_of(packed(tmp_path, count), count)
    accelerator = Accelerator(mixed_precision="bf16")
    ours, bare = in_turn(
        epoch_of(backbone, pixels, SIZE, BATCH, accelerator),
        bare_epoch(backbone, accelerator.device),
        runs=RUNS,
    )
    record(
        f"training step of {backbone} on the GPU, {SIZE} px, batch {BATCH}, images/s",
        "a bare timm loop on a resident batch, bfloat16, channels_last",
        ratio(bare, ours),
        at_least=0.9,
    )


@pytest.mark.parametrize("name", MODELS)
def test_answers_about_many(name: str) -> None:
    model = BCDClassifier.from_pretrained(CARDS / name)
    device = Accelerator().device
    model.to(device)
    patches = list(np.random.default_rng(0).integers(0, 256, (IMAGES, 50, 50, 3), dtype=np.uint8))
    network = timm.create_model(f"local-dir:{CARDS / name}", pretrained=True).eval()
    network.to(device, memory_format=torch.channels_last)
    inputs = resident(device)

    def bare() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            for _ in range(IMAGES // BATCH):
                logits = network(inputs)
        logits.sum().item()

    ours, baseline = in_turn(lambda: sum(1 for _ in model.stream(patches)), bare, runs=RUNS)
    record(
        f"{IMAGES:,} patches in memory on the GPU, images/s, {name}",
        f"a bare timm loop on a resident batch of {BATCH}, bfloat16, channels_last",
        ratio(baseline, ours),
        at_least=0.9,
    )
