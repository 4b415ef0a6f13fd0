"""Reports of a comparison that lack all but what a test is about."""

from __future__ import annotations

from typing import Any

from bcd_models.prediction import NOTICE
from training.compare import page
from training.compare.schema import Report
from training.evaluate import cost


def make_report(**sections: Any) -> Report:
    """Return a report with these sections alone."""
    empty = dict.fromkeys(page.TITLES, ())
    more = dict.fromkeys(("runs", "original", "goals", "ensembles", "costs"), ())
    about = {
        "corpus": "idc: 1",
        "corpus_fingerprint": "c0ffee",
        "larger_source": "idc",
        "intervals": "95%",
        "hours": 0.0,
        "machine": cost.describe_machine(),
        "missing": {name: "none" for name in empty if name not in sections},
        "notice": NOTICE,
    }
    return Report.model_validate({**empty, **more, **about, **sections})
