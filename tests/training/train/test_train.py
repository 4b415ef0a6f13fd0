"""Recipe to model folder on a miniature corpus, through the commands a user types."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from bcd_models import BCDClassifier
from bcd_models.config import HeldOut
from bcd_models.errors import InputError
from bcd_models.local.metrics import METRICS
from tests.support import small_runs
from tests.support.small_runs import RECIPE, arguments, assert_equal
from training import command
from training.card import write as card
from training.corpus import build as corpus
from training.corpus import splits
from training.corpus.selection import open_corpus, select_data
from training.evaluate import measure as evaluate
from training.recipes import schema as recipe
from training.train import run as train


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_runs.write(tmp_path_factory.mktemp("recipe") / "small.yaml")


@pytest.fixture(scope="module")
def run(config: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(SystemExit) as end:
        command.run(train.main, arguments(config, corpus_folder, out))
    assert end.value.code == 0
    return out


def test_a_run_folder_tells_the_whole_story(run: Path, config: Path) -> None:
    lines = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
    assert [line["size"] for line in lines] == [32, 48]
    assert all(0 <= line["validation_auroc"] <= 1 for line in lines)
    assert recipe.read(run / "recipe.yaml") == recipe.read(config)
    record = json.loads((run / "run.json").read_text())
    assert torch.__version__.startswith(record["versions"]["torch"])
    assert (run / "learning-curves.png").stat().st_size > 5000
    provenance = BCDClassifier.from_pretrained(run / "model").config.provenance
    assert provenance.split == "grouped"
    assert provenance.recipe["phases"][0]["size"] == 32


def test_evaluation_and_card_follow(run: Path, corpus_folder: Path, capsys) -> None:
    out = run / "model" / "metrics.json"
    with pytest.raises(SystemExit) as end:
        command.run(
            evaluate.main,
            ["--model", str(run / "model"), "--corpus", str(corpus_folder), "--out", str(out)],
        )
    assert end.value.code == 0
    metrics = json.loads(out.read_text())
    assert metrics["data"]["part"] == "test"
    for name in METRICS:
        entry = metrics["overall"][name]
        assert entry["low"] - 1e-9 <= entry["value"] <= entry["high"] + 1e-9
    assert metrics["floors"]["source_alone"]["auroc"]["value"] == 0.5
    assert metrics["data"]["only_trained_on"]["breakhis"]["cases"] == 4
    text = card.render(run / "model")
    assert METRICS["auroc"].text(metrics["overall"]["auroc"]["value"]) in text
    assert "research use only" in text.lower()
    assert "not validated" in text

    metrics["model"]["weights_sha256"] = "other"
    out.write_text(json.dumps(metrics))
    with pytest.raises(InputError, match="measures other weights"):
        card.render(run / "model")


@pytest.mark.slow
def test_a_run_killed_amid_a_checkpoint_resumes(
    run: Path, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    """The second one's, so that there is one before; then between its two renamings."""
    out = tmp_path / "killed"
    asked = arguments(config, corpus_folder, out)
    beside = out / ".checkpoint.new"
    begun = small_runs.begin(asked)
    small_runs.kill_when(
        begun, lambda: (out / "checkpoint").exists() and (beside / "model.safetensors").exists()
    )
    assert len(small_runs.lines(out)) == 2  # one too many, which is cut off
    shutil.copytree(out / "checkpoint", out / ".checkpoint.old")
    (out / ".checkpoint.old" / "optimizer.bin").unlink()  # its removal was cut short
    train.train(config, corpus_folder, out)
    assert_equal(out, run)
    (out / "checkpoint").rename(out / ".checkpoint.old")
    train.train(config, corpus_folder, out)
    assert_equal(out, run)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes(
    run: Path, config: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    asked = [*arguments(config, corpus_folder, out), "--resume"]
    started = time.monotonic()
    assert small_runs.wait_for_exit(small_runs.begin([*asked[:5], str(tmp_path / "timed")])) == 0
    whole = time.monotonic() - started
    moments = random.Random(time.time_ns())
    for _ in range(8):
        begun, kill_at = small_runs.begin(asked), time.monotonic() + moments.uniform(0.1, whole)
        while begun.is_alive() and time.monotonic() < kill_at:
            time.sleep(0.01)
        begun.kill()
        begun.join()
    assert small_runs.wait_for_exit(small_runs.begin(asked)) == 0
    assert_equal(out, run)


@pytest.mark.slow
def test_a_run_repeats_from_its_folder_alone(
    run: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["start"] == "none"
    assert record["seed"] == 0
    assert re.fullmatch("([0-9a-f]{40}(-dirty)?)?", record["git_commit"])
    train.train(run / "recipe.yaml", corpus_folder, tmp_path / "again")
    assert_equal(tmp_path / "again", run)


def refused(asked: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line a command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        command.run(train.main, asked)
    assert end.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    return said


def test_two_runs_never_share_a_folder(
    run: Path, config: Path, corpus_folder: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "shared"
    asked = arguments(config, corpus_folder, out)
    first = small_runs.begin(asked)
    while not (out / "run.json").exists():
        assert first.exitcode is None
        time.sleep(0.01)
    assert "is not empty: choose another folder" in refused(asked, capsys)
    assert "is another run's at this moment" in refused([*asked, "--resume"], capsys)
    assert first.is_alive()
    assert small_runs.wait_for_exit(first) == 0
    assert_equal(out, run)


def test_runs_are_never_mixed_up(
    run: Path, config: Path, corpus_folder: Path, tmp_path: Path, capsys
) -> None:
    asked = [*arguments(config, corpus_folder, run), "--resume"]
    other = small_runs.write(tmp_path / "other.yaml", seed=5)
    elsewhere = tmp_path / "corpus"
    shutil.copytree(corpus_folder, elsewhere)
    for name in ("corpus.json", "grouped.json"):
        text = (elsewhere / name).read_text()
        (elsewhere / name).write_text(re.sub('("fingerprint": ")....', r"\1beef", text))
    begun = "was begun with another"
    assert "is not empty" in refused(asked[:-1], capsys)
    assert f"{begun} recipe" in refused([*arguments(other, corpus_folder, run), "--resume"], capsys)
    asked_elsewhere = [*arguments(config, elsewhere, run), "--resume"]
    assert f"{begun} corpus_fingerprint" in refused(asked_elsewhere, capsys)
    assert "give both or neither" in refused([*asked, "--teacher", str(run)], capsys)
    learnt_from = tmp_path / "learnt-from"
    shutil.copytree(run, learnt_from)
    record = json.loads((run / "run.json").read_text()) | {"inputs": {"another/run": "beef"}}
    (learnt_from / "run.json").write_text(json.dumps(record))
    asked_there = [*arguments(config, corpus_folder, learnt_from), "--resume"]
    assert f"{begun} inputs" in refused(asked_there, capsys)
    assert f"{begun} held_out" in refused([*asked, "--fold", "0"], capsys)
    assert "choose one of --fold" in refused(
        [*asked, "--fold", "0", "--leave-out", "idc/1"], capsys
    )


# What is held out, and what is learnt from.


def held(corpus_folder: Path, *what: object, **changes: object) -> tuple[pd.DataFrame, ...]:
    plan = recipe.Recipe.model_validate(RECIPE | changes)
    named = dict(zip(("fold", "case", "nothing"), what, strict=False))
    opened = open_corpus(corpus_folder, plan.split)
    data = select_data(opened, plan, HeldOut.model_validate(named))
    out = data.held_out.frame if data.held_out else data.training.frame[:0]
    return data.training.frame, out


def test_nothing_of_test_is_ever_learnt_or_held_out(corpus_folder: Path) -> None:
    manifest = json.loads((corpus_folder / "grouped.json").read_text())["units"]
    one = next(case for case, (part, _) in manifest.items() if part == "train")
    asked = [(), *((fold,) for fold in range(5)), (None, one), (None, None, True)]
    for what in asked:
        learnt, out = held(corpus_folder, *what)
        cases = [set(frame["case_id"]) for frame in (learnt, out)]
        assert not cases[0] & cases[1]
        assert "test" not in {manifest[case][0] for case in cases[0] | cases[1]}
        if what == (None, one):
            assert cases[1] == {one}
        if len(what) == 1:
            assert {manifest[case][1] for case in cases[1]} == {what[0]}
    with pytest.raises(
        InputError, match="without idc/0: nothing is learnt from, or nothing held out"
    ):
        held(corpus_folder, None, "idc/0")


def test_shares_of_the_cases_are_nested_and_of_every_source(corpus_folder: Path) -> None:
    shares = {share: held(corpus_folder, learnt_share=share)[0] for share in (1.0, 0.5, 0.25)}
    cases = {share: set(frame["case_id"]) for share, frame in shares.items()}
    assert cases[0.25] < cases[0.5] < cases[1.0]
    for share in (0.5, 0.25):
        for source, whole in shares[1.0].groupby("source"):
            drawn = shares[share][shares[share]["source"] == source]["case_id"].nunique()
            assert drawn == int(whole["case_id"].nunique() * share)
    assert held(corpus_folder, learnt_share=0.25)[1].equals(held(corpus_folder)[1])


def test_rows_of_other_sources_are_held_out_and_not_learnt_from(corpus_folder: Path) -> None:
    for what in ((), (2,), (None, None, True)):
        (every, out), (idc, out_again) = (
            held(corpus_folder, *what, sources=sources) for sources in ([], ["idc"])
        )
        assert set(every["source"]) == {"idc", "breakhis"}
        assert idc.equals(every[every["source"] == "idc"].reset_index(drop=True))
        assert out_again.equals(out)
        half, whole = (
            held(corpus_folder, *what, learnt_share=0.5, sources=sources)[0]
            for sources in (["idc"], [])
        )
        assert list(half["name"]) == list(whole["name"][whole["source"] == "idc"])


def test_a_source_that_the_corpus_lacks_is_refused(corpus_folder: Path) -> None:
    with pytest.raises(InputError, match="the corpus has no source 'camelyon', which the recipe"):
        held(corpus_folder, sources=["idc", "camelyon"])


def test_a_part_of_one_label_is_refused(corpus_folder: Path, tmp_path: Path) -> None:
    spoilt = shutil.copytree(corpus_folder, tmp_path / "corpus")
    rows, _ = corpus.load(spoilt)
    table = splits.read_table(rows)
    manifest = json.loads((spoilt / "random.json").read_text())
    for image, label, source in zip(table["sha256"], table["label"], table["source"], strict=True):
        if label == "malignant" and source == "idc":
            manifest["units"][image] = ["train", -1]
    (spoilt / "random.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="what is held out holds one label only"):
        held(spoilt, split="random")


def test_a_final_run_learns_from_all_but_test(
    run: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    """Its decision rule is that of other runs' predictions."""
    short = [{"size": 32, "epochs": 1, "learning_rate": 0.002}]
    config = small_runs.write(tmp_path / "r.yaml", phases=short)
    out = tmp_path / "final"
    with pytest.raises(SystemExit) as end:
        command.run(train.main, arguments(config, corpus_folder, out, "--decision-from", str(run)))
    assert end.value.code == 0
    models = [BCDClassifier.from_pretrained(r / "model").config for r in (out, run)]
    assert models[0].decision == models[1].decision
    taken = hashlib.sha256((run / "predictions.parquet").read_bytes()).hexdigest()
    assert list(models[0].provenance.inputs.values()) == [taken]
    assert models[0].provenance.split == "grouped"
    assert models[0].provenance.held_out.nothing
    assert not (out / "predictions.parquet").exists()
    assert "validation_auroc" not in small_runs.lines(out)[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"backbone": "vgg"}, "no backbone 'vgg'"),
        ({"batch_size": 0}, "batch_size"),
        ({"augment": {"mixup": -1}}, r"augment\.mixup"),
        ({"phases": []}, "phases"),
        ({"degrade": {"fog": 1}}, r"degrade\.fog: Extra inputs"),
        ({"average": 0.3}, "ema and average both average"),
    ],
)
def test_recipes_are_read_strictly(tmp_path: Path, change: dict, reason: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | change))
    with pytest.raises(InputError, match=reason):
        recipe.read(path)


def test_a_recipe_of_an_earlier_release_means_what_it_did() -> None:
    """It says nothing of what came later, which is all off by default."""
    plan = recipe.Recipe.model_validate(RECIPE)
    since = {"degrade", "average", "epoch_steps", "case_weight"}
    earlier = {key: value for key, value in plan.as_trained().items() if key not in since}
    assert recipe.parse(earlier, "earlier").decides() == plan.decides()
    assert not plan.degrade.is_on


def test_every_recipe_of_the_project_is_valid() -> None:
    configs = sorted(recipe.Path(recipe.__file__).parent.glob("*.yaml"))
    assert {recipe.read(path).backbone for path in configs} == set(recipe.BACKBONES)


def test_start_weights_must_fit(tmp_path: Path, config: Path, corpus_folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"elsewhere": torch.zeros(1)}, tmp_path / "start.safetensors")
    with pytest.raises(InputError, match="do not fit the network: elsewhere"):
        train.train(config, corpus_folder, tmp_path / "run", tmp_path / "start.safetensors")
    (tmp_path / "text").write_text("text")
    with pytest.raises(InputError, match="not a safetensors file"):
        train.train(config, corpus_folder, tmp_path / "run", tmp_path / "text")
