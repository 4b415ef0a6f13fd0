"""What all tests share: the bundled models, synthetic tissue, the real sample where it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from bcd_models import BCDClassifier
from tests.support import synthetic
from tests.support.postgres import program, running_postgres
from tests.support.slides import telling_model

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "cards"
MODELS = ("bcd-mobilenetv2", "bcd-efficientnet-b2")
# Tests run side by side, and so do the processes they start: with more threads than cores, OpenMP's
# wait for each other ten times longer than they compute.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def absent(reason: str) -> None:
    """Skip a test for what the machine lacks; in CI nothing may be lacking."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must not lack this: {reason}")
    pytest.skip(reason)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """For a test of minutes; trainings of other tests round otherwise with more than one."""
    torch.set_num_threads(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_sample() -> Path:
    """The folder of the real sample's two archives."""
    folder = Path(os.environ.get("BCD_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "idc-sample.zip").is_file():
        absent(f"the real sample is not at {folder}: set BCD_DATA")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium that Playwright can drive."""
    found = os.environ.get("BCD_CHROMIUM") or shutil.which("chromium")
    if not found:
        absent("Chromium is not installed: apt-get install chromium, or set BCD_CHROMIUM")
    return found


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server of the tests' own."""
    if not program("initdb"):
        absent("PostgreSQL is not installed: apt-get install postgresql")
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="session", params=MODELS)
def model(request: pytest.FixtureRequest) -> BCDClassifier:
    """Each bundled model in turn."""
    return BCDClassifier.from_pretrained(CARDS / request.param)


@pytest.fixture(scope="session")
def light_model() -> BCDClassifier:
    """The faster of the bundled models."""
    return BCDClassifier.from_pretrained(CARDS / "bcd-mobilenetv2")


@pytest.fixture(scope="session")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that tells drawn tumour."""
    folder = tmp_path_factory.mktemp("models") / "telling"
    telling_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def patches() -> list[Image.Image]:
    """Eight synthetic patches, both kinds in turn."""
    kinds = ("benign", "malignant")
    return [Image.fromarray(synthetic.patch(kinds[i % 2], seed=i)) for i in range(8)]


@pytest.fixture
def patch_file(tmp_path: Path, patches: list[Image.Image]) -> Path:
    """One synthetic patch as a PNG file."""
    path = tmp_path / "patch.png"
    patches[1].save(path)
    return path


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Miniature corpora in the official layouts, packed as downloaded."""
    folder = tmp_path_factory.mktemp("archives")
    return {
        "idc": synthetic.idc_zip(
            folder / "idc.zip", cases=24, patches_per_case=14, seed=3, twice=True, slivers=4
        ),
        "breakhis": synthetic.breakhis_tar(
            folder / "breakhis.tar.gz", patients_per_class=2, images_per_patient=2, size=(140, 92)
        ),
    }


@pytest.fixture(scope="session")
def corpus_folder(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus built from the miniature archives."""
    from training.corpus import build as corpus

    out = tmp_path_factory.mktemp("corpus") / "corpus"
    corpus.build({name: [path] for name, path in archives.items()}, out, processes=1)
    return out


@pytest.fixture(scope="session")
def older_corpus(
    archives: dict[str, Path], corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same as an earlier release built it: images of two shapes, without their scale."""
    from tests.support import older_corpus

    out = tmp_path_factory.mktemp("older") / "corpus"
    return older_corpus.write(corpus_folder, archives["breakhis"], out)
