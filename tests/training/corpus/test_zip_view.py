"""Part of a zip's directory, beside what zipfile says of the whole."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.corpus.sources.zip_view import open_some

COMMENTS = st.binary(max_size=60).filter(lambda data: b"PK" not in data)  # nor can zipfile
NAMES = st.text(
    st.characters(blacklist_characters="\0/\\", blacklist_categories=("Cs",)), min_size=1
)


def archive(path: Path, files: dict[str, bytes], comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in files.items():
            new.writestr(name, data)
        new.comment = comment
    return path


@given(st.dictionaries(NAMES, st.binary(max_size=400), max_size=12), COMMENTS)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_part_is_what_zipfile_reads(
    tmp_path: Path, files: dict[str, bytes], comment: bytes
) -> None:
    path = archive(tmp_path / "a.zip", files, comment)
    wanted = set(sorted(files)[::2])
    with open_some(path, wanted.__contains__) as chunk:
        assert {name: chunk.read(name) for name in chunk.namelist()} == {
            name: files[name] for name in wanted
        }


def test_an_archive_behind_other_bytes(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"x": b"one", "y": b"two"})
    path.write_bytes(b"#!/bin/sh\n" * 9 + path.read_bytes())
    with open_some(path, "y".__eq__) as chunk:
        assert [(name, chunk.read(name)) for name in chunk.namelist()] == [("y", b"two")]


def test_more_entries_than_16_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as new:
        for i in range(70_000):
            new.writestr(zipfile.ZipInfo(f"{i}"), b"%d" % i)
    with open_some(path, lambda name: name.endswith("9999")) as chunk:
        assert {name: chunk.read(name) for name in chunk.namelist()} == {
            str(i): b"%d" % i for i in range(9_999, 70_000, 10_000)
        }


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-30],
        lambda data: data.replace(b"PK\1\2", b"PK\1\3", 1),
        lambda data: data[:-10] + b"\xff" * 4 + data[-6:],
        lambda _: b"",
    ],
)
def test_a_damaged_directory_is_refused(tmp_path: Path, spoil) -> None:
    path = archive(tmp_path / "a.zip", {"x": b"one", "y": b"two"})
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(zipfile.BadZipFile):
        open_some(path, lambda _: True).close()
