"""Archives and folders as people have them: every sound patch counts, or one line says why not."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bcd_models.errors import InputError
from training.corpus import build as corpus
from training.corpus.sources import breakhis, idc
from training.corpus.sources.files import check, list_png_files, stamp

Files = list[tuple[str, bytes]]


def png(seed: int) -> bytes:
    pixels, file = np.random.default_rng(seed).integers(0, 255, (50, 50, 3), np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


FILES: Files = [
    (f"{case}/{label}/{case}_idx5_x1_y1_class{label}.png", png(10 * case + label))
    for case in range(10, 14)
    for label in (0, 1)
]
FIRST, LAST = FILES[0][0], FILES[-1][0]


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def write_folder(path: Path, files: Files) -> Path:
    for name, data in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def build(out: Path, *paths: Path) -> dict[str, Any]:
    return corpus.build({"idc": paths}, out, processes=1)


def cut(name: str, data: bytes) -> tuple[str, bytes]:
    return name, data[: len(data) // 2]


def misplace(name: str, data: bytes) -> tuple[str, bytes]:
    case, label, file = name.split("/")
    return f"{case}/{1 - int(label)}/{file}", data


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("spoil", [cut, misplace])
@pytest.mark.parametrize("several_paths", [False, True])
def test_of_two_copies_the_sound_one_counts(
    tmp_path: Path,
    order: int,
    spoil: Callable[[str, bytes], tuple[str, bytes]],
    several_paths: bool,
) -> None:
    spoilt = [spoil(*FILES[0]), *FILES[1:]]
    sound = FILES if several_paths else [(f"IDC_regular_ps50_idx5/{n}", d) for n, d in FILES]
    copies = [spoilt, sound][::order]
    if several_paths:
        paths = [write_zip(tmp_path / f"{n}.zip", files) for n, files in enumerate(copies)]
        again = {corpus.REPEATED: len(FILES) - 1}
    else:
        paths, again = [write_zip(tmp_path / "twins.zip", copies[0] + copies[1])], {}
    about = build(tmp_path / "corpus", *paths)
    assert about["rows"] == about["sources"]["idc"]["found"] == len(FILES)
    reasons = about["skipped"]
    assert sum(reasons.values()) == 1 + sum(again.values())
    assert again.items() <= reasons.items()


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    capitals = [(name.removesuffix(".png") + ".PNG", data) for name, data in FILES]
    check(write_folder(tmp_path / "capitals", capitals))
    found = list(idc.read(write_zip(tmp_path / "capitals.zip", capitals)))
    assert [(image.name, image.data) for image in found] == capitals
    name = "benign/SOB_B_A-14-22549AB-40-001.PNG"
    (image,) = breakhis.read(write_zip(tmp_path / "breakhis.zip", [(name, b"")]))
    assert image.label == "benign"


def mark_entries(path: Path, method: int, flag: int) -> None:
    """Let all headers name a method of compression, and say whether entries are encrypted."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        starts, at = [entry.header_offset for entry in archive.infolist()], archive.start_dir
    for start in starts:
        struct.pack_into("<HH", data, start + 6, flag, method)
    while data[at : at + 4] == b"PK\1\2":
        struct.pack_into("<HH", data, at + 8, flag, method)
        at += 46 + sum(struct.unpack_from("<3H", data, at + 28))
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("method", "flag", "said"),
    [
        (9, 0, "packed by Deflate64"),
        (93, 0, "packed by Zstandard"),
        (98, 0, "packed by method 98"),
        (8, 1, "is encrypted"),
    ],
)
def test_zips_that_cannot_be_unpacked_are_refused_by_name(
    tmp_path: Path, method: int, flag: int, said: str
) -> None:
    path = write_zip(tmp_path / "odd.zip", FILES)
    mark_entries(path, method, flag)
    with pytest.raises(InputError, match=f"odd.zip .*{said}.*unpack it") as refusal:
        build(tmp_path / "corpus", path)
    assert "corpus" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == [path]


def test_pipes_and_links_to_nowhere_are_left_out(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "tree", FILES)
    os.mkfifo(root / FIRST.replace("_x1", "_x2"))
    (root / LAST.replace("_x1", "_x2")).symlink_to("/nowhere.png")
    about = build(tmp_path / "corpus", root)
    assert about["rows"] == len(FILES)
    assert about["skipped"] == {"unreadable: image is empty (0 bytes)": 2}


def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "idc.zip")
    with pytest.raises(InputError, match="is a pipe"):
        build(tmp_path / "corpus", tmp_path / "idc.zip")


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "tree", FILES[:4])
    elsewhere = write_folder(tmp_path / "elsewhere", FILES[4:])
    for case in elsewhere.iterdir():
        (root / case.name).symlink_to(case)
    (root / "10" / "up").symlink_to(root)
    (elsewhere / "13" / "self").symlink_to(".")
    found = [name.rpartition("/")[2] for name, _ in list_png_files(root)]
    assert sorted(found) == sorted(name.rpartition("/")[2] for name, _ in FILES)
    before = stamp(root)
    (elsewhere / LAST).write_bytes(b"changed")
    assert stamp(root) != before


@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_what_systems_leave_behind_is_passed_over(
    tmp_path: Path, write: Callable[[Path, Files], Path]
) -> None:
    left = [
        f"__MACOSX/{FIRST}",
        f"{os.path.dirname(FIRST)}/.ipynb_checkpoints/{os.path.basename(FIRST)}",
        f"{os.path.dirname(FIRST)}/._{os.path.basename(FIRST)}",
    ]
    path = write(tmp_path / "left.zip", FILES + [(name, b"Mac OS X") for name in left])
    about = build(tmp_path / "corpus", path)
    assert about["rows"] == len(FILES)
    assert about["skipped"] == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
@pytest.mark.parametrize("locked", [FIRST, os.path.dirname(FIRST)])
def test_what_may_not_be_read_is_said(tmp_path: Path, locked: str) -> None:
    root = write_folder(tmp_path / "tree", FILES)
    (root / locked).chmod(0)
    try:
        with pytest.raises(InputError, match="make it readable"):
            build(tmp_path / "corpus", root)
    finally:
        (root / locked).chmod(0o700)
