"""Models, corpora and the Space go to a loopback Hub and come back whole."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bcd_models import BCDClassifier, BCDEnsemble
from bcd_models.errors import InputError
from bcd_models.hub.repository import SCHEMA_TAG
from bcd_models.models.ensemble import EnsembleConfig
from bcd_models.prediction import NOTICE
from tests.conftest import CARDS, ROOT
from tests.support.hub import Hub, run_client, running_hub
from tests.support.hub_client import running_client
from tests.support.running_app import save_small_model
from training import command
from training.card import write as card
from training.corpus import build as corpus
from training.corpus import splits
from training.publish import dataset, space
from training.publish import send as publish

RUN = """
import contextlib, io, os
from training import command
from training.publish import send
os.environ["HF_TOKEN"] = {token!r}
out, err, code = io.StringIO(), io.StringIO(), 0
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
        command.run(send.main, {arguments!r})
    except SystemExit as stop:
        code = stop.code
value = [code, out.getvalue(), err.getvalue()]
"""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Publish = Callable[..., Done]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture(autouse=True)
def healthy(hub: Hub) -> Iterator[None]:
    yield
    hub.heal()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(hub: Hub, home: Path) -> Iterator[Publish]:
    """Run the command with some arguments, and by default with a token that may write."""
    with running_client(hub.environment(home), home / "log") as client:

        def ask(*arguments: object, token: str = hub.token) -> Done:
            code = RUN.format(token=token, arguments=[str(a) for a in arguments])
            return Done(*client.run(code))

        yield ask


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A bundled model, with the card that its figures make."""
    folder = Path(shutil.copytree(CARDS / "bcd-mobilenetv2", tmp_path / "model"))
    (folder / "README.md").write_text(card.render(folder), "utf-8")
    return folder


@pytest.fixture
def app_root(tmp_path: Path) -> Path:
    """A checkout's app and library, free to be changed."""
    for name in ("space", "bcd_models"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def front_matter(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_a_dry_run_shows_what_would_change_and_sends_nothing(
    run: Publish, hub: Hub, model_folder: Path
) -> None:
    done = run("--model", model_folder, "--repo-id", "dry/model", "--dry-run", token="")
    assert done.code == 0, done.err
    count = len(contents(model_folder))
    assert done.out.startswith(f"dry/model (model): {count} to add, 0 to change, 0 to remove\n")
    assert "+ model.safetensors  4." in done.out
    assert "nothing was sent" in done.out
    assert ("model", "dry/model") not in hub.store.repos
    assert not hub.find_requests("(POST|PUT|DELETE) .*(dry/model|create)")


def test_a_model_comes_back_whole(
    run: Publish, hub: Hub, model_folder: Path, tmp_path: Path
) -> None:
    done = run("--model", model_folder, "--repo-id", "org/model", "--verify")
    assert done.code == 0, done.err
    files = hub.files("org/model")
    assert files == contents(model_folder)
    for name in ("model.onnx", "model.safetensors"):
        (tmp_path / name).write_bytes(files[name])
    exported = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    model = BCDClassifier.from_pretrained(model_folder)
    side = model.config.preprocess.input_size
    pixels = torch.rand(3, 3, side, side)
    (logits,) = exported.run(["logits"], {"pixels": pixels.numpy()})
    with torch.inference_mode():
        assert np.abs(logits - model(pixels).numpy()).max() < 1e-4
    assert "files downloaded are equal, and so are the logits" in done.out
    (commit,) = hub.commits("org/model")
    assert commit.title == "bcd-mobilenetv2 {}: recipe {} of mobilenetv2, corpus {}".format(
        *model_facts(model_folder)
    )
    assert commit.oid in done.out
    assert f"tagged: {SCHEMA_TAG}" in done.out


def test_the_tag_of_a_schema_follows_what_is_published(
    run: Publish, hub: Hub, model_folder: Path
) -> None:
    asked = ("--model", model_folder, "--repo-id", "org/tagged")
    for text in (None, "another file"):
        if text:
            (model_folder / "NOTES.md").write_text(text)
        assert run(*asked).code == 0
        tags = hub.repo("org/tagged").tags
        assert tags[SCHEMA_TAG].oid == hub.commits("org/tagged")[-1].oid
    before = len(hub.find_requests("(POST|DELETE) .*org/tagged/tag/"))
    assert run(*asked).code == 0  # nothing to send, nothing to tag
    assert len(hub.find_requests("(POST|DELETE) .*org/tagged/tag/")) == before == 3


def model_facts(folder: Path) -> tuple[str, str, str]:
    ours = json.loads((folder / "config.json").read_text())["bcd"]
    recipe = ours["provenance"]["recipe"]
    fingerprint = ours["provenance"]["corpus_fingerprint"]
    return ours["version"], recipe.get("arm", "plain"), fingerprint[:16]


def test_what_has_not_changed_is_not_sent_again(run: Publish, hub: Hub, model_folder: Path) -> None:
    model = ("--model", model_folder, "--repo-id", "org/again")
    (model_folder / "same.txt").write_text("same")
    (model_folder / "other.txt").write_text("old")
    run(*model)
    before = len(hub.requests)
    done = run(*model)
    assert "nothing to send" in done.out
    assert not [r for r in hub.requests[before:] if r.method != "GET"]
    assert len(hub.commits("org/again")) == 1
    (model_folder / "same.txt").rename(model_folder / "moved.txt")
    (model_folder / "other.txt").write_text("new")
    done = run(*model)
    assert done.out.splitlines()[:4] == [
        "org/again (model): 1 to add, 1 to change, 1 to remove",
        "+ moved.txt  4 B",
        "~ other.txt  3 B",
        "- same.txt  4 B",
    ]
    assert hub.files("org/again") == contents(model_folder)
    assert len(hub.commits("org/again")) == 2
    assert ".gitattributes" in hub.repo("org/again").branches["main"][-1].files


def test_a_model_without_its_card_is_not_published(run: Publish, model_folder: Path) -> None:
    (model_folder / "README.md").write_text("# The best model\n")
    done = run("--model", model_folder, "--repo-id", "org/uncarded")
    assert done.code == 2
    assert "run python -m training.card" in done.err


def test_figures_in_the_hubs_own_form_go_along_and_nothing_else_hidden(
    run: Publish, hub: Hub, model_folder: Path
) -> None:
    card.main([model_folder], dataset="org/corpus")
    (model_folder / ".notes").write_text("mine")
    done = run("--model", model_folder, "--repo-id", "org/figures", "--verify")
    assert done.code == 0, done.err
    files = hub.files("org/figures")
    assert ".eval_results/bcd-models.yaml" in files
    assert ".notes" not in files
    assert front_matter(files["README.md"].decode())["datasets"] == ["org/corpus"]


def test_an_ensemble_comes_back_whole(run: Publish, hub: Hub, tmp_path: Path) -> None:
    members = [
        BCDClassifier.from_pretrained(save_small_model(tmp_path, name)) for name in ("one", "two")
    ]
    config = EnsembleConfig(name="both", version="1.0", members=("one", "two"))
    BCDEnsemble(config, members).save_pretrained(tmp_path / "both")
    bare = run("--model", tmp_path / "both", "--repo-id", "org/both")
    assert "run python -m training.card" in bare.err
    card.write(tmp_path / "both")
    done = run("--model", tmp_path / "both", "--repo-id", "org/both", "--verify")
    assert done.code == 0, done.err
    files = hub.files("org/both")
    assert files == contents(tmp_path / "both")
    assert {"one/model.onnx", "two/model.onnx"} <= files.keys()
    assert hub.commits("org/both")[0].title.startswith("both 1.0: ensemble of recipe plain of")
    text = hub.files("org/both")["README.md"].decode()
    assert front_matter(text)["library_name"] == "bcd-models"
    assert "not measured as a whole" in text
    assert all(f"`{member.weights_sha256}`" in text for member in members)
    assert text.count(NOTICE) == 2


LOAD = """
import hashlib, json
from datasets import Image, load_dataset
parts = load_dataset("org/corpus").cast_column("image", Image(decode=False))
names = parts["train"].features["label"].names
print(json.dumps({
    row["name"]: [part, names[row["label"]], row["sha256"], row["grouped_part"],
                  row["grouped_fold"], row["random_part"], row["neighbours_fold"],
                  hashlib.sha256(row["image"]["bytes"]).hexdigest()]
    for part, rows in parts.items() for row in rows
}))
"""


def test_a_corpus_comes_back_whole_by_load_dataset(
    run: Publish, hub: Hub, corpus_folder: Path, tmp_path: Path
) -> None:
    done = run("--corpus", corpus_folder, "--repo-id", "org/corpus", "--verify")
    assert done.code == 0, done.err
    again = run("--corpus", corpus_folder, "--repo-id", "org/corpus")
    assert "nothing to send" in again.out, "the same corpus makes the same bytes"
    rows, about = corpus.load(corpus_folder)
    (commit,) = hub.commits("org/corpus", "dataset")
    assert commit.title == f"Corpus {about['fingerprint'][:16]}: {about['rows']} rows (images)"

    loaded = run_client(LOAD, hub.environment(tmp_path, hub.token))
    assert loaded.returncode == 0, loaded.stderr
    frame = splits.read_table(rows)
    placed = {
        kind: splits.read(corpus_folder, rows, kind, about["fingerprint"])
        for kind in ("grouped", "random", "neighbours")
    }
    raw = rows.data.column("image").to_pylist()
    expected = {
        row.name: [
            placed["grouped"].part[row.Index],
            row.label,
            row.sha256,
            placed["grouped"].part[row.Index],
            placed["grouped"].fold[row.Index],
            placed["random"].part[row.Index],
            placed["neighbours"].fold[row.Index],
            hashlib.sha256(raw[row.Index]["bytes"]).hexdigest(),
        ]
        for row in frame.itertuples()
    }
    assert json.loads(loaded.stdout) == expected


def test_the_data_sets_card_says_what_the_corpus_says(
    run: Publish, hub: Hub, corpus_folder: Path
) -> None:
    run("--corpus", corpus_folder, "--repo-id", "org/carded")
    text = hub.files("org/carded", "dataset")["README.md"].decode()
    about = json.loads((corpus_folder / "corpus.json").read_text())
    assert front_matter(text)["license"] == ["cc-by-4.0", "cc0-1.0"]
    assert about["fingerprint"] in text
    assert 'load_dataset("org/carded")' in text
    for source in about["sources"].values():
        for said in (source["licence"], source["citation"], source["url"], source["labels_mean"]):
            assert said in text
        for label, count in source["labels"].items():
            assert f"| {label} | {count:,} | {source['full_set']['labels'][label]:,} |" in text
    for reason, count in about["skipped"].items():
        assert f"| {reason} | {count} |" in text
    for heading in ("Fields", "Splits", "Left out", "Known problems"):
        assert f"\n## {heading}\n\n" in text
    assert "{{" not in text


NO_PIXELS = """
from datasets import load_dataset
parts = load_dataset("org/names")
print(sum(map(len, parts.values())), *parts["train"].features)
"""


def test_manifests_alone_hold_no_pixels(
    run: Publish, hub: Hub, corpus_folder: Path, tmp_path: Path
) -> None:
    done = run("--corpus", corpus_folder, "--repo-id", "org/names", "--manifests-only")
    assert done.code == 0, done.err
    files = hub.files("org/names", "dataset")
    assert {name.rpartition(".")[2] for name in files} == {"md", "json", "parquet"}
    assert not [name for name, data in files.items() if b"\x89PNG" in data]
    assert "**This repository holds no images**" in files["README.md"].decode()
    for kind in ("grouped", "random", "neighbours"):
        assert files[f"splits/{kind}.json"] == (corpus_folder / f"{kind}.json").read_bytes()
    loaded = run_client(NO_PIXELS, hub.environment(tmp_path, hub.token))
    assert loaded.returncode == 0, loaded.stderr
    count, *columns = loaded.stdout.split()
    assert int(count) == json.loads(files["corpus.json"])["rows"]
    assert {"name", "sha256", "label", "case_id", "grouped_part"} < set(columns)
    assert "image" not in columns


def test_the_space_is_the_app_with_the_library_beside_it(run: Publish, hub: Hub) -> None:
    ids = ("--model-id", "org/model", "--model-id", "org/other")
    done = run("--space", "--repo-id", "org/app", *ids, "--verify")
    assert done.code == 0, done.err
    files = hub.files("org/app", "space")
    for name in ("app.py", "requirements.txt", "clinic/settings.py"):
        assert files[name] == (ROOT / "space" / name).read_bytes()
    module = "bcd_models/models/classifier.py"
    assert files[module] == (ROOT / module).read_bytes()
    assert "bcd_models/py.typed" in files
    assert not [name for name in files if "__pycache__" in name or "test" in name.split("/")[0]]
    before = front_matter((ROOT / "space" / "README.md").read_text("utf-8"))
    after = front_matter(files["README.md"].decode())
    assert after == before | {"models": ["org/model", "org/other"]}
    assert hub.repo("org/app", "space").sdk == "gradio"


def test_the_spaces_card_and_requirements_can_be_used_as_they_are() -> None:
    front = front_matter((ROOT / "space" / "README.md").read_text("utf-8"))
    pinned = (line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()[1:])
    pins = {canonicalize_name(name): version for name, version in pinned}
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == pins["gradio"]
    assert (ROOT / "space" / front["app_file"]).is_file()
    lines = (ROOT / "space" / "requirements.txt").read_text().splitlines()
    needed = [Requirement(line) for line in lines if not line.startswith("#")]
    assert len(needed) > 5
    for requirement in needed:
        assert requirement.url is None
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("stray", ["space/clinic.db", "space/uploads/1.tif", "bcd_models/w.pt"])
def test_what_is_no_part_of_the_app_is_refused(app_root: Path, tmp_path: Path, stray: str) -> None:
    (app_root / stray).parent.mkdir(exist_ok=True)
    (app_root / stray).write_bytes(b"a patient's")
    with pytest.raises(InputError, match="no part of an app"):
        space.stage(tmp_path / "copy", root=app_root)


def test_hidden_files_and_caches_stay_at_home(app_root: Path, tmp_path: Path) -> None:
    (app_root / "space" / ".env").write_text("SECRET=1")
    (app_root / "space" / "__pycache__").mkdir(exist_ok=True)
    (app_root / "space" / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"")
    copied = space.stage(tmp_path / "copy", root=app_root).list_files()
    assert "app.py" in copied
    assert not [name for name in contents(tmp_path / "copy") if "/." in f"/{name}" or "pyc" in name]


@pytest.mark.parametrize(
    "request_line", ["POST /api/repos/create", "POST /api/validate-yaml", "POST .*/commit/"]
)
@pytest.mark.parametrize("status", [429, 503])
def test_what_may_pass_is_tried_again(
    run: Publish, hub: Hub, request_line: str, status: int
) -> None:
    name = f"org/patient-{status}-{request_line.count('/')}{len(request_line)}"
    hub.fail(request_line, status, times=2, retry_after=1)
    before = len(hub.find_requests(request_line))
    done = run("--space", "--repo-id", name, "--verify")
    assert done.code == 0, done.err
    assert len(hub.find_requests(request_line)) - before == 3
    assert len(hub.commits(name, "space")) == 1


def test_a_commit_whose_answer_is_lost_is_not_made_twice(run: Publish, hub: Hub) -> None:
    hub.cut("POST .*/commit/", after=5)
    done = run("--space", "--repo-id", "org/lost", "--verify")
    assert done.code == 0, done.err
    assert len(hub.find_requests("POST .*org/lost/commit/")) == 1
    assert len(hub.commits("org/lost", "space")) == 1


def test_an_upload_that_is_cut_off_is_tried_again(
    run: Publish, hub: Hub, model_folder: Path
) -> None:
    hub.fail("PUT .*", 500, times=2)
    done = run("--model", model_folder, "--repo-id", "org/cut", "--verify")
    assert done.code == 0, done.err
    assert len(hub.commits("org/cut")) == 1


def test_a_hub_that_stays_down_is_given_up_in_one_line(run: Publish, hub: Hub) -> None:
    hub.fail("POST .*/commit/", 503, times=100)
    done = run("--space", "--repo-id", "org/down")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(
        "error: the Hub answers 503 for org/down: try again later"
    )
    assert "Traceback" not in done.err
    assert hub.commits("org/down", "space") == []


def test_a_full_account_is_told_as_the_hub_tells_it(run: Publish, hub: Hub) -> None:
    hub.full = True
    done = run("--space", "--repo-id", "org/full")
    assert done.code == 2
    assert "Storage limit reached" in done.err


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(run: Publish, hub: Hub) -> None:
    hub.add_repo("org/busy", {"README.md": b"---\nsdk: gradio\n---\nold"}, "space")
    hub.slow("POST .*/preupload/", 1.0)
    cards = "POST /api/validate-yaml"  # what comes right before the slow one
    before = len(hub.find_requests(cards))

    def change() -> None:
        while len(hub.find_requests(cards)) == before:
            time.sleep(0.02)
        hub.add_repo("org/busy", {"theirs.md": b"theirs"}, "space")

    somebody = threading.Thread(target=change)
    somebody.start()
    done = run("--space", "--repo-id", "org/busy")
    somebody.join()
    assert done.code == 2
    assert "org/busy was changed by somebody else meanwhile" in done.err
    assert hub.files("org/busy", "space")["theirs.md"] == b"theirs"


def test_what_comes_back_other_than_it_went_is_told(
    run: Publish, hub: Hub, model_folder: Path
) -> None:
    run("--model", model_folder, "--repo-id", "org/odd")
    hub.corrupt("GET .*/resolve/.*metrics.json")
    done = run("--model", model_folder, "--repo-id", "org/odd", "--verify")
    assert done.code == 2
    assert "metrics.json differs" in done.err


def test_a_new_repository_can_be_private(run: Publish, hub: Hub) -> None:
    private = ("--space", "--repo-id", "org/private", "--private")
    assert run(*private).code == 0
    assert hub.repo("org/private", "space").private
    assert "nothing to send" in run(*private).out
    run("--space", "--repo-id", "org/public")
    assert not hub.repo("org/public", "space").private


def test_what_was_to_be_private_never_goes_to_a_public_repository(run: Publish, hub: Hub) -> None:
    hub.add_repo("org/open", kind="space")
    done = run("--space", "--repo-id", "org/open", "--private")
    assert done.code == 2
    assert "org/open is public" in done.err
    assert hub.commits("org/open", "space") == []


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "no Hub token: set HF_TOKEN"),
        ("hf_wrongwrongwrong", "the Hub refuses the token"),
        ("hf_loopbackreader", "the Hub forbids this for org/mine"),
    ],
)
def test_a_token_that_will_not_do_is_told(run: Publish, hub: Hub, token: str, said: str) -> None:
    hub.add_repo("org/mine", kind="space")
    done = run("--space", "--repo-id", "org/mine", token=token)
    assert done.code == 2
    assert said in done.err
    assert not token or token not in done.out + done.err


def test_the_token_is_printed_and_written_nowhere(hub: Hub, home: Path, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path / "home", hub.token) | {"HF_DEBUG": "1"}
    done = run_client(
        [sys.executable, "-m", "training.publish", "--space", "--repo-id", "org/secret"],
        environment | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert hub.token not in done.stdout + done.stderr
    written = [*contents(tmp_path).values(), *contents(home).values()]
    assert not [data for data in written if hub.token.encode() in data]
    assert not [d for d in hub.files("org/secret", "space").values() if hub.token.encode() in d]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name one of --model FOLDER, --corpus CORPUS, --space"),
        (["--space", "--model", "x"], "name one of"),
        (["--space", "--manifests-only"], "--manifests-only goes with --corpus"),
        (["--model", "x", "--model-id", "a/b"], "--model-id goes with --space"),
        (["--corpus", "absent"], "absent is no corpus"),
        (["--model", "absent"], "model folder absent has no config.json"),
        (["--space", "--model-id", "no id"], "'no id' is no Hub id"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        command.run(publish.main, [*arguments, "--repo-id", "org/name"])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("repo_id", ["name", "a/b/c", "-/..", "org/with space"])
def test_a_repository_is_named_by_owner_and_name(repo_id: str) -> None:
    with pytest.raises(InputError, match="owner/name"):
        publish.Repository(repo_id, "model")


def test_sizes_read_as_people_write_them() -> None:
    sizes = [publish.describe_size(size) for size in (0, 999, 1234, 56_700_000, 1.6e9, 2e12)]
    assert sizes == ["0 B", "999 B", "1.23 kB", "56.7 MB", "1.6 GB", "2e+03 GB"]


def test_no_room_for_the_data_sets_files_is_told(corpus_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="set TMPDIR to a disk with room"):
        dataset.stage(corpus_folder, tmp_path / "absent", "org/name")


def test_a_large_corpus_goes_into_several_files(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "SHARD_BYTES", 300_000)
    files = dataset.stage(corpus_folder, tmp_path, "org/name").list_files()
    train = [path for name, path in files.items() if name.startswith("data/train-")]
    assert train[0].name == f"train-00000-of-{len(train):05}.parquet"
    assert len(train) > 2
    assert max(path.stat().st_size for path in train) < 600_000
    names = [name for path in train for name in pq.read_table(path)["name"].to_pylist()]
    rows, about = corpus.load(corpus_folder)
    grouped = splits.read(corpus_folder, rows, "grouped", about["fingerprint"])
    assert names == splits.read_table(rows)["name"][grouped.part == "train"].tolist()
