"""What finished runs say of the rows that a run learns from, which are its teachers then.

A teacher is an ordinary run that held out what the student holds out, and whose answers were
recorded (``training.evaluate.answers``): so whatever judges the student is new to both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bcd_models.config import HeldOut
from bcd_models.decision import calibrate
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from training.corpus.selection import Corpus, check_corpus
from training.evaluate import answers
from training.recipes.schema import Recipe
from training.run_folder import MODEL


def average_teachers(
    opened: Corpus, learnt: pd.DataFrame, plan: Recipe, held: HeldOut, teachers: Sequence[Path]
) -> NDArray[np.float64] | None:
    """Return the mean P(malignant) that teachers give each row learnt from; None without teachers.

    Args:
        opened: The corpus.
        learnt: The rows, of which ``sha256`` is read.
        plan: The student's recipe.
        held: What the student holds out.
        teachers: Their runs' folders.

    Raises:
        InputError: Teachers and the recipe's share of them contradict each other, a teacher is of
            another corpus, has learnt from what the student holds out, or has no answer for a row.
    """
    if bool(teachers) != bool(plan.teachers):
        raise InputError(
            f"the recipe takes a share of {plan.teachers:g} from teachers and {len(teachers)} are "
            "named with --teacher: give both or neither"
        )
    if not teachers:
        return None
    said = [_read_teacher(run, opened, held) for run in teachers]
    mean = pd.Series(np.mean(said, axis=0), index=opened.table["sha256"])
    of_rows = learnt["sha256"].map(mean.groupby(level=0).mean())
    if of_rows.isna().any():
        raise InputError("the teachers did not learn from all that is learnt from: name other runs")
    return np.asarray(of_rows, np.float64)


def _read_teacher(run: Path, opened: Corpus, held: HeldOut) -> NDArray[np.float64]:
    config = model_folder.read_config(run / MODEL)
    check_corpus(config.provenance, opened)
    if config.provenance.held_out != held:
        raise InputError(
            f"{run} held out {config.provenance.held_out.words or 'validation'}: a teacher holds "
            "out what its student does"
        )
    margins = answers.read(run)["other"].to_numpy(np.float64)
    return calibrate(margins, config.decision)
