"""Answers and reads as CSV: one's own, those that were shown, and nothing that runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import date, timedelta

import pytest

from bcd_models import Prediction
from bcd_models.errors import InputError
from clinic.dashboard import answer_table
from clinic.dashboard import csv as csv_file
from clinic.dashboard.analytics import Period
from clinic.installation import Installation
from clinic.records import examinations, reads
from clinic.storage.actor import Actor, NotAllowed

TODAY = date(2026, 11, 25)


def rows_of(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_answers_are_exported_with_their_reads_and_no_formula(
    clinic: Installation,
    doctors: dict[str, Actor],
    patient: str,
    save_on: Callable[..., str],
    keys: list[str],
    said: list[list[Prediction]],
) -> None:
    ada, key, today = doctors["ada"], keys[0], Period(TODAY, TODAY)
    seen, hidden = save_on(TODAY, ada, patient), save_on(TODAY, ada, patient, shown=False)
    save_on(TODAY - timedelta(days=1), ada, patient)
    reads.record(clinic, ada, seen, "none")
    reads.record(clinic, ada, seen, "invasive", '=HYPERLINK("http://x","größer")', "once more")
    rows = rows_of(answer_table.export_answers(clinic, ada, key, today))
    assert [(row["examination"], row["image"]) for row in rows] == [(seen, "1"), (seen, "2")]
    for row, answer in zip(rows, said[0], strict=True):
        assert float(row["probability"]) == answer.probability
        assert (row["patient"], row["external_id"]) == (patient, "AB-1234")
        assert (row["read"], row["read_after_answer"]) == ("invasive", "True")
        assert (float(row["mpp"]), row["scale"]) == (4, answer.scale)
        assert row["reasons"] == "; ".join(answer.reasons)
        assert row["comment_on_read"] == '\'=HYPERLINK("http://x","größer")'
    examinations.view(clinic, ada, hidden, reveal=True)
    assert len(rows_of(answer_table.export_answers(clinic, ada, key, today))) == 4
    assert rows_of(answer_table.export_answers(clinic, doctors["grace"], key, today)) == []
    with pytest.raises(NotAllowed):
        answer_table.export_answers(clinic, doctors["admin"], key, today)
    with pytest.raises(InputError):
        answer_table.export_answers(clinic, ada, "none", today)


@pytest.mark.parametrize("begin", list("=+-@\t\r\n＝＋－＠"))
def test_no_cell_begins_a_formula(begin: str) -> None:
    data = csv_file.write_csv(["a"], [[f"{begin}1+1"], [-1.5], [None], ["a=1"]])
    cells = [row["a"] for row in rows_of(data)]
    assert cells == [f"'{begin}1+1", "-1.5", "", "a=1"]
