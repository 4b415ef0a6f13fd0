"""Which code made a run: its commit, wherever and however the command was started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from training.run_folder import read_git_commit, short_commit


def git(checkout: Path, *asked: str) -> str:
    named = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = ["git", "-C", str(checkout), *named, *asked]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the two packages and something else."""
    checkout = tmp_path / "checkout"
    for name in ("bcd_models", "training", "cards"):
        (checkout / name).mkdir(parents=True)
        (checkout / name / "file").write_text("one")
    git(tmp_path, "init", "--quiet", str(checkout))
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "first")
    return checkout


def test_the_commit_is_the_checkouts_and_not_the_current_folders(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_git_commit(checkout) == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["training/file", "bcd_models/new.py"])
def test_changed_code_is_dirty(checkout: Path, name: str) -> None:
    (checkout / name).write_text("two")
    commit = git(checkout, "rev-parse", "HEAD")
    assert read_git_commit(checkout) == f"{commit}-dirty"
    assert short_commit(read_git_commit(checkout)) == f"{commit[:12]}-dirty"


def test_what_a_study_writes_is_not(checkout: Path) -> None:
    (checkout / "cards" / "file").write_text("two")
    assert read_git_commit(checkout) == git(checkout, "rev-parse", "HEAD")


def test_without_git_or_a_repository_there_is_no_commit(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_git_commit(tmp_path) == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_git_commit(checkout) == ""
    assert short_commit("") == ""
