"""The training loop on whatever Accelerate drives: phases, micro-batches, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast, gather_object, parse_flag_from_env
from numpy.typing import NDArray
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm import tqdm

from bcd_models.config import PreprocessConfig
from bcd_models.errors import InputError
from training.corpus.degrade import degrade_rows, work_ahead
from training.corpus.device import normalise
from training.corpus.pixels import Rows, StoredPixels, resize_rows
from training.evaluate.scoring import auroc_within, score
from training.recipes.schema import Phase, Recipe
from training.train import balance, checkpoint
from training.train.augment import augment, mix_up
from training.train.checkpoint import TrainingStopped

STEPS_BETWEEN_CHECKS = 50  # steps between two looks at the loss, each of which waits for the device
MAX_NORM_BATCHES = 100  # micro-batches that the batch norms of averaged weights are estimated from


class Diverged(TrainingStopped):
    """The loss became NaN or infinite: the recipe's numbers can't be trained with."""


def find_processes() -> PartialState:
    """Return this process and those it was launched with.

    Accelerate makes them one run on GPUs by itself, on CPUs only where it is told.
    """
    is_cpu_forced = parse_flag_from_env("ACCELERATE_USE_CPU")
    return PartialState(cpu=is_cpu_forced or not torch.accelerator.is_available())


def fit(
    network: nn.Module,
    recipe: Recipe,
    preprocess: PreprocessConfig,
    train: Rows,
    validation: Rows | None,
    run: Path,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> nn.Module:
    """Train a network, or go on from the run's checkpoint.

    Every epoch and micro-batch draws from a seed of its own, so a resumed run draws what an
    unbroken one does, and several processes what one does that takes their micro-batches in turn.

    Args:
        network: Two logits; trained in place.
        recipe: How.
        preprocess: Mean and standard deviation of the inputs.
        train: What to learn from.
        validation: Scored after each epoch, never learnt from; None where nothing is held out.
        run: Folder for the checkpoint, ``epochs.jsonl`` and the learning curves.
        on_epoch: Called by the main process with each epoch's line, once its checkpoint is kept;
            what it raises ends the training.

    Returns:
        The trained network: the average of its weights where the recipe keeps one.

    Raises:
        InputError: The recipe's batch can't be shared out.
        Diverged: The loss became NaN or infinite.
        TrainingStopped: The disk is full.
    """
    on_gpu = find_processes().device.type == "cuda"
    accelerator = Accelerator(mixed_precision="bf16" if on_gpu else "no")
    loop = _Loop(accelerator, network, recipe, preprocess, train)
    done = checkpoint.resume(run, accelerator, loop.average)
    lines = checkpoint.read_lines(run, done)
    for epoch in range(done, recipe.epochs):
        started = time.monotonic()
        line: dict[str, Any] = {"epoch": epoch + 1, "size": recipe.phase_of(epoch)[0].size}
        line["train_loss"] = loop.train_epoch(epoch)
        line |= _score_held_out(loop.result(), validation, preprocess, line["size"], accelerator)
        _stop_unless_finite(line.get("validation_loss", 0.0), epoch)
        seconds = round(time.monotonic() - started, 1)
        lines.append(line | {"seconds": seconds, "hardware": _describe_hardware(accelerator)})
        if accelerator.is_main_process:
            # Before the checkpoint: lines too many are cut off on resume, too few would be lost.
            checkpoint.write_lines(run, lines)
        checkpoint.save(run, accelerator, loop.average, epoch + 1)
        if on_epoch and accelerator.is_main_process:
            on_epoch(lines[-1])
    return loop.result()


def _describe_hardware(accelerator: Accelerator) -> str:
    """Return what an epoch ran on, in words."""
    if accelerator.device.type == "cuda":
        name = torch.cuda.get_device_name(accelerator.device)
    else:
        name = f"CPU process of {torch.get_num_threads()} threads"
    return f"{accelerator.num_processes} x {name}"


def _score_held_out(
    network: nn.Module,
    rows: Rows | None,
    preprocess: PreprocessConfig,
    size: int,
    accelerator: Accelerator,
) -> dict[str, float | None]:
    """Return loss and AUROC of held-out rows, each process scoring its share."""
    if rows is None:
        return {}
    each = math.ceil(len(rows.pixels) / accelerator.num_processes)
    first = accelerator.process_index * each
    share = score(network, rows, preprocess, size, slice(first, first + each))
    margins = np.concatenate(gather_object([share]))
    if not np.isfinite(margins).all():
        return {"validation_loss": math.nan}
    return {
        "validation_loss": _log_loss(margins, rows.truth),
        "validation_auroc": auroc_within(rows, margins),
    }


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
        self.targets = _make_targets(train, recipe.teachers)
        weights = balance.class_weights(
            train.frame, recipe.balance, recipe.case_share, recipe.case_weight
        )
        self.weights = weights.to(accelerator.device)
        self.shares = recipe.accumulate * accelerator.num_processes
        self.batch = _fit_batch(len(train.frame), recipe.batch_size, self.shares)
        groups = param_groups_layer_decay(
            network, recipe.weight_decay, layer_decay=recipe.layer_decay
        )
        self.network, self.optimiser = accelerator.prepare(
            network.to(memory_format=torch.channels_last), torch.optim.AdamW(groups)
        )
        self.bare: Any = accelerator.unwrap_model(self.network)
        # Begun anew at each phase: weights of two input sizes don't mix. Batch norms' statistics
        # are the latest: averaged over a change from 96 to 224 px, they cost 0.03 of AUROC.
        self.average: ModelEmaV3 | AveragedModel | None = None
        if recipe.ema:
            self.average = ModelEmaV3(
                self.bare, decay=recipe.ema, use_warmup=True, exclude_buffers=True
            )
        elif recipe.average:
            self.average = AveragedModel(self.bare)

    def result(self) -> nn.Module:
        """Return the network to score and keep."""
        waits = isinstance(self.average, AveragedModel) and not self.average.n_averaged
        network: nn.Module = self.average.module if self.average and not waits else self.bare
        return network

    def train_epoch(self, epoch: int) -> float:
        """Make one pass; returns the mean loss."""
        wanted = self.recipe.epoch_steps * self.batch
        order = balance.draw_order(self.train.frame, self.recipe, self._derive_seed(epoch), wanted)
        steps = len(order) // self.batch
        order = order[: steps * self.batch]
        phase, before = self.recipe.phase_of(epoch)
        if epoch == 0:
            self._settle(order, phase)
        if isinstance(self.average, ModelEmaV3) and before == 0:
            self.average.set(self.bare)  # type: ignore[no-untyped-call]
        self.network.train()
        losses: list[Tensor] = []
        stored = self._load(order, epoch)
        words = f"epoch {epoch + 1}/{self.recipe.epochs}"
        shown = None if self.accelerator.is_main_process else True
        for step in tqdm(range(steps), words, disable=shown):
            self._set_rate(phase, before * steps + step, phase.epochs * steps)
            losses.append(self._step(order, stored, phase, epoch, step))
            self._update_average(phase, before * steps + step, phase.epochs * steps)
            if len(losses) % STEPS_BETWEEN_CHECKS == 0:
                self._average(losses[-STEPS_BETWEEN_CHECKS:], epoch)
        if isinstance(self.average, AveragedModel) and self.average.n_averaged:
            torch.manual_seed(self._derive_seed(epoch))
            with torch.no_grad(), self.accelerator.autocast():
                update_bn(self._make_inputs(order, epoch, phase, MAX_NORM_BATCHES), self.average)
        for buffer in self.result().buffers():
            broadcast(buffer)  # process 0's batch-norm statistics are scored, and kept
        self._average([weights.detach().mean() for weights in self.result().parameters()], epoch)
        return self._average(losses, epoch)

    def _derive_seed(self, epoch: int, step: int = 0, share: int = 0) -> int:
        """Return the seed of an epoch's order, or of the draws of one micro-batch."""
        sequence = np.random.SeedSequence((self.recipe.seed, epoch, step, share))
        return int(sequence.generate_state(1, np.uint64)[0] >> 1)

    def _micro_batches(self, order: Tensor) -> Iterator[Tensor]:
        """Yield this process' micro-batches: of each step's, every so many-th."""
        for batch in torch.split(order, self.batch):
            shares = batch.tensor_split(self.shares)
            yield from shares[self.accelerator.process_index :: self.accelerator.num_processes]

    def _load(self, order: Tensor, epoch: int) -> Iterator[StoredPixels]:
        """Load this process' micro-batches, degraded ahead where the recipe says so."""
        rows, strengths = self.train.pixels.rows, self.recipe.degrade
        if not strengths.is_on:
            return map(rows, self._micro_batches(order))

        def degrade_places(places: Tensor) -> StoredPixels:
            seeds = [(self.recipe.seed, epoch, place) for place in places.tolist()]
            return degrade_rows(rows(order[places]), strengths, seeds)

        return work_ahead(degrade_places, self._micro_batches(torch.arange(len(order))))

    def _update_average(self, phase: Phase, step: int, steps: int) -> None:
        """Take the weights after a step of a phase into their average."""
        if isinstance(self.average, ModelEmaV3):
            self.average.update(self.bare, step=step)
            return
        begun = phase is self.recipe.phases[-1] and step >= steps * (1 - self.recipe.average)
        if self.average and begun:
            self.average.update_parameters(self.bare)

    def _step(
        self, order: Tensor, stored: Iterator[StoredPixels], phase: Phase, epoch: int, step: int
    ) -> Tensor:
        """Take one step of the optimiser over this process' micro-batches; returns the loss."""
        batch = order[step * self.batch : (step + 1) * self.batch].tensor_split(self.shares)
        total = torch.zeros((), device=self.accelerator.device)
        for turn in range(self.recipe.accumulate):
            share = turn * self.accelerator.num_processes + self.accelerator.process_index
            torch.manual_seed(self._derive_seed(epoch, step, share + 1))
            inputs, targets = self._prepare_inputs(
                next(stored), self.targets[batch[share]], phase.size
            )
            is_last = turn == self.recipe.accumulate - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.network):
                total += self._backward(inputs, targets)
        if phase.learns == "norms_and_head":
            _forget_other_gradients(self.bare)
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return total

    def _backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with self.accelerator.autocast():
            logits = self.network(inputs)
        loss = balance.weighted_loss(logits.float(), targets, self.weights)
        loss = loss / self.recipe.accumulate
        self.accelerator.backward(loss)
        return loss.detach()

    def _prepare_inputs(
        self, stored: StoredPixels, targets: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        pixels = resize_rows(stored, size, self.accelerator.device)
        pixels = augment(pixels, self.recipe.augment)
        inputs = normalise(pixels, self.preprocess).contiguous(memory_format=torch.channels_last)
        return mix_up(inputs, targets.to(pixels.device), self.recipe.augment.mixup)

    def _set_rate(self, phase: Phase, step: int, steps: int) -> None:
        """Set the rate: a linear warm-up, then a cosine to zero, over the steps of a phase."""
        warm = max(1, round(steps * self.recipe.warmup_share))
        share = (step + 1) / warm
        if step >= warm:
            share = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
        for group in self.optimiser.param_groups:
            group["lr"] = phase.learning_rate * share * group["lr_scale"]

    def _average(self, values: list[Tensor], epoch: int) -> float:
        """Return the mean of losses or weights over all processes; stop where it isn't finite."""
        mean = float(self.accelerator.reduce(torch.stack(values).mean(), "mean"))
        _stop_unless_finite(mean, epoch)
        return mean

    @torch.no_grad()
    def _settle(self, order: Tensor, phase: Phase) -> None:
        """Give batch norms statistics of this tissue before the first gradient."""
        self.network.train()
        torch.manual_seed(self._derive_seed(0))
        for inputs in self._make_inputs(order, 0, phase, self.recipe.settle_batches):
            self.network(inputs)

    def _make_inputs(self, order: Tensor, epoch: int, phase: Phase, count: int) -> Iterator[Tensor]:
        """Make the inputs of this process' first micro-batches of an epoch, as training does."""
        asked = islice(self._micro_batches(order), count)
        for positions, stored in zip(asked, self._load(order, epoch), strict=False):
            yield self._prepare_inputs(stored, self.targets[positions], phase.size)[0]


def _stop_unless_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise Diverged(
            f"the loss became {loss} in epoch {epoch + 1}: lower learning_rate; "
            "the last checkpoint is whole"
        )


def _make_targets(train: Rows, taught_share: float) -> Tensor:
    """Return soft targets N x 2: the label, and for a share of them what teachers say."""
    malignant = train.truth.astype(np.float64)
    if taught_share:
        if train.taught is None:
            raise InputError("the recipe asks for teachers: name them with --teacher")
        says = np.where(np.isnan(train.taught), malignant, train.taught)
        malignant = (1 - taught_share) * malignant + taught_share * says
    return torch.tensor(np.stack([1 - malignant, malignant], 1), dtype=torch.float32)


def _fit_batch(rows: int, wanted: int, shares: int) -> int:
    """Return the rows of one step: as wanted or as there are, equal in each micro-batch."""
    batch = min(wanted, rows)
    batch -= batch % shares
    if batch < 2 * shares:
        raise InputError(
            f"a batch of {wanted} from {rows} rows can't be shared by {shares} micro-batches of at "
            "least two: raise batch_size, or lower accumulate or the number of processes"
        )
    return batch


def _forget_other_gradients(network: Any) -> None:
    """Leave gradients to norms (all vectors among the weights) and to the classifier alone."""
    head = set(network.get_classifier().parameters())
    for parameter in network.parameters():
        if parameter.ndim > 1 and parameter not in head:
            parameter.grad = None


def _log_loss(margins: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    return float(np.logaddexp(0, np.where(truth, -margins, margins)).mean())
