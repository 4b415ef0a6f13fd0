"""Steps side by side: how many, with how many threads, and what a failing one stops."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bcd_models.errors import BCDError
from training.study import steps
from training.study.steps import Step

PATIENCE = 120  # seconds


NEVER = Path("nowhere", "never")


def step(name: str, result: Path = NEVER, module: str = "evaluate.floors") -> Step:
    return Step(name, module, ["--of", name], result)


class Processes:
    """In place of ``subprocess.run``: what was begun, how, and what was finished."""

    def __init__(self, **behaviour: Any) -> None:
        self.behaviour = behaviour
        self.begun: list[list[str]] = []
        self.threads: list[str] = []
        self.finished: list[str] = []

    def __call__(self, asked: list[str], env: dict[str, str], check: bool) -> SimpleNamespace:
        assert not check
        self.begun.append(asked)
        self.threads.append(env["OMP_NUM_THREADS"])
        code = self.behaviour.get(asked[-1], lambda: 0)()
        self.finished.append(asked[-1])
        return SimpleNamespace(returncode=code)


def began(monkeypatch: pytest.MonkeyPatch, **behaviour: Any) -> Processes:
    processes = Processes(**behaviour)
    monkeypatch.setattr(steps.subprocess, "run", processes)
    return processes


def test_two_at_a_time_share_the_cores(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    meet = threading.Barrier(2, timeout=PATIENCE)  # broken unless two are there at once
    processes = began(monkeypatch, a=lambda: meet.wait() * 0, b=lambda: meet.wait() * 0)
    monkeypatch.setattr(steps.os, "cpu_count", lambda: 5)
    steps.do_steps([step("a"), step("b")], [], 2)
    commands = [[sys.executable, "-m", "training.evaluate.floors", "--of", name] for name in "ab"]
    assert sorted(processes.begun) == commands
    assert processes.threads == ["2", "2"]
    assert sorted(capsys.readouterr().out.splitlines()) == ["== a", "== b"]


def test_no_more_than_asked_for_and_a_thread_each_at_least(monkeypatch) -> None:
    seats = threading.Semaphore(2)
    held = []

    def enter() -> int:
        held.append(seats.acquire(blocking=False))
        threading.Event().wait(0.05)
        seats.release()
        return 0

    processes = began(monkeypatch, **dict.fromkeys("abcdef", enter))
    monkeypatch.setattr(steps.os, "cpu_count", lambda: 1)
    steps.do_steps([step(name) for name in "abcdef"], [], 2)
    assert held == [True] * 6
    assert processes.threads == ["1"] * 6


def test_what_is_done_is_passed_over_whoever_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    processes = began(monkeypatch)
    (tmp_path / "there").touch()
    known, new = step("known", tmp_path / "there"), step("new", tmp_path / "missing")
    steps.do_steps([known, new, step("always")], [], 2)
    assert sorted(processes.finished) == ["always", "new"]


def test_what_is_done_is_done_again_where_its_files_are_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read, written, folder = (tmp_path / name for name in ("read", "written", "folder"))
    folder.mkdir()
    read.write_text("one")
    processes = began(monkeypatch, a=lambda: written.write_text(read.read_text()) * 0)

    def count_again(*options: str) -> int:
        before = len(processes.finished)
        files = (read, written, folder, tmp_path / "missing")
        asked = [*options, "--of", "a"]
        steps.do_steps([Step("a", "compare", asked, tmp_path / "done" / "a", files=files)], [], 2)
        return len(processes.finished) - before

    assert [count_again(), count_again()] == [1, 0]
    read.write_text("two")
    assert [count_again(), count_again()] == [1, 0]
    written.unlink()
    assert [count_again(), count_again()] == [1, 0]
    (folder / "new").touch()
    assert [count_again(), count_again()] == [1, 0]
    assert count_again("--context") == 1


def test_what_a_step_reads_is_made_before_it_and_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    processes = began(monkeypatch, first=lambda: made.touch() or 0, bad=lambda: 2)
    needing = Step("second", "evaluate.floors", ["--of", "second"], NEVER, step("first", made))
    steps.do_steps([needing, step("other")], [], 2)
    steps.do_steps([needing], [], 2)
    mine = [name for name in processes.finished if name != "other"]
    assert mine == ["first", "second", "second"]
    without = Step(
        "third", "evaluate.floors", ["--of", "third"], NEVER, step("bad", tmp_path / "never")
    )
    with pytest.raises(BCDError, match="step 'bad' failed"):
        steps.do_steps([without], [], 2)
    assert "third" not in processes.finished


def test_a_failing_step_lets_those_under_way_finish_and_begins_no_other(monkeypatch) -> None:
    failed = threading.Event()

    def fail() -> int:
        failed.set()
        return 2

    def slow() -> int:
        assert failed.wait(PATIENCE)
        threading.Event().wait(0.2)  # long enough for a third to begin, if one did
        return 0

    processes = began(monkeypatch, slow=slow, bad=fail)
    stage = [step("slow"), step("bad"), step("third"), step("fourth")]
    with pytest.raises(BCDError, match="step 'bad' failed: mend what it says above, then go on"):
        steps.do_steps(stage, [], 2)
    assert sorted(processes.finished) == ["bad", "slow"]
    assert len(processes.begun) == 2


def test_alone_a_failing_step_is_the_last(tmp_path: Path, capsys) -> None:
    missing = ["--corpus", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    stage = [Step(name, "evaluate.floors", missing, NEVER) for name in ("first", "second")]
    with pytest.raises(BCDError, match="step 'first' failed"):
        steps.do_steps(stage, [], 1)
    said = capsys.readouterr()
    assert said.out.splitlines() == ["== first"]
    assert said.err.startswith("error: ")


@pytest.mark.slow
def test_a_failing_process_says_why(tmp_path: Path, capfd) -> None:
    missing = ["--corpus", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    with pytest.raises(BCDError, match="step 'apart' failed"):
        steps.do_steps([Step("apart", "evaluate.floors", missing, NEVER)], [], 2)
    said = capfd.readouterr()
    assert said.out.splitlines() == ["== apart"]
    assert said.err.startswith("error: ")
    assert "none" in said.err


def test_a_launcher_starts_trainings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []

    def run(asked: list[str], check: bool) -> SimpleNamespace:
        begun.append(asked)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(steps.subprocess, "run", run)
    with pytest.raises(BCDError, match="'other' failed"):
        steps.do_steps(
            [step("one", module="train"), step("other")], ["accelerate", "launch", "-m"], 1
        )
    assert begun == [["accelerate", "launch", "-m", "training.train", "--of", "one"]]
