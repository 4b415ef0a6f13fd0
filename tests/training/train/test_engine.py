"""The loop: what a recipe's settings change, several processes, and what stops it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_models.config import PreprocessConfig
from bcd_models.errors import InputError
from tests.conftest import ROOT
from tests.support import small_runs
from tests.support.small_runs import RECIPE, arguments, assert_equal, furthest, lines, parameters
from training import command
from training.corpus import degrade
from training.corpus.pixels import Rows
from training.corpus.selection import Data, open_corpus, select_data
from training.evaluate import scoring
from training.recipes.schema import Recipe
from training.train import engine
from training.train import run as train

ONE_PHASE = [{"size": 32, "epochs": 1, "learning_rate": 0.002}]
SUMMED_OTHERWISE = 1e-6  # seen: 0 for two gradients, 5e-10 for four after one step


def planned(**changes: Any) -> Recipe:
    return Recipe.model_validate(RECIPE | changes)


@pytest.fixture(scope="module")
def data(corpus_folder: Path) -> Data:
    return select_data(open_corpus(corpus_folder, "grouped"), planned())


@pytest.fixture
def rows(data: Data) -> Rows:
    return data.training


def learnt(
    rows: Rows, run: Path, held_out: Rows | None = None, **changes: Any
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights before and after a short training."""
    plan = planned(**{"phases": ONE_PHASE, "ema": 0} | changes)
    network, preprocess, _ = train.build_network(plan, None)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    run.mkdir(exist_ok=True)
    after = engine.fit(network, plan, preprocess, rows, held_out, run)
    return before, {name: p.detach().clone() for name, p in after.named_parameters()}


# Several processes.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("each", "changes"),
    [
        (1, {}),
        # Four gradients are summed in another order. From the second step on, Adam blows that up
        # to whole learning rates wherever a gradient is nearly zero: one step is compared.
        (2, {"batch_size": 256, "phases": ONE_PHASE}),
    ],
)
def test_processes_equal_one_that_accumulates(
    each: int, changes: dict, corpus_folder: Path, tmp_path: Path
) -> None:
    """Batch norms' running statistics are process 0's, which sees another share of the batches."""
    asked = {}
    for name, accumulate in (("pair", each), ("single", 2 * each)):
        config = small_runs.write(tmp_path / f"{name}.yaml", accumulate=accumulate, **changes)
        asked[name] = arguments(config, corpus_folder, tmp_path / name)
    pair = small_runs.begin_together(asked["pair"], 2)
    single = small_runs.begin(asked["single"])
    assert [small_runs.wait_for_exit(process) for process in (*pair, single)] == [0, 0, 0]
    runs = [tmp_path / name for name in asked]
    assert furthest(*map(parameters, runs)) < SUMMED_OTHERWISE
    for line, other in zip(*map(lines, runs), strict=True):
        assert line["train_loss"] == pytest.approx(other["train_loss"], abs=1e-6)
    assert not (runs[0] / ".checkpoint.new").exists()


@pytest.mark.slow
def test_accelerate_launches_processes(corpus_folder: Path, tmp_path: Path) -> None:
    """Without ``--multi_gpu`` it starts a single process where there is no GPU, whatever it says.

    Each process' micro-batch is one of the single process' two, so MixUp and augmentation draw the
    same; scores are those of the network that is kept.
    """
    plain = small_runs.write(tmp_path / "plain.yaml", ema=0)
    accumulating = small_runs.write(tmp_path / "accumulating.yaml", ema=0, accumulate=2)
    asked = arguments(plain, corpus_folder, tmp_path / "pair")
    launch = "accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port 0"
    subprocess.run(
        [sys.executable, "-m", *launch.split(), "-m", "training.train", *asked],
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    single = small_runs.begin(arguments(accumulating, corpus_folder, tmp_path / "single"))
    assert small_runs.wait_for_exit(single) == 0
    pair, single = (parameters(tmp_path / name) for name in ("pair", "single"))
    assert furthest(pair, single) < SUMMED_OTHERWISE

    data = select_data(open_corpus(corpus_folder, "grouped"), planned())
    kept = train.build_network(planned(), None)[0]
    kept.load_state_dict(small_runs.load_file(tmp_path / "pair/checkpoint/model.safetensors"))
    margins = scoring.score(
        kept, data.held_out, PreprocessConfig(mean=(0.5,) * 3, std=(0.5,) * 3), 48
    )
    loss = engine._log_loss(margins, data.held_out.truth)
    assert lines(tmp_path / "pair")[-1]["validation_loss"] == pytest.approx(loss, abs=1e-6)


def test_a_batch_that_cannot_be_shared_is_refused(rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"a batch of 8 from .* can't be shared by 8 micro-batches"
    ):
        learnt(rows, tmp_path, batch_size=8, accumulate=8)


# What settings change.


def test_norms_and_head_learn_alone(rows: Rows, tmp_path: Path) -> None:
    phases = [ONE_PHASE[0] | {"learns": "norms_and_head"}]
    before, after = learnt(rows, tmp_path, phases=phases)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "classifier.weight" in changed
    assert all(before[name].ndim == 1 or name == "classifier.weight" for name in changed)
    assert any(name.startswith("bn1") for name in changed)


def test_layers_near_the_input_learn_slower(data: Data, tmp_path: Path) -> None:
    """Adam's first step is as long as its learning rate, whatever the gradient."""
    before, after = learnt(
        data.training,
        tmp_path,
        layer_decay=0.5,
        warmup_share=0,
        weight_decay=0,
        batch_size=len(data.training.pixels) // 2 * 2,  # one step
        settle_batches=0,
        augment={"flips": False},
    )
    moved = {
        n: float((after[n] - before[n]).abs().max()) for n in ("bn1.weight", "conv_head.weight")
    }
    # The classifier starts at zero, so that only it has a gradient at first.
    assert moved["bn1.weight"] == moved["conv_head.weight"] == 0
    assert float((after["classifier.bias"]).abs().max()) == pytest.approx(0.002, rel=0.01)
    loop = looped(data.training, layer_decay=0.5)
    loop._set_rate(loop.recipe.phases[0], step=1, steps=10)
    rate = {id(p): group["lr"] for group in loop.optimiser.param_groups for p in group["params"]}
    rates = [rate[id(p)] for p in loop.accelerator.unwrap_model(loop.network).parameters()]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.002)
    assert rates[0] == pytest.approx(0.002 * 0.5 ** (len(set(rates)) - 1))


def looped(rows: Rows, **changes: Any) -> engine._Loop:
    plan = planned(**changes)
    network, preprocess, _ = train.build_network(plan, None)
    accelerator = engine.Accelerator()
    return engine._Loop(accelerator, network, plan, preprocess, rows)


def test_rates_warm_up_and_fall_to_zero(rows: Rows) -> None:
    loop = looped(rows, warmup_share=0.2)
    rates = []
    for step in range(10):
        loop._set_rate(loop.recipe.phases[0], step, 10)
        rates.append(loop.optimiser.param_groups[0]["lr"])
    assert rates[:3] == pytest.approx([0.001, 0.002, 0.002])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 0.0002


def test_the_moving_average_begins_anew_with_each_phase(rows: Rows) -> None:
    loop = looped(rows, ema=0.9)
    for epoch in range(2):
        with torch.no_grad():
            for weights in loop.average.module.parameters():
                weights.fill_(100.0)  # nothing of it may be left in the new phase
        loop.train_epoch(epoch)
        assert max(float(w.detach().abs().max()) for w in loop.average.module.parameters()) < 50
    bare = loop.accelerator.unwrap_model(loop.network)
    for mean, latest in zip(loop.average.module.buffers(), bare.buffers(), strict=True):
        assert torch.equal(mean, latest)


def test_the_last_weights_are_averaged_with_norms_of_their_own(rows: Rows) -> None:
    """Of two phases of one epoch, over the last half of the last phase's steps."""
    loop = looped(rows, ema=0, average=0.5)
    loop.train_epoch(0)
    assert loop.result() is loop.bare
    stepped: list[dict[str, torch.Tensor]] = []
    step = loop._step

    def noting(*args: Any) -> torch.Tensor:
        loss = step(*args)
        stepped.append({n: p.detach().double().clone() for n, p in loop.bare.named_parameters()})
        return loss

    loop._step = noting  # type: ignore[method-assign]
    loop.train_epoch(1)
    averaged = loop.result()
    assert averaged is not loop.bare
    last = stepped[math.ceil(len(stepped) / 2) :]
    assert 1 < len(last) < len(stepped)
    for name, weights in averaged.named_parameters():
        mean = sum(one[name] for one in last) / len(last)
        assert torch.allclose(weights.double(), mean, atol=1e-5)
    statistics = {n: b for n, b in averaged.named_buffers() if n.endswith("running_mean")}
    assert any(not torch.allclose(b, loop.bare.get_buffer(n)) for n, b in statistics.items())
    batches = {int(b) for n, b in averaged.named_buffers() if n.endswith("num_batches_tracked")}
    assert batches == {len(stepped)}  # all of an epoch, for it has fewer than a hundred


HARD = {
    "ema": 0,
    "average": 0.8,
    "epoch_steps": 4,
    "case_weight": "root",
    "degrade": {"stain": 0.2, "blur": 1.2, "noise": 10, "jpeg": 30, "hue": 0.05},
    "phases": [ONE_PHASE[0] | {"epochs": 3}],
}


class Killed(Exception):
    """A run ends here."""


@pytest.mark.parametrize("threads", [1, 3])
def test_a_degraded_and_averaged_run_resumes_bit_for_bit(
    threads: int, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the second epoch, in whose midst the average began; by any threads."""
    unbroken = learnt(data.training, tmp_path / "unbroken", data.held_out, **HARD)[1]

    def kill(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise Killed

    monkeypatch.setattr(degrade, "_THREADS", threads)
    plan = planned(**HARD)
    (tmp_path / "killed").mkdir()
    network, preprocess, _ = train.build_network(plan, None)
    with pytest.raises(Killed):
        engine.fit(
            network, plan, preprocess, data.training, data.held_out, tmp_path / "killed", kill
        )
    resumed = learnt(data.training, tmp_path / "killed", data.held_out, **HARD)[1]
    assert furthest(unbroken, resumed) == 0
    assert lines(tmp_path / "killed") == lines(tmp_path / "unbroken")
    assert len(lines(tmp_path / "unbroken")) == 3


def test_a_draw_is_degraded_alike_however_a_step_is_shared(rows: Rows) -> None:
    pixels = []
    for accumulate in (1, 2):
        loop = looped(rows, accumulate=accumulate, degrade=HARD["degrade"])
        batches = [batch for ((_, batch),) in loop._load(torch.arange(32), epoch=1)]
        assert len(batches) == 2 * accumulate
        pixels.append(torch.cat(batches))
    assert torch.equal(*pixels)
    ((_, stored),) = rows.pixels.rows(torch.arange(32))
    changed = (pixels[0] != stored).flatten(1).any(1)
    assert 0.5 < changed.double().mean() < 1


def test_what_is_learnt_is_degraded_and_what_is_held_out_is_not(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = degrade.degrade_rows
    seen: list[tuple[int, ...]] = []

    def note(rows: Any, strengths: Any, seeds: list[tuple[int, ...]]) -> Any:
        seen.extend(seeds)
        return given(rows, strengths, seeds)

    monkeypatch.setattr(engine, "degrade_rows", note)
    changes = HARD | {"average": 0, "settle_batches": 0, "seed": 5}
    learnt(data.training, tmp_path, data.held_out, **changes)
    assert sorted(seen) == [(5, epoch, place) for epoch in range(3) for place in range(4 * 16)]


def test_gradients_are_clipped(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = looped(rows, clip_norm=1e-3, phases=ONE_PHASE)
    norms = []
    stepped = type(loop.optimiser).step

    def step(optimiser: Any) -> None:
        gradients = [p.grad.norm() for g in optimiser.param_groups for p in g["params"]]
        norms.append(float(torch.stack(gradients).norm()))
        stepped(optimiser)

    monkeypatch.setattr(type(loop.optimiser), "step", step)
    loop.train_epoch(0)
    assert norms
    assert max(norms) == pytest.approx(1e-3, rel=0.01)


def test_class_weights_reach_the_loss(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    assert looped(rows).weights.tolist() == [1, 1]
    weights = looped(rows, balance="loss").weights
    malignant = rows.truth.mean()
    assert float(weights[1] / weights[0]) == pytest.approx((1 - malignant) / malignant)


def test_teachers_are_part_of_the_targets(rows: Rows) -> None:
    says = np.where(np.arange(len(rows.truth)) % 2, 0.9, np.nan)
    taught = Rows(rows.frame, rows.pixels, says)
    targets = looped(taught, teachers=0.25).targets.numpy()
    expected = np.where(np.isnan(says), rows.truth, 0.75 * rows.truth + 0.25 * 0.9)
    assert targets[:, 1] == pytest.approx(expected)
    assert targets.sum(1) == pytest.approx(1)
    with pytest.raises(InputError, match="name them with --teacher"):
        looped(rows, teachers=0.25)


def test_no_row_is_drawn_more_than_three_times(rows: Rows) -> None:
    plan = planned()
    draws = engine.balance.draw_weights(rows.frame, plan.balance) * len(rows.frame)
    drawn = [engine.balance.draw_order(rows.frame, plan, seed) for seed in range(400)]
    counts = np.stack([np.bincount(order, minlength=len(draws)) for order in drawn])
    assert (counts.sum(1) == len(draws)).all()
    assert (np.abs(counts - draws) < 1).all()
    assert counts.max() <= engine.balance.MAX_DRAWS
    assert np.abs(counts.mean(0) - draws).max() < 5 * 0.5 / 400**0.5


def test_epochs_draw_anew_and_alike_for_every_process(rows: Rows) -> None:
    loop = looped(rows, accumulate=2)
    seeds = {loop._derive_seed(e, s, m) for e in range(3) for s in range(3) for m in range(3)}
    assert len(seeds) == 27
    order = engine.balance.draw_order(rows.frame, loop.recipe, loop._derive_seed(0))
    whole = torch.cat(list(loop._micro_batches(order)))
    assert torch.equal(whole, order)


# What stops it.


@pytest.fixture(scope="module")
def unbroken(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train.train(small_runs.write(folder / "r.yaml"), corpus_folder, folder / "run")
    return folder / "run"


def refused(asked: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line a command ends with."""
    with pytest.raises(SystemExit) as end:
        command.run(train.main, asked)
    assert end.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(said) == 1
    return said[0]


def poisoned_loss(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    given = engine.balance.weighted_loss
    calls = iter(range(10**6))

    def loss(*args: torch.Tensor) -> torch.Tensor:
        return given(*args) * (float("nan") if next(calls) > steps else 1)

    monkeypatch.setattr(engine.balance, "weighted_loss", loss)


def poisoned_weights(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """In the very last step of an epoch, so that no loss has shown it yet."""
    given = engine._Loop.train_epoch

    def train_epoch(loop: engine._Loop, epoch: int) -> float:
        if epoch:
            step = loop._step

            def poison(*args: Any) -> torch.Tensor:
                loss = step(*args)
                with torch.no_grad():
                    next(loop.network.parameters()).fill_(float("inf"))
                return loss

            loop._step = poison
        return given(loop, epoch)

    monkeypatch.setattr(engine._Loop, "train_epoch", train_epoch)


def poisoned_scores(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    given = scoring.score
    calls = iter(range(10**6))

    def score(*args: Any) -> np.ndarray:
        return given(*args) * (np.nan if next(calls) else 1)

    monkeypatch.setattr(engine, "score", score)


@pytest.mark.slow
@pytest.mark.parametrize("poison", [poisoned_loss, poisoned_weights, poisoned_scores])
def test_a_loss_that_turns_nan_stops_before_it_is_kept(
    poison, unbroken: Path, corpus_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    config = small_runs.write(tmp_path / "r.yaml")
    asked = arguments(config, corpus_folder, tmp_path / "run")
    with monkeypatch.context() as patched:
        poison(patched, steps=16)
        assert "the loss became" in (said := refused(asked, capsys))
        assert "in epoch 2" in said
    assert lines(tmp_path / "run") == lines(unbroken)[:1]
    train.train(config, corpus_folder, tmp_path / "run")
    assert_equal(tmp_path / "run", unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("most_bytes", [3_000, 5_000_000, 12_000_000])
def test_a_full_disk_at_a_checkpoint(
    most_bytes: int, unbroken: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    """Too little room for the curves, the weights or the optimiser; the last run has room."""
    out = tmp_path / "run"
    config = small_runs.write(tmp_path / "r.yaml")
    asked = arguments(config, corpus_folder, out)
    small_runs.kill_when(small_runs.begin(asked), (out / "checkpoint").exists)
    before = parameters(out)
    said = tmp_path / "said"
    full = small_runs.begin([*asked, "--resume"], said, most_bytes)
    assert small_runs.wait_for_exit(full) == 2
    assert "Traceback" not in said.read_text()
    assert said.read_text().splitlines()[-1].startswith("error: ")
    assert "make room" in said.read_text().splitlines()[-1]
    assert furthest(before, parameters(out)) == 0
    assert lines(out)[:1] == lines(unbroken)[:1]
    again = small_runs.begin([*asked, "--resume"])
    assert small_runs.wait_for_exit(again) == 0
    assert_equal(out, unbroken)
