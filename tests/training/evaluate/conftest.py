"""Fold models of a miniature corpus, as if trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bcd_models import BCDClassifier
from bcd_models.config import HeldOut, Provenance
from tests.support.small_runs import RECIPE
from training.corpus.selection import open_corpus


@pytest.fixture(scope="module")
def make_fold_model(corpus_folder: Path, telling: Path):
    """A model that tells drawn tumour, as if trained with something held out."""
    opened = open_corpus(corpus_folder, "grouped")

    def made(**held: Any) -> BCDClassifier:
        model = BCDClassifier.from_pretrained(telling)
        changes = held.pop("changes", {})
        provenance = Provenance(
            corpus_fingerprint=opened.about["fingerprint"],
            split="grouped",
            split_sha256=opened.split.sha256,
            held_out=HeldOut(**held),
            recipe=RECIPE,
        ).model_copy(update=changes)
        model.config = model.config.model_copy(update={"provenance": provenance})
        return model

    return made
