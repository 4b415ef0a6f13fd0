"""What OpenSlide would open by its content, and must not: other files' pixels, endless queries."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bcd_models.errors import ImageError
from bcd_models.slides.slide_file import read_facts
from bcd_models.slides.slide_format import is_self_contained
from tests.support.scanners import write_mrxs
from tests.support.slides import GLASS, draw_layout, write_slide
from training.study.scanners import write_dicom

MPP = 4.0
ENDLESS = (
    "VIEW DataManagerSQLiteConfigXPO AS WITH RECURSIVE c(x) AS "
    "(SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x AS TableName FROM c WHERE x < 0"
)


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return draw_layout(np.full((6, 6), GLASS), MPP)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A JPEG outside of the slides' folder, as OpenSlide takes it for a VMS slide's pixels."""
    path = tmp_path / "elsewhere.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    Image.fromarray(pixels).save(path, restart_marker_rows=1)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "slides"
    made.mkdir()
    return made


def vms(image: str, kind: str = "Virtual Microscope Specimen") -> bytes:
    return (
        f"[{kind}]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\nImageFile={image}\n"
        f"MapFile={image}\nPhysicalWidth=512000\nPhysicalHeight=512000\n"
    ).encode()


@pytest.mark.parametrize(
    "kind", ["Virtual Microscope Specimen", "Uncompressed Virtual Microscope Specimen"]
)
@pytest.mark.parametrize("name", ["s.vms", "s.svs", "s.tif", "s"])
def test_a_list_that_names_a_file_elsewhere_is_refused(
    folder: Path, secret: Path, name: str, kind: str
) -> None:
    (folder / name).write_bytes(vms("../elsewhere.jpg", kind))
    with pytest.raises(ImageError, match="names a file outside its own folder"):
        read_facts(folder / name)


@pytest.mark.parametrize(
    "named", ["../elsewhere.jpg", "x\x0b../elsewhere.jpg", "/proc/self/fd/8", "..", "a\\b.jpg"]
)
def test_however_it_is_named(folder: Path, secret: Path, named: str) -> None:
    (folder / "s.vms").write_bytes(
        b"# one\n\n" + vms(named).replace(b"ImageFile=", b" ImageFile = ")
    )
    with pytest.raises(ImageError, match="names a file outside its own folder"):
        read_facts(folder / "s.vms")


def test_a_link_leads_nowhere_either(folder: Path, secret: Path) -> None:
    (folder / "own.jpg").symlink_to(secret)
    (folder / "s.vms").write_bytes(vms("own.jpg"))
    with pytest.raises(ImageError, match="names a file outside its own folder"):
        read_facts(folder / "s.vms")


def test_a_list_of_its_own_folder_s_files_is_openslide_s(folder: Path, secret: Path) -> None:
    secret.rename(folder / "own.jpg")
    (folder / "s.vms").write_bytes(vms("own.jpg"))
    facts = read_facts(folder / "s.vms", mpp=1.0)
    assert (facts.vendor, facts.width, facts.height) == ("hamamatsu", 512, 512)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"SQLite format 3\0"])
@pytest.mark.parametrize("key", ["FILE_0", "INDEXFILE"])
def test_mirax_may_not_leave_its_folder(
    folder: Path, drawn: np.ndarray, key: str, content: bytes
) -> None:
    slide = write_mrxs(folder / "s.mrxs", drawn, MPP, (1, 2))
    assert read_facts(slide).vendor == "mirax"
    slide.write_bytes(content)
    index = folder / "s" / "Slidedat.ini"
    lines = index.read_text().splitlines()
    index.write_text(
        "\n".join(f"{key} = ../Data0000.dat" if line.startswith(key) else line for line in lines)
    )
    with pytest.raises(ImageError, match=r"Slidedat\.ini names a file outside its own folder"):
        read_facts(slide)


@pytest.mark.parametrize("lying", [False, True])
def test_a_database_with_a_view_is_never_asked(folder: Path, lying: bool) -> None:
    path = folder / "s.svslide"
    with closing(sqlite3.connect(path)) as made:
        made.execute(f"CREATE {ENDLESS}")
        if lying:  # of its own kind, which SQLite doesn't look at
            made.execute("PRAGMA writable_schema=ON")
            made.execute("UPDATE sqlite_master SET type = 'table'")
        made.commit()
    with pytest.raises(ImageError, match="more in it than a slide's tables"):
        read_facts(path)


def test_a_database_of_tables_is_openslide_s(folder: Path) -> None:
    path = folder / "s.svslide"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE notes (x)")
        made.execute("CREATE UNIQUE INDEX of_notes ON notes (x)")
        made.commit()
    with pytest.raises(ImageError, match="no slide that OpenSlide reads"):
        read_facts(path)


def test_what_holds_its_pixels_itself(folder: Path, drawn: np.ndarray) -> None:
    tiff = write_slide(folder / "s.tif", drawn, MPP).read_bytes()
    dicom = write_dicom(folder / "dicom", drawn, MPP, (1,)).read_bytes()
    assert is_self_contained(tiff)
    assert is_self_contained(dicom)
    assert not is_self_contained(vms("a.jpg").ljust(128, b"#") + dicom[128:])
    assert not is_self_contained(b"SQLite format 3\0".ljust(128, b"\0") + dicom[128:])
    assert not is_self_contained(b"")


def test_a_decoder_s_sentence_names_no_other_file(folder: Path) -> None:
    (folder / "s.vms").write_bytes(vms("none.jpg"))
    with pytest.raises(ImageError, match=r"is damaged or cut short \(Couldn't open\)"):
        read_facts(folder / "s.vms")


def disguised(image: str) -> bytes:
    """A list that begins as DICOM does; OpenSlide takes the first line for a comment."""
    return bytes(128) + b"DICM\n" + vms(image)


def test_a_list_in_dicom_s_clothes_is_refused(folder: Path, secret: Path) -> None:
    data = disguised("../elsewhere.jpg")
    assert not is_self_contained(data)
    assert not is_self_contained(b"II*\0\n" + vms("a.jpg"))
    (folder / "s.dcm").write_bytes(data)
    with pytest.raises(ImageError, match="names a file outside its own folder"):
        read_facts(folder / "s.dcm")


@pytest.mark.parametrize("name", ["own ", "\u00a0own", "own\x1f"])
def test_blanks_round_a_name_hide_no_link(folder: Path, secret: Path, name: str) -> None:
    (folder / name).symlink_to(secret)
    (folder / "s.vms").write_bytes(vms(name))
    with pytest.raises(ImageError, match="names a file outside its own folder"):
        read_facts(folder / "s.vms")


def test_a_file_called_by_mirax_s_suffix_alone_is_checked_too(folder: Path) -> None:
    (folder / ".mrxs").write_bytes(b"II*\0")
    (folder / "Slidedat.ini").write_text("[DATAFILE]\nFILE_0 = ../Data0000.dat\n")
    with pytest.raises(ImageError, match="names a file outside its own folder"):
        read_facts(folder / ".mrxs")


def test_what_sqlite_would_take_from_beside_is_refused(folder: Path) -> None:
    path = folder / "s.svslide"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE notes (x)")
        made.commit()
    (folder / "s.svslide-wal").write_bytes(b"more")
    with pytest.raises(ImageError, match="being written"):
        read_facts(path)


def test_pipes_are_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.svs")
    with pytest.raises(ImageError, match="no plain file"):
        read_facts(folder / "pipe.svs")
    os.mkfifo(folder / "own.jpg")
    (folder / "s.vms").write_bytes(vms("own.jpg"))
    with pytest.raises(ImageError, match="no plain file"):
        read_facts(folder / "s.vms")
