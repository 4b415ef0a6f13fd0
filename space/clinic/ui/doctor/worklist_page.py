"""A doctor's first page: examinations that nobody has read yet, the oldest first."""

from __future__ import annotations

import gradio as gr

from clinic.installation import Installation
from clinic.records import examinations
from clinic.records.examinations import ExaminationRow
from clinic.ui.frame import PRIVATE, get_actor, read_query, show_failures
from clinic.ui.tables import empty, link, moment, page_number, pager, table

PATH = "/"
HEADS = ("Examination", "Patient", "Saved", "Images")


def add_worklist_page(app: gr.Blocks, clinic: Installation) -> None:
    """Add the page to the Blocks being built."""
    gr.HTML("<h1>Examinations without a read</h1>", elem_classes="bcd-heading")
    shown = gr.HTML()

    @show_failures
    def show(request: gr.Request) -> str:
        number = page_number(read_query(request, "sheet"))
        page = examinations.list_unread(clinic, get_actor(request), number)
        if not page.total:
            return empty(
                "Nothing waits for a read",
                f"Choose a patient under {link('/patients', 'Patients')} to examine images.",
            )
        rows = [_row(one) for one in page.rows]
        return table(HEADS, rows, "Examinations without a read") + pager(page, PATH)

    app.load(show, None, shown, **PRIVATE)


def _row(one: ExaminationRow) -> tuple[str, ...]:
    return (
        link("/examination", one.id, id=one.id),
        link("/patient", one.patient_id, id=one.patient_id),
        moment(one.created_at),
        str(one.images),
    )
