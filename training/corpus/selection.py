"""Which rows of a corpus a run learns from, and which it holds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bcd_models.errors import InputError
from training.corpus import build as corpus
from training.corpus import predictions, splits
from training.corpus.rows import Rows, rows_of
from training.recipes import schema as recipe
from training.run_folder import PREDICTIONS


@dataclass(frozen=True)
class Held:
    """What a run holds out of its training rows; by default the validation part.

    Attributes:
        fold: One of the folds of what isn't test.
        case: One case, and nothing else that isn't test.
        nothing: Learn from everything that isn't test.
    """

    fold: int | None = None
    case: str | None = None
    nothing: bool = False

    def __str__(self) -> str:
        if self.fold is not None:
            return f", fold {self.fold}"
        if self.case:
            return f", without {self.case}"
        return ", train and validation" if self.nothing else ""


def held_of(split: str) -> tuple[str, Held]:
    """A provenance's split taken apart: which manifest, and what was held out."""
    kind, _, rest = split.partition(", ")
    if rest.startswith("fold "):
        return kind, Held(fold=int(rest.removeprefix("fold ")))
    if rest.startswith("without "):
        return kind, Held(case=rest.removeprefix("without "))
    return kind, Held(nothing=bool(rest))


@dataclass(frozen=True)
class Data:
    """What a run learns from and is scored on.

    Attributes:
        about: What ``corpus.json`` says.
        split: The manifest read back.
        training: Rows to learn from; their frame's column ``fold`` is the split's.
        held_out: Rows to score after each epoch, in corpus order; None where nothing is held out.
    """

    about: dict[str, Any]
    split: splits.Split
    training: Rows
    held_out: Rows | None


def data_of(corpus_folder: Path, plan: recipe.Recipe, held: Held = Held()) -> Data:
    """Load the rows of a run.

    Raises:
        InputError: The corpus, its manifest or what is held out can't be used, or a part holds one
            label only within the larger source.
    """
    rows, about = corpus.load(corpus_folder)
    split = splits.read(corpus_folder, rows, plan.split, about["fingerprint"])
    table = splits.table(rows).assign(fold=split.fold.to_numpy())
    fitted, out = _masks(split, table, held)
    if plan.learnt_share < 1:
        fitted &= table["case_id"].isin(drawn_cases(table[fitted], plan.learnt_share)).to_numpy()
    larger = table["source"] == splits.larger_source(table)
    for what, mask in {"learnt from": fitted, "held out": out}.items():
        checked = table["label"][mask & larger]
        if mask.any() and checked.nunique() < 2 and held.case is None:
            raise InputError(f"what is {what}{held} holds one label only: {set(checked)}")
    parts = [
        rows_of(rows, table, np.flatnonzero(mask), plan.largest) if mask.any() else None
        for mask in (fitted, out)
    ]
    if parts[0] is None or (parts[1] is None and not held.nothing):
        raise InputError(f"split {split.kind}{held}: a part is empty")
    return Data(about, split, parts[0], parts[1])


def _masks(
    split: splits.Split, table: pd.DataFrame, held: Held
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows are learnt from, and which are held out."""
    usable = ~split.part.isin(["test", splits.UNUSED]).to_numpy()
    if held.nothing:
        return usable, np.zeros_like(usable)
    if held.fold is not None:
        out = (split.fold == held.fold).to_numpy()
    elif held.case:
        out = (table["case_id"] == held.case).to_numpy() & usable
    else:
        out = (split.part == "validation").to_numpy()
    return usable & ~out, out


def drawn_cases(table: pd.DataFrame, share: float) -> set[str]:
    """A share of the cases of each source, evenly over those of few and of many malignant images.

    Of halves and quarters, the smaller lie within the larger.
    """
    malignant = (table["label"] == "malignant").groupby([table["source"], table["case_id"]]).mean()
    malignant = malignant.sort_values(kind="stable")
    rank = malignant.groupby("source").cumcount()
    drawn = np.floor((rank + 1) * share) > np.floor(rank * share)
    return set(malignant.index[drawn].get_level_values("case_id"))


def taught(
    frame: pd.DataFrame, plan: recipe.Recipe, teachers: Sequence[Path]
) -> NDArray[np.float64] | None:
    """The mean of what teachers say of each row, NaN where none says anything.

    Raises:
        InputError: Teachers and the recipe's share of them contradict each other, or the teachers
            say nothing of any row.
    """
    if bool(teachers) != bool(plan.teachers):
        raise InputError(
            f"the recipe takes a share of {plan.teachers:g} from teachers and {len(teachers)} are "
            "named with --teacher: give both or neither"
        )
    if not teachers:
        return None
    said = pd.concat([predictions.read(run / PREDICTIONS) for run in teachers])
    mean = frame["sha256"].map(said.groupby("sha256")["probability"].mean())
    if mean.isna().all():
        raise InputError("the teachers say nothing of any image learnt from: name other runs")
    return mean.to_numpy(dtype=np.float64)
