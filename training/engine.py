"""The training loop on whatever Accelerate drives: phases, checkpoints, resume."""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from bcd_models.config import PreprocessConfig
from bcd_models.errors import BCDError, InputError
from bcd_models.preprocess import normalise
from training import balance, figures, metrics
from training.augment import augment, mixed
from training.loader import Pixels
from training.recipe import Recipe

CHECKPOINT = "checkpoint"
EPOCHS = "epochs.jsonl"
EVAL_BATCH = 128
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@dataclass
class Rows:
    """Some rows of a corpus, ready to train or evaluate on.

    Attributes:
        frame: One line a row: label, source, case_id.
        pixels: Their pixels, in the same order.
    """

    frame: pd.DataFrame
    pixels: Pixels

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Whether each row is malignant."""
        return (self.frame["label"] == "malignant").to_numpy()


def rows_of(
    corpus: datasets.Dataset, frame: pd.DataFrame, indices: NDArray[np.int64], largest: int
) -> Rows:
    """Rows of a corpus by position; ``frame`` is the whole corpus' table."""
    chosen = frame.iloc[indices].reset_index(drop=True)
    return Rows(chosen, Pixels(corpus, indices, largest))


class TrainingStopped(BCDError):
    """Training can't go on; the message says why."""


def fit(
    network: nn.Module,
    recipe: Recipe,
    preprocess: PreprocessConfig,
    train: Rows,
    validation: Rows,
    run: Path,
) -> nn.Module:
    """Train a network, or go on from the run's checkpoint.

    Every epoch starts from a seed of its own: a resumed run draws what an unbroken one does.

    Args:
        network: Two logits; trained in place.
        recipe: How.
        preprocess: Mean and standard deviation of the inputs.
        train: What to learn from.
        validation: Scored after each epoch; never learnt from.
        run: Folder for the checkpoint, ``epochs.jsonl`` and the learning curves.

    Returns:
        The trained network: the moving average of its weights where the recipe keeps one.
    """
    cuda = torch.cuda.is_available()
    accelerator = Accelerator(mixed_precision="bf16" if cuda else "no")
    loop = _Loop(accelerator, network, recipe, preprocess, train)
    done = loop.resume(run / CHECKPOINT)
    lines = _kept_lines(run / EPOCHS, done)
    for epoch in range(done, recipe.epochs):
        started = time.monotonic()
        set_seed(recipe.seed * 100_003 + epoch)
        loss = loop.train_epoch(epoch)
        size = recipe.phase_of(epoch)[0].size
        scores = score(loop.result(), validation, preprocess, size)
        lines.append(
            {
                "epoch": epoch + 1,
                "size": size,
                "train_loss": loss,
                "validation_loss": _log_loss(scores, validation.truth),
                "validation_auroc": metrics.auroc(validation.truth, scores),
                "seconds": round(time.monotonic() - started, 1),
            }
        )
        if accelerator.is_main_process:
            # Before the checkpoint: lines too many are cut off on resume, too few would be lost.
            _write_lines(run / EPOCHS, lines)
            figures.learning_curves(pd.DataFrame(lines), run / "learning-curves.png")
        loop.save(run / CHECKPOINT)
    return accelerator.unwrap_model(loop.result())


def score(
    network: nn.Module, rows: Rows, preprocess: PreprocessConfig, size: int | None = None
) -> NDArray[np.float64]:
    """Logit margins (malignant minus benign) of rows, shape (N,)."""
    network = network.eval().to(memory_format=torch.channels_last)
    device = next(network.parameters()).device
    margins = []
    with torch.inference_mode():
        for positions in torch.arange(len(rows.pixels)).split(EVAL_BATCH):
            pixels = rows.pixels.batch(positions, size or preprocess.input_size, device)
            logits = network(normalise(pixels, preprocess)).double()
            margins.append((logits[:, 1] - logits[:, 0]).cpu())
    return torch.cat(margins).numpy()


class _Loop:
    """Network, optimiser and data of one run, and the one way through an epoch."""

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        recipe: Recipe,
        preprocess: PreprocessConfig,
        train: Rows,
    ) -> None:
        self.accelerator = accelerator
        self.recipe = recipe
        self.preprocess = preprocess
        self.train = train
        self.labels = torch.tensor(train.truth, dtype=torch.long)
        self.weights = balance.class_weights(train.frame, recipe.balance).to(accelerator.device)
        positions = DataLoader(
            range(len(train.frame)),  # type: ignore[arg-type]
            batch_size=recipe.batch_size,
            sampler=balance.sampler(train.frame, recipe.balance),
            drop_last=len(train.frame) > recipe.batch_size,
        )
        optimiser = torch.optim.AdamW(_groups(network, recipe))
        self.network, self.optimiser, self.positions = accelerator.prepare(
            network.to(memory_format=torch.channels_last), optimiser, positions
        )
        bare = accelerator.unwrap_model(self.network)
        self.average = _average_of(bare, recipe.ema) if recipe.ema else None
        self.done = 0

    def result(self) -> nn.Module:
        """The network to score and keep."""
        return self.average.module if self.average else self.accelerator.unwrap_model(self.network)

    def train_epoch(self, epoch: int) -> float:
        """One pass; returns the mean loss."""
        if epoch == 0:
            self._settle()
        self.network.train()
        total = 0.0
        bar = tqdm(
            self.positions,
            desc=f"epoch {epoch + 1}/{self.recipe.epochs}",
            disable=None if self.accelerator.is_main_process else True,
        )
        phase, before = self.recipe.phase_of(epoch)
        if self.average and before == 0:
            self.average.set(self.accelerator.unwrap_model(self.network))
        for step, positions in enumerate(bar, before * len(self.positions)):
            rate = phase.learning_rate * self._schedule(step, phase.epochs * len(self.positions))
            loss = self._step(positions, phase.size, rate)
            if self.average:
                self.average.update(self.accelerator.unwrap_model(self.network), step=step)
            if not math.isfinite(loss):
                raise TrainingStopped(
                    f"the loss became {loss} in epoch {epoch + 1}: lower learning_rate; "
                    "the last checkpoint is whole"
                )
            total += loss
            bar.set_postfix(loss=f"{loss:.3f}")
        return total / len(self.positions)

    def save(self, folder: Path) -> None:
        """Write the checkpoint beside its name, then put it in place."""
        beside = folder.with_name(f".{folder.name}.new")
        if self.accelerator.is_main_process:
            shutil.rmtree(beside, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(beside))
        if self.accelerator.is_main_process:
            state = {"steps": self.done}
            if self.average:
                torch.save(self.average.state_dict(), beside / "average.pt")
            (beside / "steps.json").write_text(json.dumps(state))
            old = folder.with_name(f".{folder.name}.old")
            if folder.exists():
                folder.rename(old)
            beside.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def resume(self, folder: Path) -> int:
        """Load the checkpoint if there is one; returns how many epochs are done."""
        kept = folder.with_name(f".{folder.name}.old")
        if not folder.exists() and kept.exists():
            kept.rename(folder)
        if not folder.exists():
            return 0
        self.accelerator.load_state(str(folder))
        self.done = json.loads((folder / "steps.json").read_text())["steps"]
        if self.average:
            average = torch.load(folder / "average.pt", weights_only=True)
            self.average.load_state_dict(average)
        return self.done // len(self.positions)

    def _step(self, positions: Tensor, size: int, rate: float) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        inputs, targets = self._inputs(positions, size)
        with self.accelerator.autocast():
            logits = self.network(inputs)
        loss = weighted_loss(logits.float(), targets, self.weights)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.done += 1
        return float(loss.detach())

    def _inputs(self, positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
        pixels = self.train.pixels.batch(positions, size, self.accelerator.device)
        pixels = augment(pixels, self.recipe.augment)
        labels = self.labels[positions.cpu()].to(pixels.device)
        return mixed(normalise(pixels, self.preprocess), labels, self.recipe.augment.mixup)

    def _schedule(self, step: int, steps: int) -> float:
        """Linear warm-up, then a cosine to zero, over the steps of a phase."""
        warm = max(1, round(steps * self.recipe.warmup_share))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    @torch.no_grad()
    def _settle(self) -> None:
        """Give batch norms statistics of this tissue before the first gradient."""
        self.network.train()
        for seen, positions in enumerate(self.positions):
            if seen == self.recipe.settle_batches:
                break
            inputs, _ = self._inputs(positions, self.recipe.phases[0].size)
            self.network(inputs)


def keep_freed_memory() -> None:
    """Let glibc keep what a training step frees, instead of asking the kernel anew at each step.

    On a CPU, steps at 224 pixels spend most of their time in page faults otherwise (measured on
    two cores: MobileNetV2 7 images a second without, 23 with; EfficientNet-B2 4 and 9).
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)


def weighted_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy with soft targets, each label's share weighted; the mean over the batch.

    Never normalised by the weights' sum: weights of mean 1 under the prior shown then mean the
    same with and without MixUp.
    """
    return -(targets * weights * logits.log_softmax(1)).sum(1).mean()


def _average_of(network: nn.Module, decay: float) -> ModelEmaV3:
    """A moving average of the weights, begun anew at each phase.

    Weights of two input sizes don't mix, and batch norms' statistics are the latest ones: averaged
    over a change from 96 to 224 pixels, they cost 0.03 of validation AUROC.
    """
    return ModelEmaV3(network, decay=decay, use_warmup=True, exclude_buffers=True)


def _groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels alone, not for biases and norms."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _log_loss(margins: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    return float(np.logaddexp(0, np.where(truth, -margins, margins)).mean())


def _kept_lines(path: Path, epochs: int) -> list[dict[str, Any]]:
    if not epochs:
        return []
    if not path.is_file():
        raise InputError(f"{path} is missing beside a checkpoint: start again in a new folder")
    return [json.loads(line) for line in path.read_text().splitlines()[:epochs]]


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    beside = path.with_suffix(".new")
    beside.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.replace(beside, path)
