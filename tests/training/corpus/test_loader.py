"""Packed pixels are the corpus' own, whatever their shapes, and packed once or not at all."""

from __future__ import annotations

import resource
import shutil
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from bcd_models.errors import InputError
from training.corpus import build as corpus
from training.corpus import pixels as loader
from training.corpus.device import normalise, resize, to_uint8
from training.corpus.pixels import Pixels

CPU = torch.device("cpu")


@pytest.fixture
def folder(older_corpus: Path, tmp_path: Path) -> Path:
    """A corpus of two shapes without packed pixels."""
    return shutil.copytree(
        older_corpus, tmp_path / "corpus", ignore=shutil.ignore_patterns(".pixels-*")
    )


def decoded(rows, index: int) -> torch.Tensor:
    return to_uint8(np.array(rows[index]["image"].convert("RGB"))[None])[0]


def test_loader_serves_what_preprocessing_would(corpus_folder: Path, light_model) -> None:
    rows, _ = corpus.load(corpus_folder)
    indices = np.array([300, 2, 3, 120, 9])  # both sources, mixed
    config = light_model.config.preprocess
    pixels = Pixels(rows, indices, largest=config.input_size)
    batch = pixels.batch(torch.tensor([4, 1, 3]), config.input_size, CPU)
    for got, index in zip(batch, (9, 2, 120), strict=True):
        expected = normalise(resize(decoded(rows, index).unsqueeze(0), config.input_size), config)[
            0
        ]
        normal = (got - torch.tensor(config.mean).view(3, 1, 1) * 255) / (
            torch.tensor(config.std).view(3, 1, 1) * 255
        )
        assert torch.allclose(normal, expected, atol=1e-5)


def test_every_row_is_packed_as_decoded(folder: Path) -> None:
    """In a random order, so that batches mix shapes; each row of each batch in its place."""
    rows, _ = corpus.load(folder)
    pixels = Pixels(rows, np.arange(len(rows)), largest=1024)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    mixed = 0
    for positions in order.split(24):
        found = pixels.rows(positions)
        mixed += len(found) > 1
        assert sorted(np.concatenate([here for here, _ in found])) == list(range(len(positions)))
        for here, stored in found:
            for place, image in zip(here, stored, strict=True):
                assert torch.equal(image, decoded(rows, int(positions[place])))
    assert mixed > 1
    assert len(pixels) == len(rows)


def test_large_images_are_downsized_once(folder: Path) -> None:
    """Those with no side below the largest input; the others stay as they are."""
    rows, _ = corpus.load(folder)
    large = next(i for i in range(len(rows)) if rows[i]["source"] == 1)
    assert decoded(rows, large).shape == (3, 92, 140)
    pixels = Pixels(rows, np.array([large]), largest=60)
    ((_, stored),) = pixels.rows(torch.tensor([0]))
    assert stored.shape[-2:] == (60, 60)
    assert torch.equal(stored.float(), resize(decoded(rows, large).unsqueeze(0), 60))
    ((_, whole),) = Pixels(rows, np.array([large]), largest=93).rows(torch.tensor([0]))
    assert whole.shape[-2:] == (92, 140)
    small = next(i for i in range(len(rows)) if rows[i]["source"] == 0)
    ((_, kept),) = Pixels(rows, np.array([small]), largest=60).rows(torch.tensor([0]))
    assert torch.equal(kept[0], decoded(rows, small))


def test_pixels_are_packed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = corpus.load(folder)
    (folder / ".pixels-48.new").mkdir()  # of a packing that was killed
    (folder / ".pixels-48.new" / "50x50.u8").write_bytes(b"torn")
    first = Pixels(rows, np.array([0]), 48).batch(torch.tensor([0]), 32, CPU)
    monkeypatch.setattr(loader, "_pack", lambda *_: pytest.fail("packed again"))
    again = Pixels(rows, np.array([0]), 48).batch(torch.tensor([0]), 32, CPU)
    assert torch.equal(first, again)
    assert not (folder / ".pixels-48.new").exists()


def pack(folder: Path, begin, packings) -> None:
    rows, _ = corpus.load(folder)
    pack_one = loader._pack

    def counted(*args) -> None:
        with packings.get_lock():
            packings.value += 1
        pack_one(*args)

    loader._pack = counted
    begin.wait()
    assert len(Pixels(rows, np.arange(len(rows)), 64)) == len(rows)


def test_of_processes_that_ask_at_once_one_packs(folder: Path) -> None:
    context = get_context("forkserver")
    begin, packings = context.Barrier(2), context.Value("i", 0)
    both = [context.Process(target=pack, args=(folder, begin, packings)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert packings.value == 1


def test_a_full_disk_leaves_nothing_half_packed(folder: Path) -> None:
    rows, _ = corpus.load(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))  # no file may grow further
    try:
        with pytest.raises(InputError, match=r"can't be packed into .*File too large.*make room"):
            Pixels(rows, np.array([0]), 48)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in folder.glob(".pixels-48*") if path.is_dir()]
    assert len(Pixels(rows, np.array([0]), 48)) == 1
