"""Which rows of a corpus a run learns from, and which it holds out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bcd_models.config import HeldOut, Provenance
from bcd_models.errors import InputError
from training.corpus import build as corpus
from training.corpus import splits
from training.corpus.pixels import Rows, select_rows
from training.recipes import schema as recipe


@dataclass(frozen=True)
class Corpus:
    """A corpus opened with one of its splits.

    Attributes:
        rows: As loaded from its folder.
        about: What ``corpus.json`` says.
        split: The manifest read back.
        table: One line a row, without pixels; its column ``fold`` is the split's.
    """

    rows: datasets.Dataset
    about: dict[str, Any]
    split: splits.Split
    table: pd.DataFrame


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


def open_corpus(folder: Path, kind: str) -> Corpus:
    """Open a corpus with the split of a kind; InputError where either can't be used."""
    rows, about = corpus.load(folder)
    split = splits.read(folder, rows, kind, about["fingerprint"])
    return Corpus(rows, about, split, splits.read_table(rows).assign(fold=split.fold.to_numpy()))


def select_data(opened: Corpus, plan: recipe.Recipe, held: HeldOut = HeldOut()) -> Data:
    """Select the rows of a run.

    Raises:
        InputError: What is held out can't be used, or what is learnt from or held out holds one
            label only within the larger source.
    """
    split, table = opened.split, opened.table
    fitted, out = _split_rows(split, table, held)
    if unknown := set(plan.sources) - set(table["source"]):
        raise InputError(f"the corpus has no source {min(unknown)!r}, which the recipe learns from")
    if plan.sources:
        fitted = fitted & table["source"].isin(plan.sources).to_numpy()
    if plan.learnt_share < 1:
        drawn = draw_cases(table[fitted], plan.learnt_share)
        fitted = fitted & table["case_id"].isin(drawn).to_numpy()
    larger = table["source"] == splits.find_larger_source(table)
    where = ", ".join(filter(None, (split.kind, held.words)))
    for what, mask in {"learnt from": fitted, "held out": out}.items():
        checked = table["label"][mask & larger]
        if mask.any() and checked.nunique() < 2 and held.case is None:
            raise InputError(f"what is {what} holds one label only ({where}): {set(checked)}")
    learnt, scored = (
        select_rows(opened.rows, table, np.flatnonzero(mask), plan.largest) if mask.any() else None
        for mask in (fitted, out)
    )
    if learnt is None or (scored is None and not held.nothing):
        raise InputError(f"split {where}: nothing is learnt from, or nothing held out")
    return Data(opened.about, split, learnt, scored)


def check_corpus(provenance: Provenance, opened: Corpus) -> None:
    """Refuse a corpus or split other than a model was trained on; raises InputError."""
    trained_on, this = provenance.corpus_fingerprint, opened.about["fingerprint"]
    if trained_on != this:
        raise InputError(
            f"the model was trained on corpus {trained_on[:16] or 'unknown'}, this one is "
            f"{this[:16]}: its parts say nothing about this model"
        )
    if provenance.split_sha256 != opened.split.sha256:
        raise InputError(
            f"the corpus' {opened.split.kind} split is not the split the model was trained on: "
            "its parts hold what the model has learnt from"
        )


def find_unlearnt_rows(opened: Corpus, held: HeldOut) -> NDArray[np.bool_]:
    """Return which rows judge a run: those it held out, or test where it held nothing out."""
    if held.nothing:
        return np.asarray(opened.split.part == "test")
    return _split_rows(opened.split, opened.table, held)[1]


def _split_rows(
    split: splits.Split, table: pd.DataFrame, held: HeldOut
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows are learnt from, and which are held out."""
    usable = (split.part != "test").to_numpy()
    if held.nothing:
        return usable, np.zeros_like(usable)
    if held.fold is not None:
        out = (split.fold == held.fold).to_numpy()
    elif held.case:
        out = (table["case_id"] == held.case).to_numpy() & usable
    else:
        out = (split.part == "validation").to_numpy()
    return usable & ~out, out


def draw_cases(table: pd.DataFrame, share: float) -> set[str]:
    """Draw a share of each source's cases, evenly over those of few and many malignant images.

    Of halves and quarters, the smaller lie within the larger.
    """
    malignant = (table["label"] == "malignant").groupby([table["source"], table["case_id"]]).mean()
    malignant = malignant.sort_values(kind="stable")
    rank = malignant.groupby("source").cumcount()
    drawn = np.floor((rank + 1) * share) > np.floor(rank * share)
    return set(malignant.index[drawn].get_level_values("case_id"))
