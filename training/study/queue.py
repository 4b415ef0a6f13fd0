"""The arms of a plan and what is made of them, step by step, going on where it was left.

python -m training.study --plan training/study/study.yaml --corpus CORPUS --out STUDY [--workers N]

Each step is one of this package's commands; one that is done is passed over, one that was cut off
is resumed. So the same command begins and goes on, and a second time does nothing. After the
trainings come what is made of them: the gate, the comparison, operating points, ladders, slides,
the test part, and with ``--cards`` the model folders. With ``--next`` it takes the next
training that is missing and no other process has in hand, adds what came of it to ``--records``,
and ends.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout

from bcd_models.errors import InputError
from training.study import records, steps
from training.study.plan import make_file_name, read_plan
from training.study.release_plan import REPORT, Pages, plan_release
from training.study.trainings import Study, plan_trainings

PLAN = Path(__file__).with_name("study.yaml")


def do_next(study: Study, launch: Sequence[str] = ()) -> str | None:
    """Do the next training that is missing and nobody has in hand; returns its name, if any is.

    Args:
        study: What is trained, and where.
        launch: What starts a training, as in ``steps.do_steps``.

    Raises:
        BCDError: It failed; the same command goes on from it.
        InputError: All that can be done now is in other processes' hands.
    """
    for stage in plan_trainings(study):
        undone = [step for step in stage if not step.is_done]
        for step in undone:
            lock = study.out / "claims" / make_file_name(step.name)
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(lock, timeout=0):
                    steps.do_steps([step], list(launch), 1)
                    return step.name
            except Timeout:
                continue
        if undone:
            raise InputError(f"{undone[0].name} is another process' at this moment: wait for it")
    return None


def main(
    corpus: Annotated[Path, typer.Option(help="Folder written by training.corpus.")],
    out: Annotated[Path, typer.Option(help="The study's folder.")],
    plan: Annotated[Path, typer.Option(help="What is trained.")] = PLAN,
    starts: Annotated[Path | None, typer.Option(help="Folder of start weights.")] = None,
    launch: Annotated[
        str, typer.Option(help='Starts trainings: "accelerate launch ... -m". This process does.')
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Steps done at a time.")] = 1,
    cards: Annotated[Path | None, typer.Option(help="Publish the models into here.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Put their results in here.")] = None,
    slides_page: Annotated[Path | None, typer.Option(help="Put the slides' table here.")] = None,
    recorded: Annotated[
        Path | None,
        typer.Option("--records", help="Begin with the runs recorded here; --next adds to them."),
    ] = None,
    take_next: Annotated[
        bool, typer.Option("--next", help="Do the next missing training alone.")
    ] = False,
) -> None:
    """Train, tune and compare everything; run it again to go on."""
    if launch and workers > 1:
        raise InputError(f"--launch and --workers {workers} would share the machine: choose one")
    study = Study(read_plan(plan), plan.parent, corpus, out, starts)
    if recorded and recorded.exists():
        typer.echo(f"{len(records.restore(recorded, out, corpus))} runs from {recorded}")
    if take_next:
        done = do_next(study, shlex.split(launch))
        if recorded:
            records.gather(out, recorded)
        typer.echo(f"done: {done}" if done else "nothing is missing")
        return
    pages = Pages(cards, readme, slides_page)
    for stage in chain(plan_trainings(study), plan_release(study, pages)):
        steps.do_steps(stage, shlex.split(launch), workers)
    typer.echo(f"report: {out / REPORT / 'report.md'}")
